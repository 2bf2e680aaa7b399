"""Layers that get no vectors in some batches, or in none: experts, empty maps, batches without samples."""

import pytest
import torch
from torch import nn

import nfa
from nfa import reference

D = torch.float64


class Experts(nn.Module):
    """Each sample goes to one expert, by its first number; dense, all experts see all and masks choose."""

    def __init__(self, dense, make, classes=4):
        super().__init__()
        self.dense, self.classes = dense, classes
        self.a = make(6, 8)
        self.experts = nn.ModuleList([make(8, 5) for _ in range(4)])
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        which = x.flatten(1)[:, 0].sign().long() + 1  # 0, 1, 2: the last expert gets nothing
        out = h.new_zeros(len(x), 5, *h.shape[2:])
        for k, expert in enumerate(self.experts):
            chosen = which == k
            if self.dense:
                out = out + expert(h) * chosen.to(h).reshape(-1, *[1] * (h.dim() - 1))
            else:
                out[chosen] = expert(h[chosen])
        out = torch.tanh(out)
        return torch.tanh(self.head(out.flatten(2).mean(2) if out.dim() > 2 else out))


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs)


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def networks(make):
    torch.manual_seed(0)
    routed = Experts(False, make).to(D)
    dense = Experts(True, make).to(D)
    dense.load_state_dict(routed.state_dict())
    return routed, dense


def samples(make):
    """Sorted, so that batches of a few go to one expert alone."""
    torch.manual_seed(1)
    x = torch.randn(40, 6, dtype=D) if make is linear else torch.randn(40, 6, 4, 4, dtype=D)
    return x[x.flatten(1)[:, 0].argsort()]


LAYERS = ("a", "experts.0", "experts.2", "head")


@pytest.mark.parametrize("make", [linear, conv])
@pytest.mark.parametrize("size", [40, 7])
@pytest.mark.parametrize("options", [{}, {"chunk": 2}, {"piece_limit": 3}, {"replicates": 8}])
def test_an_expert_of_some_batches_is_measured_over_all_samples(make, size, options):
    (routed, dense), x = networks(make), samples(make)
    found = nfa.agop(routed, x.split(size), **options)
    for name in LAYERS:
        expected = reference.layer_agop(dense, x, name)[0]
        assert float((found[name] - expected).norm() / expected.norm()) < 1e-9, name


@pytest.mark.parametrize("make", [linear, conv])
def test_an_expert_without_any_vector_is_skipped_and_the_others_are_measured(make):
    (routed, dense), x = networks(make), samples(make)
    report, expected = nfa.audit(routed, x.split(7)), nfa.audit(dense, x.split(7))
    for name in ("experts.1", "experts.3"):
        assert report.row(name).status == "skipped: the output does not depend on it"
    for name in LAYERS:
        assert report.row(name).status == "ok"
        for column in ("alignment", "z", "cosine", "null_mean", "pearson", "stderr"):
            assert getattr(report.row(name), column) == pytest.approx(
                getattr(expected.row(name), column), rel=1e-6, abs=1e-9
            ), (name, column)


@pytest.mark.parametrize(
    "options",
    [
        {"probes": 3}, {"tolerance": 0.2}, {"tolerance": 0.2, "memory": 2e6}, {"memory": 1e6},
        {"drift": True}, {"output": "loss"}, {"per_head": True}, {"probes": 2, "chunk": 2},
        {"max_samples": 9},
    ],
)  # fmt: skip
def test_options_take_empty_experts(options):
    (routed, dense), x = networks(linear), samples(linear)
    batches = [(part, torch.randn(len(part), 3, dtype=D, generator=torch.Generator().manual_seed(2)))
               for part in x.split(7)]  # fmt: skip
    report, expected = nfa.audit(routed, batches, **options), nfa.audit(dense, batches, **options)
    assert report.row("experts.3").status == "skipped: the output does not depend on it"
    assert report.row("experts.0").cosine == pytest.approx(expected.row("experts.0").cosine, rel=1e-6)


def test_centred_gradients_of_an_expert_are_centred_over_its_own_vectors():
    (routed, _), x = networks(linear), samples(linear)
    found = nfa.agop(routed, x.split(7), centered=True)["experts.0"]
    mine = x[x[:, 0] < 0]
    alone = nn.Sequential(routed.a, nn.Tanh(), routed.experts[0], nn.Tanh(), routed.head, nn.Tanh())
    expected = reference.centered_layer_agop(alone, mine, "2")[0] * len(mine) / len(x)
    assert float((found - expected).norm() / expected.norm()) < 1e-9


class PackedExpert(nn.Module):
    """An expert with attention: its queries, keys and values are rows of one weight."""

    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(6, 8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        chosen = x[:, 0, 0] > 0
        out = h.clone()
        if bool(chosen.any()):
            out[chosen] = self.attention(h[chosen], h[chosen], h[chosen])[0]
        return torch.tanh(self.c(out)).mean(1)


def test_heads_of_an_expert_that_some_batches_do_not_call():
    torch.manual_seed(0)
    net, x = PackedExpert().to(D), torch.randn(20, 3, 6, dtype=D)
    x = x[x[:, 0, 0].argsort()]
    whole, parts = nfa.audit(net, [x], per_head=True), nfa.audit(net, x.split(4), per_head=True)
    assert whole.row("attention.v.head1").status == "ok"
    for a, b in zip(whole.rows, parts.rows, strict=True):
        assert a.status == b.status
        assert a.cosine == pytest.approx(b.cosine, rel=1e-9, nan_ok=True)


class NoTokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.side, self.c = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.c(torch.tanh(self.a(x)).mean(1) + self.side(x[:, :0]).sum(1))


def test_a_layer_of_no_tokens_is_skipped():
    report = nfa.audit(NoTokens(), torch.randn(6, 3, 6))
    assert report.row("side").status == "skipped: the output does not depend on it"
    assert report.row("a").measured


def test_batches_without_samples_are_passed_over():
    net, x = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(D), torch.randn(6, 6, dtype=D)
    found = nfa.agop(net, [x[:0], x[:4], x[:0], x[4:]])["0"]
    assert torch.allclose(found, nfa.agop(net, x)["0"], rtol=1e-12)
    lazy = nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.Linear(8, 3))
    assert nfa.audit(lazy, [torch.zeros(0, 6), torch.randn(6, 6)]).row("0").measured


@pytest.mark.parametrize(
    "batches",
    [[torch.zeros(0, 6)], torch.zeros(0, 6), [], iter(()), (x for x in ()), [torch.zeros(0, 6)] * 3],
)
@pytest.mark.parametrize("measure", [nfa.audit, nfa.agop, nfa.input_agop])
def test_no_samples_at_all_is_one_line(measure, batches):
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    with pytest.raises(nfa.NfaError, match="no samples to measure on: the batches are empty"):
        measure(net, batches)


@pytest.mark.parametrize("options", [{"tolerance": 0.1}, {"memory": 1e9}, {"probes": 2}])
def test_no_samples_whatever_is_asked_for(options):
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    for batches in ([torch.zeros(0, 6)], []):
        with pytest.raises(nfa.NfaError, match="no samples to measure on"):
            nfa.audit(net, batches, **options)
