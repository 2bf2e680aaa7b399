"""Correlations of three papers against their definitions, with and without the defects of their code.

Everything is done the long way: Jacobians of every output with respect to the inputs of a layer, or to
patches as independent leaves, dense matrices, and correlations of their entries.
"""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap

import nfa
from nfa.command.cli import main
from nfa.protocol import DEFECTS, protocol


def stack(activation=nn.ReLU, width=9, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(7, width, bias=False), activation(), nn.Linear(width, width, bias=False), activation(),
        nn.Linear(width, width, bias=False), activation(), nn.Linear(width, 4, bias=False),
    ).double()  # fmt: skip


@pytest.fixture(params=[nn.ReLU, nn.Tanh])
def trained(request):
    net = stack(request.param)
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.3 * torch.randn_like(weight)
    return net, before, torch.randn(20, 7).double()


def pearson(A, B):
    return float(torch.corrcoef(torch.stack([A.flatten(), B.flatten()]))[0, 1])


def cosine(A, B):
    return float((A * B).sum() / (A.norm() * B.norm()))


def gradients(layers, h):
    """Of every output of a stack with respect to its input, (n, outputs, d)."""

    def forward(x):
        for layer in layers:
            x = layer(x)
        return x

    return vmap(jacrev(forward))(h)


def activations(layers, x, relu):
    for layer in layers:
        x = layer(x) if isinstance(layer, nn.Linear) or not relu else x.relu()
    return x.detach()


def numbers(rows):
    return {row.layer: (row.correlation, *row.beside.values()) for row in rows if row.status == "ok"}


def differ(some, others):
    return any(abs(a - b) > 1e-6 for layer in some for a, b in zip(some[layer], others[layer], strict=True))


# ---- nfa: arXiv 2212.13881 ---------------------------------------------------------------------------------


def published_nfa(net, before, x, defects):
    """The uncentred and the centred correlation of each layer."""
    found, layers = {}, list(net)
    linear = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
    for depth, i in enumerate(linear):
        own = copy.deepcopy(layers)
        change = own[i].weight.detach() - before[f"{i}.weight"]
        if "D1" in defects:
            own[i].weight.data = change
        stop = linear[depth + 1] if "D2" in defects and depth and depth + 1 < len(linear) else i
        if "D2" in defects and depth and depth + 1 == len(linear):
            continue  # the output of the network, which does not fit
        h = activations(own[:stop], x, relu="D3" in defects)
        J = gradients(own[i:], h).detach()
        centred = J - J.mean(0)
        N = change.T @ change
        found[str(i)] = [
            cosine(N, torch.einsum("ncd,nce->de", one, one) / len(x)) for one in (J, centred)
        ]  # fmt: skip
    return found


SWITCHES = [(), ("D1",), ("D2",), ("D3",), ("D1", "D2", "D3")]


@pytest.mark.parametrize("defects", SWITCHES)
def test_nfa(trained, defects):
    net, before, x = trained
    expected = published_nfa(net, before, x, defects)
    found = numbers(protocol(net, [x[:12], x[12:]], "nfa", before, defects=defects))
    assert found.keys() == expected.keys()
    if "6" in expected:
        expected["6"][1] = math.nan  # the gradients are their mean: what is left without it is rounding
    for layer, values in expected.items():
        assert found[layer] == pytest.approx(values, abs=1e-8, nan_ok=True)


def test_each_switch_of_nfa_changes_something(trained):
    net, before, x = trained
    plain = numbers(protocol(net, x, "nfa", before))
    for defect in DEFECTS["nfa"]:
        other = numbers(protocol(net, x, "nfa", before, defects=(defect,)))
        some = {layer: plain[layer] for layer in other}
        assert differ(some, other) == (defect != "D3" or not isinstance(net[1], nn.ReLU))


# ---- cnfc: arXiv 2402.05271 --------------------------------------------------------------------------------


def test_cnfc(trained):
    net, before, x = trained
    found = numbers(protocol(net, x, "cnfc", before))
    layers = list(net)
    for i in (0, 2, 4, 6):
        z = activations(layers[: i + 1], x, relu=False)
        delta = gradients(layers[i + 1 :], z).detach() if i < 6 else torch.eye(4).double().expand(20, 4, 4)
        K = torch.einsum("nci,ncj->ij", delta, delta)
        W = layers[i].weight.detach()
        change = W - before[f"{i}.weight"]
        expected = (
            pearson(change.T @ K @ change, change.T @ change),
            pearson(W.T @ K @ W, W.T @ W),
            float(change.norm() / W.norm()),
        )
        c_nfc, uc_nfc, mean, std, ratio = found[str(i)]
        assert (c_nfc, uc_nfc, ratio) == pytest.approx(expected, abs=1e-8)
        g = torch.Generator().manual_seed(9)
        orders = [torch.randperm(len(K), generator=g) for _ in range(600)]
        null = torch.tensor([pearson(change.T @ K[p][:, p] @ change, change.T @ change) for p in orders])
        assert mean == pytest.approx(float(null.mean()), abs=5 * float(null.std()) / math.sqrt(32) + 1e-9)
        assert std == pytest.approx(float(null.std()), rel=0.5, abs=1e-9)


def test_the_last_layer_is_one_with_its_null():
    """C is the identity there: C-NFC is 1, and so is every draw of its null."""
    net = stack()
    before = stack(seed=1).state_dict()
    c_nfc, _, mean, std, _ = numbers(protocol(net, torch.randn(9, 7), "cnfc", before))["6"]
    assert (c_nfc, mean, std) == pytest.approx((1, 1, 0), abs=1e-9)


# ---- cnfa: arXiv 2309.00570 --------------------------------------------------------------------------------


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 5, 3, stride=2)
        self.head = nn.Linear(5 * 16, 3)

    def forward(self, x):
        return self.head(self.conv2(self.conv1(x).relu()).relu().flatten(1))


def published_cnfa(net, batches, name, defects):
    """Patches of one convolution as independent inputs, its bias left out with C1; (N, G)."""
    conv = net.get_submodule(name)
    W = conv.weight.detach().flatten(1)
    total = torch.zeros(W.shape[1], W.shape[1], dtype=W.dtype)
    for x in batches[: 11 if "C2" in defects else 10]:
        for image in x:
            h = image[None] if name == "conv1" else net.conv1(image[None]).relu()
            patches = nn.functional.unfold(h, 3, padding=conv.padding, stride=conv.stride)[0].detach()
            side = math.isqrt(patches.shape[1])

            def rest(p, side=side):
                z = W @ p
                if "C1" not in defects:
                    z = z + conv.bias.detach()[:, None]
                z = z.reshape(1, -1, side, side).relu()
                z = net.conv2(z).relu() if name == "conv1" else z
                return net.head(z.flatten(1))[0]

            J = jacrev(rest)(patches).detach()  # (outputs, d, positions)
            total += torch.einsum("cdp,cep->de", J, J)
    return W.T @ W, total


@pytest.mark.parametrize("defects", [(), ("C1",), ("C2",), ("C3",), ("C1", "C2", "C3", "C4")])
def test_cnfa(defects):
    torch.manual_seed(0)
    net = Convolutional().double()
    net.conv1.bias.data.mul_(9)
    net.conv2.bias.data.mul_(9)
    before = copy.deepcopy(net.state_dict())
    for weight in net.parameters():
        weight.data += 0.2 * torch.randn_like(weight)
    batches = list(torch.randn(12, 2, 2, 9, 9).double())
    rows = numbers(protocol(net, batches, "cnfa", before, layers="conv*", defects=defects))
    for name in ("conv1", "conv2"):
        N, G = published_cnfa(net, batches, name, defects)
        correlation, start = rows[name]
        assert correlation == pytest.approx(pearson(N, G), abs=1e-8)
        W0 = before[f"{name}.weight"].flatten(1)
        same = start == pytest.approx(pearson(W0.T @ W0, N), abs=1e-8)
        assert same == ("C4" not in defects)


def test_it_needs_no_weights_of_the_start():
    (row,) = protocol(Convolutional(), torch.randn(3, 2, 9, 9), "cnfa", layers="conv1")
    assert math.isnan(row.beside["init"])
    assert -1 <= row.correlation <= 1


# ---- what it is asked --------------------------------------------------------------------------------------


def test_a_report_tells_the_start_too(trained):
    net, before, x = trained
    start = copy.deepcopy(net)
    start.load_state_dict(before)
    report = nfa.audit(start, x, nulls=0)
    some, others = (numbers(protocol(net, x, "nfa", one)) for one in (report, before))
    assert {layer: some[layer] for layer in "024"} == {layer: others[layer] for layer in "024"}


def test_the_network_stays_as_it_was(trained):
    net, before, x = trained
    state = copy.deepcopy(net.state_dict())
    protocol(net, x, "nfa", before, defects=("D1", "D2", "D3"))
    protocol(net, x, "cnfa", defects=("C1", "C4"))
    assert all(torch.equal(a, b) for a, b in zip(state.values(), net.state_dict().values(), strict=True))


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "of_protocols.py").write_text(
        "from torch import nn\n"
        "def build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 10))\n"
    )
    audit = ["audit", "of_protocols:build", "--data", "digits", "--mean", "0", "--std", "1", "--out", "o"]
    small = ["--max-samples", "6"]
    assert main([*audit, *small, "--protocol", "cnfa", "--defects", "C1", "C2"]) == 0
    assert "CNFA as its paper measured it with C1, C2" in capsys.readouterr().out
    lines = Path("o/protocol.csv").read_text().splitlines()
    assert lines[0] == "layer,protocol,correlation,init,status"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2"]
    for more in (["--protocol", "nfa"], ["--protocol", "cnfa", "--probes", "2"], ["--defects", "C1"]):
        with pytest.raises(SystemExit) as stop:
            main([*audit, *small, *more])
        assert stop.value.code == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nfc", {}, "expected a protocol, cnfc, nfa, cnfa"),
        ("nfa", {}, "give the weights of then"),
        ("nfa", {"initial_state": {"a": torch.ones(1)}}, "does not fit the model"),
        ("cnfa", {"defects": ("D1",)}, "the code of cnfa has the defects C1, C2, C3, C4"),
        ("cnfa", {"defects": "C1"}, "has the defects"),
        ("cnfc", {"defects": ("C1",)}, "has the defects none"),
    ],
)
def test_what_is_refused(name, options, words):
    with pytest.raises(nfa.NfaError, match=words):
        protocol(stack(), torch.randn(4, 7), name, **options)


def test_the_switches_of_a_stack_are_refused_elsewhere():
    net = Convolutional()
    with pytest.raises(nfa.NfaError, match=r"nn\.Sequential"):
        protocol(net, torch.randn(3, 2, 9, 9), "nfa", Convolutional().state_dict(), defects=("D2",))


# ---- layers without a number -------------------------------------------------------------------------------


class Odd(nn.Module):
    """A layer whose output nobody reads, and one whose weight is used by a function that is not followed."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.plain, self.unread, self.twice, self.last = (nn.Linear(6, n) for n in (6, 4, 6, 3))

    def forward(self, x):
        self.unread(x)
        h = self.twice(self.plain(x).tanh()).tanh()
        return self.last((h @ self.twice.weight).tanh())


@pytest.mark.parametrize(
    ("name", "defects"), [("cnfc", ()), ("nfa", ()), ("nfa", ("D1",)), ("cnfa", ()), ("cnfa", ("C1",))]
)
def test_layers_that_cannot_be_measured_are_skipped_with_the_reason_of_an_audit(name, defects):
    net, x = Odd().double(), torch.randn(20, 6).double()
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    rows = {row.layer: row for row in protocol(net, x, name, before, defects=defects)}
    reasons = {row.layer: row.status for row in nfa.audit(net, x).rows if row.skipped}
    assert set(reasons) == {"unread", "twice"}
    for layer, row in rows.items():
        assert row.status == reasons.get(layer, "ok")
        assert math.isnan(row.correlation) == (layer in reasons)


def test_layers_that_did_not_change_or_whose_beginning_is_not_known_are_skipped():
    net, x = stack(), torch.randn(20, 7).double()
    before, initial = copy.deepcopy(net.state_dict()), nfa.audit(net, x, layers="0", nulls=0)
    net[0].weight.data += 0.1
    unchanged = "skipped: its weight is that at initialisation"
    for defects in ((), ("D1",)):
        rows = protocol(net, iter(x.split(10)), "nfa", before, defects=defects)
        assert [row.status for row in rows] == ["ok", unchanged, unchanged, unchanged]
        assert rows[0] == protocol(net, x.split(10), "nfa", before, defects=defects)[0]
    rows = protocol(net, x, "nfa", initial, defects=("D1",))
    assert [row.status for row in rows] == ["ok"] + ["skipped: its weight at initialisation is not known"] * 3
