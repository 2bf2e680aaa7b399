"""Time-first networks, measured with ``batch_dim=1``, give what their batch-first wrapping gives."""

import inspect
import json
import math
import sys

import numpy
import pytest
import torch
from torch import nn

import nfa
from nfa.ansatz.row import read_csv
from nfa.command.cli import main
from nfa.inputs import load_inputs

D = torch.float64
T, N = 5, 7


class Tagger(nn.Module):
    """A layer for sequences in PyTorch's default order, between two linear layers; an output a step."""

    def __init__(self, middle, last=False):
        super().__init__()
        self.inp, self.middle, self.head, self.last = nn.Linear(6, 8), middle, nn.Linear(8, 5), last

    def forward(self, x):
        h = self.middle(torch.tanh(self.inp(x)))
        h = h if isinstance(h, torch.Tensor) else h[0]
        return self.head(h[-1] if self.last else torch.tanh(h))


class BatchFirst(nn.Module):
    """The wrapping by hand; ``outputs`` is where the net has its samples."""

    def __init__(self, net, outputs=1):
        super().__init__()
        self.net, self.outputs = net, outputs

    def forward(self, x):
        return self.net(x.movedim(0, 1)).movedim(self.outputs, 0)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2)

    def forward(self, x, keys=None, padding=None):
        keys = x if keys is None else keys
        return torch.tanh(self.attention(x, keys, keys, key_padding_mask=padding)[0])


def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


NETS = {
    "LSTM": lambda: Tagger(nn.LSTM(8, 8)),
    "GRU, two layers both ways": lambda: Tagger(nn.GRU(8, 4, num_layers=2, bidirectional=True)),
    "TransformerEncoder": lambda: Tagger(encoder()),
    "MultiheadAttention": Attention,
    "classifier of the last step": lambda: Tagger(nn.LSTM(8, 8), last=True),
}


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().to(D).eval()


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=D)


def same(a, b):
    return float((a - b).norm()) <= 1e-12 * float(b.norm())


def wrapped(name, net):
    return BatchFirst(net, 0 if "last" in name else 1)


@pytest.mark.parametrize("steps", [1, T, N])
@pytest.mark.parametrize("name", NETS)
def test_equal_to_the_wrapping(name, steps):
    net, x = seeded(NETS[name]), normal(steps, N, 6)
    axis, hand = wrapped(name, net), x.movedim(1, 0)
    mine, theirs = nfa.agop(net, [x], batch_dim=1), nfa.agop(axis, [hand])
    assert mine.keys() == {key.removeprefix("net.") for key in theirs}
    assert all(same(mine[key.removeprefix("net.")], G) for key, G in theirs.items())
    assert same(nfa.input_agop(net, [x], batch_dim=1), nfa.input_agop(axis, [hand]))


@pytest.mark.parametrize("options", [{}, {"probes": 3}, {"tolerance": 0.05}, {"memory": 1e8}, {"chunk": 3}])
@pytest.mark.parametrize("name", NETS)
def test_audits_are_equal_row_by_row(name, options):
    net, x = seeded(NETS[name]), normal(T, N, 6)
    start = {k: v + 0.1 for k, v in net.state_dict().items()}
    mine = nfa.audit(net, x.split(3, 1), batch_dim=1, initial_state=start, nulls=4, **options)
    axis = wrapped(name, net)
    theirs = nfa.audit(
        axis,
        x.movedim(1, 0).split(3),
        initial_state={f"net.{k}": v for k, v in start.items()},
        nulls=4,
        **options,
    )
    assert mine.meta["samples"] == theirs.meta["samples"]
    for row, other in zip(mine.rows, theirs.rows, strict=True):
        assert (f"net.{row.layer}", row.status) == (other.layer, other.status)
        for column in ("alignment", "cosine", "cnfc", "init_cosine", "stderr", "null_mean"):
            a, b = getattr(row, column), getattr(other, column)
            assert math.isnan(a) == math.isnan(b)
            assert math.isnan(a) or abs(a - b) < 1e-9, (row.layer, column)


def test_the_last_layer_is_trivial_also_where_time_comes_first():
    net, x = seeded(lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))), normal(T, N, 6)
    for options in ({}, {"probes": 2}):
        assert nfa.audit(net, [x], batch_dim=1, **options).row("2").status == "trivial"
        assert nfa.audit(BatchFirst(net), [x.movedim(1, 0)], **options).row("net.2").status == "trivial"


def test_samples_are_counted_along_the_axis():
    net, x = seeded(NETS["LSTM"]), normal(T, N, 6)
    report = nfa.audit(net, [x], batch_dim=1, max_samples=4)
    assert report.meta["samples"] == 4
    assert same(
        nfa.agop(net, [x], batch_dim=1, max_samples=4)["inp"], nfa.agop(net, [x[:, :4]], batch_dim=1)["inp"]
    )


def test_an_iterator_is_read_once():
    net, x = seeded(NETS["LSTM"]), normal(T, N, 6)
    once = nfa.agop(net, iter(x.split(2, 1)), batch_dim=1)
    assert same(once["inp"], nfa.agop(net, [x], batch_dim=1)["inp"])


def test_masks_and_states_lie_where_pytorch_has_them():
    """Keys have another length, the padding is (samples, keys), states are (layers, samples, width)."""
    net, x, keys = seeded(Attention), normal(T, N, 6), normal(T + 1, N, 6) + 1
    padding = torch.zeros(N, T + 1, dtype=torch.bool)
    padding[1, 2:], padding[4, 4:] = True, True

    class ByHand(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, keys, padding):
            return self.net(x.movedim(0, 1), keys.movedim(0, 1), padding).movedim(1, 0)

    hand = ((x.movedim(1, 0), keys.movedim(1, 0), padding), None)
    expected = nfa.agop(ByHand(), [hand])
    for batch in (((x, keys, padding), None), {"x": x, "keys": keys, "padding": padding}):
        mine = nfa.agop(net, [batch], batch_dim=1)
        assert all(same(mine[key.removeprefix("net.")], G) for key, G in expected.items())

    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp, self.cell = nn.Linear(6, 8), nn.LSTM(8, 4)

        def forward(self, x, states):
            return self.cell(torch.tanh(self.inp(x)), states)

    stateful, states = seeded(Stateful), (normal(1, N, 4), normal(1, N, 4))
    picked = {"output_fn": lambda raw: raw[0]}
    whole = nfa.agop(stateful, [((x, states), None)], batch_dim=1, **picked)
    one_by_one = [((x[:, i : i + 1], tuple(s[:, i : i + 1] for s in states)), None) for i in range(N)]
    assert same(whole["inp"], nfa.agop(stateful, one_by_one, batch_dim=1, **picked)["inp"])


def test_losses_of_time_first_targets():
    net, x, y = seeded(NETS["LSTM"]), normal(T, N, 6), torch.arange(T * N).reshape(T, N) % 5
    mine = nfa.agop(net, [(x, y)], batch_dim=1, output="loss")
    hand = nfa.agop(BatchFirst(net), [(x.movedim(1, 0), y.T)], output="loss")
    assert same(mine["inp"], hand["net.inp"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, "batch_dim must be a whole number"),
        (1.0, "batch_dim must be"),
        (True, "must be"),
        (3, "is no axis"),
    ],
)
def test_wrong_axes(value, message):
    net = seeded(NETS["LSTM"])
    for measure in (nfa.audit, nfa.agop, nfa.input_agop):
        with pytest.raises(nfa.NfaError, match=message):
            measure(net, [normal(T, N, 6)], batch_dim=value)
    assert not net._forward_pre_hooks


def test_the_wrong_axis_is_refused_and_leaves_no_trace():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp, self.cell = nn.Linear(6, 8), nn.LSTM(8, 4, batch_first=True)

        def forward(self, x):
            return self.cell(torch.tanh(self.inp(x)))[0]

    net = seeded(First)
    with pytest.raises(nfa.NfaError, match="the samples of a batch interact"):
        nfa.audit(net, [normal(N, T, 6)], batch_dim=1)
    assert not net._forward_pre_hooks


def test_the_option_is_part_of_the_signatures():
    for measure in (nfa.audit, nfa.agop, nfa.input_agop):
        assert inspect.signature(measure).parameters["batch_dim"].default == 0
    with pytest.raises(nfa.NfaError, match="did you mean"):
        nfa.audit(seeded(NETS["LSTM"]), [normal(T, N, 6)], batch_dims=1)


# -- the command -----------------------------------------------------------------------------------

COMMAND_NETS = """
from tests.nfa.sweep.test_batch_axis import Tagger, nn

def tagger():
    return Tagger(nn.LSTM(8, 8))

def last():
    return Tagger(nn.GRU(8, 8), last=True)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "time_first_nets.py").write_text(COMMAND_NETS)
    x = normal(T, 24, 6).float().numpy()
    numpy.savez("x.npz", x=x)
    yield tmp_path
    sys.modules.pop("time_first_nets", None)


def command(net, data, *options):
    chosen = ["--data", data, "--out", "out", "--exact", "--pictures", "0", *options]
    return main(["audit", f"time_first_nets:{net}", *chosen])


@pytest.mark.parametrize("net", ["tagger", "last"])
def test_the_command_takes_the_axis(folder, net):
    assert command(net, "x.npz", "--batch-dim", "1", "--init", "--weights", weights_of(net)) == 0
    written = json.loads((folder / "out/audit.json").read_text())
    assert written["meta"]["samples"] == 24
    model = seeded(lambda: Tagger(nn.LSTM(8, 8) if net == "tagger" else nn.GRU(8, 8), last=net == "last"))
    report = nfa.audit(model.float(), [normal(T, 24, 6).float()], batch_dim=1)
    for row in read_csv(folder / "out/audit.csv"):
        expected = report.row(row.layer)
        assert row.status == expected.status
        assert row.alignment == pytest.approx(expected.alignment, abs=1e-4, nan_ok=True)


def weights_of(net):
    model = seeded(lambda: Tagger(nn.LSTM(8, 8) if net == "tagger" else nn.GRU(8, 8), last=net == "last"))
    torch.save(model.float().state_dict(), "net.pth")
    return "net.pth"


def test_arrays_of_keyword_arguments_have_their_samples_where_the_network_wants_them(tmp_path):
    x, mask = normal(T, 24, 6).float(), torch.arange(24)[:, None] + torch.arange(T) > 3
    numpy.savez(tmp_path / "named.npz", inputs_embeds=x.numpy(), mask=mask.numpy(), labels=numpy.arange(24))
    inputs = load_inputs(str(tmp_path / "named.npz"), batch_size=5, batch_dim=1)
    assert inputs.samples == 24
    assert inputs.shape == (T, 6)
    batch = next(iter(inputs))
    assert torch.equal(batch["inputs_embeds"], x[:, batch["labels"]])
    assert torch.equal(batch["mask"], mask[batch["labels"]])


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("x.npz", [], "--batch-dim 1"),
        ("x.npz", ["--batch-dim", "3"], "is no axis of 'x' in x.npz"),
        ("x.npz", ["--batch-dim", "-1"], "expected a whole number of at least 0"),
        ("digits", ["--batch-dim", "1", "--mean", "0", "--std", "1"], "--batch-dim is for ready inputs"),
    ],
)
def test_the_command_refuses(folder, capsys, data, options, words):
    with pytest.raises(SystemExit) as status:
        command("tagger", data, *options)
    error = capsys.readouterr().err.splitlines()[-1]
    assert status.value.code == 2
    assert error.startswith("error:")
    assert words in error
