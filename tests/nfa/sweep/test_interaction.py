"""Samples of a batch that interact are refused, noise is told, and rounding is taken for neither."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nfa
from nfa.ansatz.notes import notes
from nfa.ansatz.row import read_csv, write_csv
from nfa.page import write_html
from tests.nfa.cases import CASES

D = torch.float64


class Net(nn.Module):
    """Two linear layers, and something between or after them."""

    def __init__(self, between=lambda h: h, after=lambda z: z, before=lambda x: x):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
        self.before, self.between, self.after = before, between, after

    def forward(self, x):
        return self.after(self.b(self.between(torch.relu(self.a(self.before(x))))))


class Sequences(nn.Module):
    """A layer for sequences in PyTorch's default order, between two linear layers."""

    def __init__(self, middle):
        super().__init__()
        self.inp, self.middle, self.head = nn.Linear(6, 8), middle, nn.Linear(8, 5)

    def forward(self, x):
        h = self.middle(torch.tanh(self.inp(x)))
        return self.head(h if isinstance(h, torch.Tensor) else h[0])


class Contrastive(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, image, text):
        return F.normalize(self.image(image), dim=1) @ F.normalize(self.text(text), dim=1).T


class Graph(nn.Module):
    """Convolution over the nodes of one graph."""

    def __init__(self, nodes):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("adjacency", torch.rand(nodes, nodes).softmax(1))

    def forward(self, x):
        return self.b(self.adjacency @ torch.relu(self.a(x)))


class Edges(nn.Module):
    """The same with the edges among the arguments."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x, edges):
        h = torch.relu(self.a(x))
        return self.b(h.index_add(0, edges[1], h[edges[0]]))


class SelfAttention(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2)

    def forward(self, x):
        return self.attention(x, x, x)[0]


def ring(n):
    return torch.stack([torch.arange(n), torch.arange(n).roll(1)])


ENCODER = {"dim_feedforward": 16, "dropout": 0.1}
SERIES = {
    "GRU": lambda: Sequences(nn.GRU(8, 8)),
    "LSTM": lambda: Sequences(nn.LSTM(8, 8)),
    "TransformerEncoderLayer": lambda: Sequences(nn.TransformerEncoderLayer(8, 2, **ENCODER)),
    "TransformerEncoder": lambda: Sequences(
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, **ENCODER), 2, enable_nested_tensor=False)
    ),
    "MultiheadAttention": SelfAttention,
}
MIXING = {
    "centred": lambda: Net(lambda h: h - h.mean(0)),
    "weakly centred": lambda: Net(lambda h: h - 1e-3 * h.mean(0)),
    "similarities": lambda: Net(after=lambda z: z @ z.T),
    "similarities with itself left out": lambda: Net(between=lambda h: (h @ h.T).fill_diagonal_(0) @ h),
    "batch statistics": lambda: Net(lambda h: F.batch_norm(h, None, None, training=True)),
    "softmax over the batch": lambda: Net(after=lambda z: z.softmax(0)),
    "attention over the batch": lambda: Net(lambda h: (h @ h.T).softmax(1) @ h),
    "neighbours": lambda: Net(lambda h: h + h.roll(1, 0)),
    "an earlier sample": lambda: Net(lambda h: h.cumsum(0)),
    "their number": lambda: Net(after=lambda z: z / len(z)),
}
WAYS = {
    "exact": {},
    "probes": {"probes": 2},
    "tolerance": {"tolerance": 0.05},
    "memory": {"memory": 1e8},
}


def seeded(build, dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().to(dtype).eval()


def normal(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, D])
@pytest.mark.parametrize("name", SERIES)
def test_time_first_is_refused_with_the_layer_and_what_to_do(name, dtype):
    with pytest.raises(nfa.NfaError, match=r"batch_first=False.*batch_dim=1 \(--batch-dim 1\)") as caught:
        nfa.audit(seeded(SERIES[name], dtype), [normal(12, 5, 6, dtype=dtype)])
    assert "\n" not in str(caught.value)
    assert any(layer in str(caught.value) for layer in (name, "MultiheadAttention"))


@pytest.mark.parametrize("dtype", [torch.float32, D])
@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_samples_is_refused(name, dtype):
    net, x = seeded(MIXING[name], dtype), normal(20, 6, dtype=dtype)
    for batches in ([x], x.split(1), x.split(2), x.split(3)):
        with pytest.raises(nfa.NfaError, match=r"the samples of a batch interact|count"):
            nfa.audit(net, batches)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("measure", [nfa.audit, nfa.agop, nfa.input_agop])
def test_every_way_of_measuring_refuses(measure, way):
    if measure is not nfa.audit and way in ("tolerance", "memory"):
        return
    with pytest.raises(nfa.NfaError, match="does the first axis of the inputs hold the samples"):
        measure(seeded(MIXING["centred"]), [normal(20, 6)], **WAYS[way])


def test_contrastive_logits_are_refused():
    batch = ((normal(8, 6), normal(8, 6) + 1), None)
    with pytest.raises(nfa.NfaError, match=r"outputs of shape \(2, 2\) together, \(1, 1\) alone"):
        nfa.audit(seeded(Contrastive), [batch])


def test_a_sequence_without_a_batch_is_refused():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.Sequential(nn.Linear(6, 8), layer).eval()
    with pytest.raises(nfa.NfaError, match="the samples of a batch interact"):
        nfa.audit(net, [normal(12, 6)])


def test_nodes_of_one_graph_are_refused_and_a_graph_as_a_sample_is_measured():
    net, x = seeded(lambda: Graph(20), D), normal(20, 6, dtype=D)
    with pytest.raises(nfa.NfaError, match="the nodes of one graph are no samples"):
        nfa.audit(net, [x])
    with pytest.raises(nfa.NfaError, match="the nodes of one graph are no samples"):
        nfa.audit(seeded(Edges, D), [((x, ring(20)), None)])

    class OneGraph(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x[0])[None]

    C = nfa.agop(OneGraph(), [x[None]])["net.a"]
    slope = (net.a(x) > 0).to(D)
    # ∂f_kj / ∂z_i = A_ki slope_i ∘ w_j, summed over nodes k and outputs j
    weights = net.adjacency.square().sum(0)
    W, V = net.a.weight.detach(), net.b.weight.detach()
    expected = sum(w * W.T @ (V.T @ V * s[:, None] * s) @ W for w, s in zip(weights, slope, strict=True))
    assert float((C - expected).norm() / expected.norm()) < 1e-12


# -- noise -----------------------------------------------------------------------------------------


def always_on():
    return Net(lambda h: F.dropout(h, 0.5))


def test_noise_is_told_in_rows_csv_table_and_notes(tmp_path):
    report = nfa.audit(seeded(always_on), [normal(32, 6)])
    assert report.row("a").measured
    assert "noise of the network" in report.row("a").status
    assert report.row("b").status == "trivial"
    assert "Random: the outputs change" in str(report)
    assert report.meta["noise"] > 0.1
    said = list(notes(report, 32, 0.5, 0.01))
    write_html(tmp_path / "audit.html", title="noisy", rows=report.rows, notes=said)
    assert "<b>Random:</b> the outputs change" in (tmp_path / "audit.html").read_text()
    write_csv(tmp_path / "audit.csv", report.rows)
    assert [row.status for row in read_csv(tmp_path / "audit.csv")] == [row.status for row in report.rows]


def test_numbers_of_a_random_network_are_averages_over_its_noise_and_follow_the_seed():
    net, x = seeded(always_on, D), normal(4000, 6, dtype=D)
    G = nfa.agop(net, list(x.split(500)))["a"]
    torch.manual_seed(123)
    assert torch.equal(G, nfa.agop(net, list(x.split(500)))["a"])
    assert not torch.equal(G, nfa.agop(net, list(x.split(500)), seed=1)["a"])
    slope = (net.a(x) > 0).to(D)
    W, V = net.a.weight.detach(), net.b.weight.detach()
    second = torch.ones(8, 8, dtype=D) + torch.eye(8, dtype=D)  # of the mask over its mean
    expected = W.T @ (V.T @ V * second * (slope.T @ slope / len(x))) @ W
    assert float((G - expected).norm() / expected.norm()) < 0.05


@pytest.mark.parametrize(
    "build",
    [
        lambda: Net(lambda h: F.dropout(h - h.mean(0), 0.3)),
        lambda: Net(lambda h: F.dropout(h, 0.5), after=lambda z: z @ z.T),
    ],
)
def test_noise_does_not_hide_that_samples_interact(build):
    with pytest.raises(nfa.NfaError, match="the samples of a batch interact"):
        nfa.audit(seeded(build), [normal(20, 6)])


def test_noise_of_a_generator_of_its_own():
    generator = torch.Generator().manual_seed(0)
    net = seeded(lambda: Net(lambda h: h * torch.rand(h.shape, generator=generator)))
    assert nfa.audit(net, [normal(20, 6)]).meta["noise"] > 0.1


# -- no false alarms -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_case_is_refused_in_single_precision(case):
    net, x = case.build(), case.inputs()
    net = net if case.name == "lazy-unbuilt" else net.float()
    dtype = D if case.name == "lazy-unbuilt" else torch.float32
    x = tuple(t.to(dtype) for t in x) if isinstance(x, tuple) else x.to(dtype)
    for size in (1, len(x[0]) if isinstance(x, tuple) else len(x)):
        parts = [t.split(size) for t in x] if isinstance(x, tuple) else [x.split(size)]
        batches = [(b if len(b) > 1 else b[0], None) for b in zip(*parts, strict=True)]
        report = nfa.audit(net, batches, output_fn=case.output_fn, nulls=0)
        assert "noise" not in report.meta


class Deep(nn.Module):
    """Many layers of a gain that lets rounding grow."""

    def __init__(self, depth=60, gain=1.6):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(32, 32) for _ in range(depth)])
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=gain / 32**0.5)

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def wide_convolutions():
    layers, channels = [], 3
    for width in (64, 128, 256, 256):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (Deep, (6, 32)),
        (wide_convolutions, (6, 3, 16, 16)),
        (lambda: Net(after=lambda z: z.squeeze()), (5, 6)),
        (lambda: Net(after=lambda z: 1e-3 * z + 1e6), (5, 6)),
        (lambda: Net(after=lambda z: z * 0), (5, 6)),
        (lambda: Net(before=lambda x: torch.log(x.abs())), (5, 6)),
    ],
    ids=["chaotic", "wide", "squeezed", "large offset", "zero", "logarithm"],
)
@pytest.mark.parametrize("seed", range(3))
def test_rounding_is_no_interaction(build, shape, seed):
    net = seeded(build)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    for batches in ([x], x.split(1)):
        assert "noise" not in nfa.audit(net, batches, probes=1, nulls=0, replicates=1).meta


def test_the_random_states_are_as_before():
    x, state = normal(20, 6), torch.get_rng_state()
    nfa.audit(seeded(always_on), [x])
    with pytest.raises(nfa.NfaError):
        nfa.audit(seeded(MIXING["centred"]), [x])
    assert torch.equal(state, torch.get_rng_state())
