"""What could silently be wrong: uses of a weight that are not seen, shared inputs, masks, lost memory."""

from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nfa
from nfa.layers.maps import find_maps
from nfa.sweep.measure import measure_sensitivities
from nfa.sweep.observer import Observer

D = torch.float64
X = torch.randn(6, 4, dtype=D, generator=torch.Generator().manual_seed(1))


def relative(A, B):
    return float((A - B).norm() / B.norm())


def sums(net, x, **options):
    sweep = measure_sensitivities(net, x, find_maps(net)[0], **options)
    return {name: s.matrix for name, s in sweep.sensitivities.items()}


class Uses(nn.Module):
    """Calls a layer, and uses its weight a second time in some way."""

    def __init__(self, second):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.last, self.second = nn.Linear(4, 4), nn.Linear(4, 3), second

    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.last(torch.tanh(self.second(self.a.weight, h)))


UNSEEN = {
    "transposed": lambda W, u: u @ W.T,
    "viewed": lambda W, u: F.linear(u, W.view(4, 4)),
    "einsum": lambda W, u: torch.einsum("bi,oi->bo", u, W),
    "scaled": lambda W, u: F.linear(u, W * 1.0),
    "addmm": lambda W, u: torch.addmm(u, u, W),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_a_second_use_that_is_not_seen_is_said(name):
    report = nfa.audit(Uses(UNSEEN[name]).to(D), X)
    assert report.row("a").status.startswith(
        "skipped: not all of its use can be followed: its weight also goes"
    )
    assert report.row("last").status == "trivial"


def test_a_second_use_that_is_seen_adds_up():
    net = Uses(lambda W, u: F.linear(u, W)).to(D)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.last = net.a, net.last

        def forward(self, x):
            return self.last(torch.tanh(self.a(torch.tanh(self.a(x))) - self.a.bias))

    ours, theirs = nfa.agop(net, X), nfa.agop(Twice(), X)
    assert relative(ours["a"], theirs["a"]) < 1e-12


class Shared(nn.Module):
    """Two modules with one weight."""

    def __init__(self, functional=False):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.h = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.b.weight = self.a.weight
        self.functional = functional

    def forward(self, x):
        h = torch.tanh(self.a(x))
        h = F.linear(h, self.b.weight, self.b.bias) if self.functional else self.b(h)
        return self.h(torch.tanh(h)).tanh()


def test_choosing_a_layer_does_not_give_it_the_calls_of_another():
    net = Shared().to(D)
    whole = nfa.agop(net, X)
    for name in ("a", "b"):
        assert relative(nfa.agop(net, X, layers=name)[name], whole[name]) < 1e-12


def test_a_function_with_a_shared_weight_belongs_to_nobody():
    report = nfa.audit(Shared(functional=True).to(D), X)
    assert "shares with another module" in report.row("a").status
    assert "shares with another module" in report.row("b").status


def test_functional_call_with_another_weight():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            other = {"weight": self.a.weight * 2, "bias": self.a.bias}
            return self.last(torch.func.functional_call(self.a, other, (x,))).tanh()

    assert "not all of its use" in nfa.audit(Net().to(D), X).row("a").status


def test_a_layer_under_vmap_is_said():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.last(torch.func.vmap(self.a)(x).tanh()).tanh()

    report = nfa.audit(Net().to(D), X)
    assert "torch.func transform" in report.row("a").status
    assert report.row("last").measured


def test_what_all_samples_share_is_not_measured():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.position, self.last = nn.Linear(4, 4), nn.Linear(2, 4), nn.Linear(4, 3)
            self.register_buffer("grid", torch.randn(5, 2))

        def forward(self, x):
            return self.last(torch.tanh(self.a(x) + torch.tanh(self.position(self.grid)).mean(0))).tanh()

    report = nfa.audit(Net().to(D), X)
    assert [row.status[:8] for row in report.rows] == ["ok", "skipped:", "ok"]
    assert "all samples share" in report.row("position").status


def test_branches_of_a_model_that_asks_for_gradients_itself():
    class Net(nn.Module):
        def __init__(self, asks):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.h, self.asks = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3), asks

        def forward(self, x):
            x = x.requires_grad_() if self.asks else x
            return self.h(torch.tanh(self.b(torch.tanh(self.a(x)))) * torch.tanh(self.b(x)))

    ours, theirs = sums(Net(True).to(D), X), sums(Net(False).to(D), X)
    for name in ours:
        assert relative(ours[name], theirs[name]) < 1e-12


def test_padding_does_not_count_through_the_head_either():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.body, self.head = nn.Embedding(11, 4), nn.Linear(4, 4), nn.Linear(4, 11)

        def forward(self, input_ids, attention_mask=None):
            return {"logits": self.head(self.body(self.embed(input_ids)).tanh())}

    net, ids = Model().to(D), torch.randint(0, 11, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(6) < 3).expand(3, 6).long()
    masked = sums(net, [{"input_ids": ids, "attention_mask": mask}])
    short = sums(net, [{"input_ids": ids[:, :3]}])
    for name in short:
        assert relative(masked[name], short[name]) < 1e-12
    report = nfa.audit(net, [{"input_ids": ids, "attention_mask": mask}])
    assert report.row("head").status == "trivial"


def test_class_outputs_are_not_masked_by_tokens():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.body, self.head = nn.Embedding(11, 4), nn.Linear(4, 4), nn.Linear(4, 5)

        def forward(self, input_ids, attention_mask=None):
            return self.head(self.body(self.embed(input_ids)).tanh().mean(1)).tanh()

    net, ids = Classifier().to(D), torch.randint(0, 11, (3, 5), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(5) < 2).expand(3, 5).long()
    masked, plain = sums(net, [{"input_ids": ids, "attention_mask": mask}]), sums(net, [{"input_ids": ids}])
    for name in plain:
        assert relative(masked[name], plain[name]) < 1e-12


def test_scale_of_probes_over_batches():
    net = Shared().to(D)
    exact = sums(net, X.split(1))
    many = sums(net, X.split(1), probes=4000, replicates_over="batches", replicates=3, chunk=500)
    for name in exact:
        assert relative(many[name], exact[name]) < 0.1


def test_a_single_sample_through_batchnorm_has_the_gradient_of_a_batch():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(27, 2)
    ).to(D)
    x = torch.randn(5, 2, 7, 7, dtype=D).contiguous(memory_format=torch.channels_last)
    together, apart = sums(net, x), sums(net, x.split(1))
    for name in together:
        assert relative(apart[name], together[name]) < 1e-12


def test_packed_one_by_one_convolution_is_split_by_channels():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.num_heads, self.qkv, self.last = 2, nn.Conv2d(4, 12, 1), nn.Linear(4, 3)

        def forward(self, x):
            q, k, v = self.qkv(x).flatten(2).chunk(3, 1)
            return self.last((torch.softmax(q.mT @ k, -1) @ v.mT).tanh().mean(1)).tanh()

    net, x = Net().to(D), torch.randn(3, 4, 3, 3, dtype=D)
    whole = measure_sensitivities(net, x, _unsplit(net)).sensitivities["qkv"].matrix[0]
    parts = sums(net, x)
    for i, part in enumerate("qkv"):
        assert relative(parts[f"qkv.{part}"][0], whole[4 * i : 4 * i + 4, 4 * i : 4 * i + 4]) < 1e-12


def _unsplit(net):
    heads, net.num_heads = net.num_heads, None
    try:
        return find_maps(net)[0]
    finally:
        net.num_heads = heads


class Fails(torch.autograd.Function):
    """Raises out-of-memory once, in the backward number ``when`` it sees."""

    counter: ClassVar[list[int]] = [0]

    @staticmethod
    def forward(ctx, x, when):
        ctx.when = when
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        Fails.counter[0] += 1
        if Fails.counter[0] in ctx.when:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return grad, None


class Fragile(nn.Module):
    def __init__(self, when=()):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.m, self.h, self.when = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 9), when

    def forward(self, x):
        h = Fails.apply(torch.tanh(self.a(x)), self.when)
        h = Fails.apply(torch.tanh(self.m(h)), self.when)
        return self.h(torch.tanh(self.m(h)))


@pytest.mark.parametrize("when", [(1,), (2,), (4,), (1, 2), (3, 5), (2, 9), (7, 14), (5, 30)])
@pytest.mark.parametrize(
    "options", [{}, {"chunk": 2}, {"centered": True}], ids=["plain", "chunk", "centered"]
)
def test_memory_that_runs_out_anywhere_changes_nothing(when, options):
    whole = sums(Fragile().to(D), X, **options)
    Fails.counter[0] = 0
    broken = sums(Fragile(when).to(D), X, **options)
    for name in whole:
        assert float((broken[name] - whole[name]).norm()) < 1e-12 * max(1.0, float(whole[name].norm())), name


@pytest.mark.parametrize("place", ["_product_of", "_joined"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_memory_that_runs_out_in_the_sums_changes_nothing(monkeypatch, place, call):
    from nfa.sweep import accumulate

    whole = sums(Fragile().to(D), X)
    original, counter = getattr(accumulate.OuterSum, place), [0]
    monkeypatch.setattr(accumulate, "_ROWS_WORTH_A_PRODUCT", 7)  # small sums, so that the queue fills up
    expected = sums(Fragile().to(D), X)

    def failing(*args):
        counter[0] += 1
        if counter[0] == call:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(*args)

    wrapped = staticmethod(failing) if place == "_joined" else failing
    monkeypatch.setattr(accumulate.OuterSum, place, wrapped)
    broken = sums(Fragile().to(D), X)
    assert counter[0] > call
    for name in whole:
        assert relative(expected[name], whole[name]) < 1e-12
        assert relative(broken[name], whole[name]) < 1e-12


def test_stopping_while_memory_is_short_leaves_whole_samples():
    class Stop(Observer):
        def __init__(self, left):
            self.left = left

        def progress(self, samples, backwards):
            self.left -= 1

        def stop(self):
            return self.left <= 0

    batches = X.repeat(4, 1).split(6)
    for left in range(1, 30, 3):
        Fails.counter[0] = 0
        sweep = _sweep(Fragile((9,)).to(D), batches, Stop(left))
        part = sums(Fragile().to(D), torch.cat(batches)[: sweep.samples])
        for name, expected in part.items():
            assert relative(sweep.sensitivities[name].matrix, expected) < 1e-12


def _sweep(net, batches, watch):
    return measure_sensitivities(net, batches, find_maps(net)[0], watch=watch)


def test_one_shot_object_loses_no_batch():
    class Once:
        def __init__(self):
            self.source = iter(X.split(2))

        def __iter__(self):
            return (x for x in self.source)

    report = nfa.audit(Shared().to(D), Once(), memory=1e9)
    assert report.meta["samples"] == 6


def test_initial_values_by_head():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.attention, self.last = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.last(self.attention(x, x, x)[0].tanh().mean(1)).tanh()

    net = Net().to(D)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():
        net.attention.in_proj_weight += 0.1 * torch.randn_like(net.attention.in_proj_weight)
    row = nfa.audit(net, torch.randn(5, 3, 4, dtype=D), initial_state=before, per_head=True).row(
        "attention.q.head1"
    )
    assert row.cnfc == row.cnfc
    assert row.init_cosine == row.init_cosine


def test_a_layer_that_is_not_followed_has_no_agop():
    net = Uses(UNSEEN["transposed"]).to(D)
    assert set(nfa.agop(net, X)) == {"last"}
    with pytest.raises(nfa.NfaError, match=r"not all of the use of a can be followed.*its weight also goes"):
        nfa.agop(net, X, layers="a")
