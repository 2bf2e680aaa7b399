"""Networks that were compiled, scripted, wrapped, pruned, … : measured rightly, or refused in one line."""

import warnings
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import nfa
from nfa import reference
from tests.nfa.sweep.test_untouched import equal, snapshot

D = torch.float64
X = torch.randn(17, 6, dtype=D, generator=torch.Generator().manual_seed(1))


def plain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh()
    ).to(D)


def with_second(change):
    def make():
        net = plain()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the older weight_norm is on its way out
            change(net[2])
        return net

    return make


class Squeezed(nn.Module):
    """Its outputs lose the axis of samples where there is one of them alone, or one output."""

    def __init__(self, outputs=3):
        super().__init__()
        self.net = plain()
        if outputs == 1:
            self.net[4] = nn.Linear(5, 1, dtype=D)

    def forward(self, x):
        return self.net(x).squeeze()


class NoSingles(nn.Module):
    """Raises for one sample alone."""

    def __init__(self):
        super().__init__()
        self.net = plain()

    def forward(self, x):
        x = x.squeeze()
        if x.dim() != 2:
            raise ValueError(f"Expected 2D input (got {x.dim()}D input)")
        return self.net(x)


def lazy():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(5), nn.Tanh(), nn.LazyLinear(3), nn.Tanh()
    ).to(D)


def frozen():
    net = plain()
    net[2].requires_grad_(False)
    return net.eval()


MEASURED = {  # make, prefix of names, name of the layers in the network itself
    "plain": (plain, ""),
    "fx": (lambda: torch.fx.symbolic_trace(plain()), ""),
    "compiled": (lambda: torch.compile(plain(), backend="eager"), "_orig_mod."),
    "data parallel": (lambda: nn.DataParallel(plain(), device_ids=[]), "module."),
    "pruned": (with_second(lambda m: prune.l1_unstructured(m, "weight", 0.5)), ""),
    "pruned rows": (with_second(lambda m: prune.ln_structured(m, "weight", 0.4, n=2, dim=0)), ""),
    "weight norm": (with_second(nn.utils.weight_norm), ""),
    "weight norm as a parametrisation": (with_second(parametrizations.weight_norm), ""),
    "orthogonal": (with_second(parametrizations.orthogonal), ""),
    "spectral norm": (with_second(parametrizations.spectral_norm), ""),
    "frozen": (frozen, ""),
    "lazy": (lazy, ""),
    "squeezed": (Squeezed, "net."),
    "one output squeezed": (lambda: Squeezed(1), "net."),
    "no singles": (NoSingles, "net."),
}


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("sizes", [[17], [1] * 17, [16, 1], [5, 12]], ids=str)
def test_measured_rightly(name, sizes):
    make, prefix = MEASURED[name]
    net = make()
    found = nfa.agop(net, X.split(sizes))
    inner = net if not prefix else getattr(net, prefix[:-1])
    for layer in ("0", "2"):
        expected = reference.layer_agop(inner, X, layer)[0]
        assert float((found[prefix + layer] - expected).norm() / expected.norm()) < 1e-9, layer


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("options", [{"memory": 1e9}, {"probes": 2}, {"tolerance": 0.5}], ids=str)
def test_measured_with_options(name, options):
    make, prefix = MEASURED[name]
    net = make()
    if name != "lazy":
        before = snapshot(net)
    report = nfa.audit(net, X.split([16, 1]), **options)
    assert report.row(f"{prefix}0").status == "ok"
    assert report.meta["samples"] == 17
    if name != "lazy":
        assert equal(snapshot(net), before)


# ---- refused ----------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    def __init__(self, samples=17):
        super().__init__()
        self.net, self.samples = plain(), samples

    def forward(self, x):
        return self.net(x.view(self.samples, -1))


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(plain().float(), {nn.Linear}, dtype=torch.qint8)


def scripted(function):
    def make():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(plain().eval())

    return make


REFUSED = {
    "scripted": (scripted(torch.jit.script), "measure it before torch.jit"),
    "traced": (scripted(lambda net: torch.jit.trace(net, X)), "measure it before torch.jit"),
    "frozen script": (scripted(lambda net: torch.jit.freeze(torch.jit.script(net))), "a frozen script"),
    "exported": (lambda: torch.export.export(plain(), (X,)).module(), "before it is exported"),
    "quantised": (quantised, "measure the network before it is quantised"),
    "bfloat16": (lambda: plain().bfloat16(), r"convert the model with \.float\(\)"),
    "half": (lambda: plain().half(), r"convert the model with \.float\(\)"),
    "complex": (scripted(lambda net: net.to(torch.cfloat)), "weight of dtype torch.complex64"),
    "meta": (lambda: plain().to("meta"), r"\.to_empty\(device='cpu'\)"),
    "fixed batch": (Fixed, "takes the 17 samples of a batch together and not 2 of them"),
    "several GPUs": (lambda: _on_gpus(plain()), r"pass its \.module"),
    "no weights": (nn.Tanh, "no linear map"),
}


def _on_gpus(net):
    parallel = nn.DataParallel(net, device_ids=[])
    parallel.device_ids = [0, 1]
    return parallel


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("options", [{}, {"memory": 1e9}, {"probes": 2}], ids=str)
def test_refused_in_one_line(name, options):
    make, message = REFUSED[name]
    if name == "fixed batch" and "memory" in options:
        message = "if its batch size is fixed"
    net = make()
    with pytest.raises(nfa.NfaError, match=message) as raised:
        nfa.audit(net, X, **options)
    assert len(str(raised.value).splitlines()) == 1


def test_a_part_that_is_scripted_is_skipped_and_the_rest_measured():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = torch.jit.script(nn.Sequential(nn.Linear(6, 8), nn.Tanh()).to(D))
    report = nfa.audit(nn.Sequential(part, nn.Linear(8, 5, dtype=D), nn.Tanh()), X)
    assert "measure it before torch.jit" in report.row("0.0").status
    assert report.row("1").status == "ok"


def test_token_ids_are_integers_and_measured():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.a, self.b = nn.Embedding(9, 6), nn.Linear(6, 5), nn.Linear(5, 2)

        def forward(self, ids):
            return self.b(torch.tanh(self.a(self.embed(ids))).mean(1))

    torch.manual_seed(0)
    net, ids = Tokens().to(D), torch.randint(0, 9, (12, 4))
    expected = reference.layer_agop(net, ids, "a")[0]
    for inputs in (ids, ids.int()):
        assert torch.allclose(nfa.agop(net, inputs)["a"], expected, rtol=1e-9)
    with pytest.raises(nfa.NfaError, match="cannot take the inputs"):
        nfa.audit(net, ids.double())


# ---- what a network returns -------------------------------------------------------------------------------


class Pair(NamedTuple):
    logits: torch.Tensor
    aux: torch.Tensor


class Other(NamedTuple):
    mean: torch.Tensor
    scale: torch.Tensor


class Returns(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = plain(), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


ONE_TENSOR = {
    "tuple of one": lambda y: (y,),
    "list of one": lambda y: [y],
    "with nothing beside it": lambda y: (y, None, {}),
    "with indices beside it": lambda y: (y.argmax(1), y),
    "nested": lambda y: ((y, None), []),
    "dictionary of one": lambda y: {"scores": y},
    "logits among others": lambda y: {"loss": y.sum(), "logits": y},
    "out among others": lambda y: {"out": y, "aux": y * 2},
    "named logits": lambda y: Pair(y, y * 2),
}
SEVERAL = {
    "tuple": (lambda y: (y, y.sum()), r"returns 2 tensors, 0: \(\d+, 3\), 1: \(\), .*output_fn="),
    "tuple of alike": (lambda y: (y, y * 2), "returns 2 tensors"),
    "list": (lambda y: [y, y, y], "returns 3 tensors"),
    "recurrent": (lambda y: (y, (y * 2, y * 3)), r"0: \(.*, 1: 1\.0 .*, 2: 1\.1 "),
    "dictionary": (lambda y: {"mean": y, "scale": y}, "0: mean .*, 1: scale "),
    "named tuple": (lambda y: Other(y, y), "0: mean .*, 1: scale "),
}
NONE = {
    "nothing": (lambda y: None, "got NoneType"),
    "text": (lambda y: "cat", "got str"),
    "classes": (lambda y: y.argmax(1), r"got a tensor torch\.int64"),
    "empty tuple": (lambda y: (), "got tuple"),
    "numbers": (lambda y: y.detach().numpy(), "got ndarray"),
    "complex": (lambda y: y * 1j, r"got a tensor torch\.complex128"),
}


@pytest.mark.parametrize("name", ONE_TENSOR)
def test_the_one_tensor_that_is_returned(name):
    net, expected = Returns(ONE_TENSOR[name]), nfa.agop(plain(), X)["0"]
    assert torch.allclose(nfa.agop(net, X)["net.0"], expected, rtol=1e-12)


@pytest.mark.parametrize("name", SEVERAL | NONE)
@pytest.mark.parametrize("options", [{}, {"memory": 1e9}], ids=str)
def test_several_tensors_are_never_cut_silently(name, options):
    wrap, message = (SEVERAL | NONE)[name]
    net = Returns(wrap)
    before = snapshot(net)
    with pytest.raises(nfa.NfaError, match=message) as raised:
        nfa.audit(net, X, **options)
    assert len(str(raised.value).splitlines()) == 1
    assert equal(snapshot(net), before)


def test_output_fn_chooses():
    net = Returns(SEVERAL["tuple of alike"][0])
    expected = nfa.agop(plain(), X)["0"]
    assert torch.allclose(nfa.agop(net, X, output_fn=lambda raw: raw[1] / 2)["net.0"], expected, rtol=1e-9)
    for wrong in (lambda raw: raw, lambda raw: None, lambda raw: raw[0].long()):
        with pytest.raises(nfa.NfaError, match="output_fn must return one floating tensor"):
            nfa.audit(net, X, output_fn=wrong)
