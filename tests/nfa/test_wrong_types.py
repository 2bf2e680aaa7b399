"""Whatever is passed to the Python API by mistake: one line of `NfaError`, and everything is as it was."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import nfa
from nfa.kernels import KERNELS, Metric, RadialKernel, make_kernel
from nfa.solvers import solve
from tests.nfa.sweep.test_untouched import equal, snapshot

torch.manual_seed(0)
X, CLASSES, REAL = torch.randn(12, 4), torch.arange(12) % 3, torch.randn(12)
IMAGES = torch.randn(12, 1, 6, 6)
NAN, INF = float("nan"), float("inf")


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


class Texts(Dataset):
    """Samples of which no batch can be made."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return Path("a.png"), 1


class Table:
    """Has numbers, and is no array."""

    def __array__(self):
        return X.numpy()


class Data:
    """A data module: what it is made with is its loader, once it is there."""

    def __init__(self, *loaders):
        if loaders:
            (self.loader,) = loaders

    def setup(self, stage):
        self.loader = DataLoader(TensorDataset(X, CLASSES), batch_size=5)

    def train_dataloader(self):
        return self.loader


def replaced(tensor, value, at=0):
    tensor = tensor.clone()
    tensor.view(-1)[at] = value
    return tensor


def refused(function, message=None):
    """Run what must be refused, in one line that names what is expected."""
    with pytest.raises(nfa.NfaError, match=message) as raised:
        function()
    text = str(raised.value)
    assert type(raised.value) is nfa.NfaError
    assert len(text.splitlines()) == 1, text
    assert 20 < len(text) < 400, text
    return text


# ---- measuring --------------------------------------------------------------------------------------------

WHOLE = (0, -1, 1.5, "4", True, NAN, [2], None)
MODELS = {
    "none": (None, "instance of nn.Module, got None"),
    "text": ("resnet18", "build the network"),
    "class": (Net, r"pass an instance, Net\("),
    "function": (lambda x: x, "wrap a function in a module"),
    "state dict": (Net().state_dict(), "a state dict holds weights alone"),
    "array": (numpy.zeros(3), "got an array float64"),
    "tensor": (X, "got a tensor"),
    "number": (5, "got 5"),
    "list": ([Net()], "got a list"),
    "meta": (nn.Sequential(nn.Linear(4, 3, device="meta")), "on the device 'meta'"),
}
BATCHES = {
    "none": (None, "got None"),
    "text": ("images/", "load the data first"),
    "path": (Path("images"), "load the data first"),
    "bytes": (b"images", "load the data first"),
    "number": (5, "got 5"),
    "array of texts": (numpy.array([["a"] * 4]), "cannot be a tensor"),
    "dataset of texts": (Texts(), r"make no batch of tensors: give it a transform"),
    "dataset without samples": (Dataset(), "no length or no samples by number|no samples to measure"),
    "table": (Table(), r"such as \.to_numpy\(\)"),
    "datamodule that is not set up": (Data(), r"call its prepare_data\(\) and setup\('fit'\) first"),
    "datamodule of several": (Data([X]), r"gives a list, no loader: pass the loader to measure on"),
    "dictionary": ({"input": X}, r"as a list, \[batch\]"),
    "network": (Net(), "got a Net"),
    "class": (DataLoader, "got the class DataLoader"),
    "function": (lambda: X, "got the function"),
    "pair": ((X, CLASSES), r"pass a list of such pairs: \[\(inputs, targets\)\]"),
    "pair of arrays": ((X.numpy(), CLASSES.numpy()), r"pass a list of such pairs"),
    "list of numbers": ([1.0, 2.0], "a batch must be a tensor"),
    "list of texts": (["a", "bc"], "a batch must be a tensor"),
    "list of nothing": ([None], "a batch must be a tensor"),
    "triples": ([(X, X, X)], "a batch must be a tensor"),
    "empty tuple": ([()], "a batch must be a tensor"),
    "array scalars": ([numpy.array(1.0)], "a batch must be a tensor"),
    "scalars": ([torch.tensor(1.0)], "first dimension counts samples"),
    "whole numbers": (torch.ones(4, 4, dtype=torch.long), r"\.float\(\)"),
    "truth values": (torch.ones(4, 4, dtype=torch.bool), r"\.float\(\)"),
    "complex": (torch.ones(4, 4, dtype=torch.cfloat), "complex"),
    "sparse": (torch.eye(4).to_sparse(), "to_dense"),
    "wrong width": (torch.ones(4, 7), r", 7\)"),
    "too few dimensions": (torch.ones(4), "cannot take the inputs"),
    "nan": (replaced(X, NAN), "not finite"),
    "meta": (torch.ones(4, 4, device="meta"), "meta"),
    "wrong keys": ([{"pixels": X}], "pixels"),
    "too many arguments": ([((X, X), None)], "the network"),
}
OPTIONS = {
    **{("probes", v): "probes must be a whole number of 1 or more" for v in WHOLE[:6]},
    **{("max_samples", v): "max_samples must be a whole number of 1 or more" for v in WHOLE[:6]},
    **{("chunk", v): "chunk must be a whole number of 1 or more" for v in (*WHOLE[:6], None)},
    **{("seed", v): "seed must be a whole number of 0 or more" for v in (None, "a", -1, 1.5, 2**63, True)},
    **{("output", v): "output must be one of" for v in (None, "logit", 3, "Softmax")},
    **{("device", v): "device" for v in ("gpu", 5, "cuda:99", "meta", "", "nowhere")},
    **{("output_fn", v): "output_fn must be a function" for v in ("logits", 0)},
    **{("neglect", v): "neglect must be a share" for v in (-0.1, 1, NAN, "half", None, True)},
    **{("centered", v): "centered must be True or False" for v in ("yes", 1, None)},
}
AUDIT_OPTIONS = {
    **{("power", v): "power must be a positive number" for v in ("half", NAN, INF, 0, -1, True, None)},
    **{("nulls", v): "nulls must be a whole number of 0 or more" for v in (-1, 1.5, "4", None, True)},
    **{("replicates", v): "replicates must be a whole number of 1 or more" for v in (0, "a", None)},
    **{("tolerance", v): "tolerance must be a standard error" for v in (0, 1, -0.1, "0.1", NAN, True)},
    **{("memory", v): "memory must be a positive number of bytes" for v in (0, -1, "2G", NAN)},
    **{("drift", v): "drift must be True or False" for v in ("yes", 1, None)},
    **{("per_head", v): "per_head must be True or False" for v in ("yes", 2)},
    **{("distributed", v): "distributed must be True or False" for v in ("yes", 2)},
    **{("watch", v): "watch must be" for v in (print, "on")},
    **{("initial_state", v): "initial_state must be the state dict" for v in ("init.pt", 5, Net, Path("x"))},
    ("prob", 3): r"audit has no option 'prob'; did you mean 'probes'\?",
    ("layer", "0"): r"audit has no option 'layer'; did you mean 'layers'\?",
    ("bases", None): "audit has no option 'bases'",
    ("colour", "red"): "audit has no option 'colour'; options: ",
}
LAYERS = (5, [5], [None], True, [], (), "", 0.5, numpy.zeros(2), {"0": 1}, ["0", 3])


def unchanged_by(net, function, message=None):
    before = snapshot(net)
    refused(function, message)
    assert equal(snapshot(net), before)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("measure", [nfa.audit, nfa.agop, nfa.input_agop])
def test_models(measure, name):
    model, message = MODELS[name]
    refused(lambda: measure(model, X), message)


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("measure", [nfa.audit, nfa.agop, nfa.input_agop])
def test_batches(measure, name):
    net, (batches, message) = Net().train(), BATCHES[name]
    message = None if measure is nfa.input_agop else message  # of which it says more: one floating tensor
    unchanged_by(net, lambda: measure(net, batches), message)


@pytest.mark.parametrize("option", OPTIONS, ids=str)
@pytest.mark.parametrize("measure", [nfa.audit, nfa.agop, nfa.input_agop])
def test_options(measure, option):
    net, (name, value) = Net().train(), option
    unchanged_by(net, lambda: measure(net, X, **{name: value}), OPTIONS[option])


@pytest.mark.parametrize("option", AUDIT_OPTIONS, ids=str)
def test_options_of_an_audit(option):
    net, (name, value) = Net().train(), option
    unchanged_by(net, lambda: nfa.audit(net, X, **{name: value}), AUDIT_OPTIONS[option])


@pytest.mark.parametrize("layers", LAYERS, ids=repr)
@pytest.mark.parametrize("measure", [nfa.audit, nfa.agop])
def test_layers(measure, layers):
    net = Net()
    unchanged_by(net, lambda: measure(net, X, layers), "layer")


def test_options_of_the_others():
    net = Net()
    refused(lambda: nfa.agop(net, X, prob=3), r"agop has no option 'prob'; did you mean 'probes'\?")
    refused(lambda: nfa.input_agop(net, X, layer="0"), "input_agop has no option 'layer'")
    refused(lambda: nfa.audit(net, X, initial_state={"a": 1}), "initial_state does not fit")
    refused(lambda: nfa.audit(net, X, initial_state={1: 2}), "initial_state must be the state dict")
    refused(lambda: nfa.audit(net, X, initial_state=net), r"take its \.state_dict\(\)")
    refused(lambda: nfa.audit(net, X, initial_state=dict.fromkeys(net.state_dict(), 1)), "initial_state")


@pytest.mark.parametrize(
    "module",
    [None, nn.Linear, "fc", X, nn.Tanh(), Net(), nn.LazyLinear(3), nn.Linear(4, 3, device="meta"), 5],
)
def test_neural_feature_matrix(module):
    refused(lambda: nfa.neural_feature_matrix(module))


@pytest.mark.parametrize("layer", [None, 5, ["0"], "9", nn.Linear(4, 5)])
def test_layers_of_a_report(layer):
    report = nfa.audit(Net(), X)
    refused(lambda: report.pair(layer), "measured layer")
    refused(lambda: report.row(layer), "no layer")


# ---- pairs ------------------------------------------------------------------------------------------------

W, C = torch.randn(3, 4), torch.eye(3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nfa.FeaturePair(None, C),
        lambda: nfa.FeaturePair(W, None),
        lambda: nfa.FeaturePair(W.numpy(), C),
        lambda: nfa.FeaturePair(W, C.numpy()),
        lambda: nfa.FeaturePair(W.tolist(), C),
        lambda: nfa.FeaturePair(W.long(), C),
        lambda: nfa.FeaturePair(W.cfloat(), C),
        lambda: nfa.FeaturePair(W.to_sparse(), C),
        lambda: nfa.FeaturePair(W[0], C),
        lambda: nfa.FeaturePair(W[:0], C),
        lambda: nfa.FeaturePair(W, torch.eye(4)),
        lambda: nfa.FeaturePair(W, C * NAN),
        lambda: nfa.FeaturePair(W * INF, C),
        lambda: nfa.FeaturePair(W, C, factor=C),
        lambda: nfa.FeaturePair(W, factor="C"),
        lambda: nfa.FeaturePair(nn.Linear(4, 3), C),
        lambda: nfa.FeaturePair(W, C, resolution="fine"),
        lambda: nfa.FeaturePair(W, C, resolution=-1),
        lambda: nfa.FeaturePair(W, C).cosine("half"),
        lambda: nfa.FeaturePair(W, C).cosine(NAN),
        lambda: nfa.FeaturePair(W, C).cosine(INF),
        lambda: nfa.FeaturePair(W, C).cosine(-1),
        lambda: nfa.FeaturePair(W, C).pearson("half"),
        lambda: nfa.FeaturePair(W, C).offdiag(None),
        lambda: nfa.FeaturePair(W, C).null_isotropic("half"),
        lambda: nfa.FeaturePair(W, C).null_isotropic(-2),
        lambda: nfa.FeaturePair(W, C).null_cosines(1.0, -1),
        lambda: nfa.FeaturePair(W, C).null_cosines(1.0, "8"),
        lambda: nfa.FeaturePair(W, C).null_cosines(1.0, 8, -1),
        lambda: nfa.FeaturePair(W, C).null_cosines(1.0, 8, None),
        lambda: nfa.FeaturePair(W, C).agop("half"),
        lambda: nfa.FeaturePair(W, C).agop(1.0, 0),
        lambda: nfa.FeaturePair(W, C).nfm("8"),
        lambda: nfa.FeaturePair(W, C).agop_spectrum(0),
        lambda: nfa.FeaturePair(W, C).nfm_eigenvectors(-1),
        lambda: nfa.FeaturePair(W, C).agop_eigenvectors("2"),
        lambda: nfa.FeaturePair(W, C).cosine_with(W.numpy()),
        lambda: nfa.FeaturePair(W, C).cosine_with(W[:2]),
        lambda: nfa.FeaturePair(W, C).cosine_with(W, "half"),
    ],
)
def test_pairs(make):
    refused(make)


# ---- machines ---------------------------------------------------------------------------------------------

SHARED_OPTIONS = {
    **{("rounds", v): "rounds must be a whole number of 0 or more" for v in (-1, "3", 1.5, None, True, NAN)},
    **{("ridge", v): "ridge must be 0 or a positive number" for v in (-1, NAN, INF, "a", None, True, print)},
    **{("power", v): "power must be a positive number" for v in ("half", NAN, INF, 0, -1, True, None)},
    **{("solver", v): "solver must be one of" for v in ("lu", None, 3)},
    **{("seed", v): "seed must be a whole number of 0 or more" for v in (None, "a", -1, 0.5, 2**63)},
    **{("device", v): "device" for v in ("gpu", 5, "cuda:99", "meta")},
    **{("memory", v): "memory must be a positive number of bytes" for v in (0, -1, "2G", NAN, True)},
    ("colour", "red"): "has no option 'colour'",
    ("rigde", 1.0): r"has no option 'rigde'; did you mean 'ridge'\?",
}  # fmt: skip
RADIAL_OPTIONS = {
    **{("bandwidth", v): "bandwidth must be" for v in (0, -1, NAN, INF, "mean", None, True, print)},
    ("kernel", "laplac"): "did you mean 'laplace'",
    **{("kernel", v): "kernel must be given by its name" for v in (None, 3, make_kernel("laplace", 1.0))},
    ("kernel", ""): "no kernel is called",
    ("nu", 1.5): "takes no options",
    ("agop_samples", 0): "agop_samples must be a whole number of 1 or more",
    ("agop_samples", "all"): "agop_samples must be a whole number of 1 or more",
    ("centering", "mean"): "centering must be one of",
    ("normalization", None): "normalization must be one of",
    ("bandwith", 3): r"has no option 'bandwith'; did you mean 'bandwidth'\?",
}
ROUND_OPTIONS = {
    **{("patience", v): "patience must be a whole number of 1 or more" for v in (0, "2", 1.5, True)},
    **{("refit", v): "refit must be True or False" for v in ("yes", 1, None)},
}
CONV_OPTIONS = {
    **{
        ("patch_size", v): "patch_size must be a whole number of 1 or more" for v in (0, "3", 1.5, None, True)
    },
    **{("stride", v): "stride must be a whole number of 1 or more" for v in (0, "3")},
    **{("agop_images", v): "agop_images must be a whole number of 1 or more" for v in (0, "all", 2.5)},
    **{("padding", v): "padding must be one of" for v in ("same", None, 1)},
    **{("head", v): "head must be one of" for v in ("max", None)},
    **{("kind", v): "kind must be one of" for v in ("ntk2", None)},
    **{("agop_draw", v): "agop_draw must be one of" for v in ("last", None)},
    **{("criterion", v): "criterion must be one of" for v in ("loss", None)},
}
DEEP_OPTIONS = {
    **{("depth", v): "depth must be a whole number of 1 or more" for v in (0, "3", 1.5, None, True)},
    **{("width", v): "width must be a whole number of 1 or more" for v in (0, "3", 1.5, None, True)},
    **{("select", v): "select must be one of" for v in ("first", None)},
    **{("activation", v): "activation must be one of" for v in ("tanh", None)},
}
OF = {
    nfa.RFM: SHARED_OPTIONS | RADIAL_OPTIONS | ROUND_OPTIONS,
    nfa.DeepRFM: SHARED_OPTIONS | RADIAL_OPTIONS | DEEP_OPTIONS
    | {("unit_norm", "yes"): "unit_norm must be True or False", ("bias", 1): "bias must be True or False",
       ("labels", "sign"): "labels must be one of", ("gamma", 0): "gamma must be a positive number",
       ("norm", 3): "norm must be 1 or 2", ("norm", "1"): "norm must be 1 or 2"},
    nfa.ConvRFM: SHARED_OPTIONS | CONV_OPTIONS | ROUND_OPTIONS,
    nfa.DeepConvRFM: SHARED_OPTIONS | CONV_OPTIONS | DEEP_OPTIONS
    | {("layers", 0): "layers must be a whole number of 1 or more", ("pool", 0): "pool must be a whole",
       ("conv_padding", ""): "padding must be one of", ("conv_stride", "2"): "stride must be a whole"},
}  # fmt: skip


@pytest.mark.parametrize(("machine", "option"), [(m, o) for m in OF for o in OF[m]], ids=str)
def test_options_of_machines(machine, option):
    name, value = option
    refused(lambda: machine(**{name: value}), OF[machine][option])


SMALL = {
    nfa.RFM: {"rounds": 1},
    nfa.DeepRFM: {"depth": 2, "width": 6},
    nfa.ConvRFM: {"rounds": 1, "depth": 1},
    nfa.DeepConvRFM: {"rounds": 1, "depth": 2, "width": 4, "patch_size": 2},
}
POINTS = {nfa.RFM: X, nfa.DeepRFM: X, nfa.ConvRFM: IMAGES, nfa.DeepConvRFM: IMAGES}
INPUTS = {
    "none": lambda x: None,
    "text": lambda x: "data.csv",
    "path": lambda x: Path("data.npz"),
    "array": lambda x: x.numpy(),
    "list": lambda x: x.tolist(),
    "loader": lambda x: DataLoader(TensorDataset(x)),
    "dataset": lambda x: TensorDataset(x),
    "whole numbers": lambda x: x.long(),
    "half": lambda x: x.half(),
    "complex": lambda x: x.cfloat(),
    "sparse": lambda x: x.to_sparse(),
    "meta": lambda x: x.to("meta"),
    "empty": lambda x: x[:0],
    "flat": lambda x: x.flatten(),
    "no features": lambda x: x[:, :0],
    "one more dimension": lambda x: x[None],
    "nan": lambda x: replaced(x, NAN),
    "infinity": lambda x: replaced(x, -INF),
    "other n": lambda x: x[:-1],
    "number": lambda x: 3,
}
TARGETS = {
    "none": None,
    "text": "label",
    "array": CLASSES.numpy(),
    "list": CLASSES.tolist(),
    "other n": CLASSES[:-1],
    "empty": CLASSES[:0],
    "scalar": torch.tensor(1.0),
    "three dimensions": torch.randn(12, 1, 1),
    "no outputs": torch.randn(12, 0),
    "nan": replaced(REAL, NAN),
    "infinity": replaced(REAL, INF),
    "complex": REAL.cfloat(),
    "sparse": REAL.to_sparse(),
    "one class": CLASSES * 0,
    "columns of classes": CLASSES[:, None].repeat(1, 2),
    "mixed labels": ["a", None, *"abcabcabca"],
    "other labels": [*"abc"],
    "meta": CLASSES.to("meta"),
}


@pytest.fixture(scope="module")
def fitted():
    return {machine: machine(**SMALL[machine]).fit(POINTS[machine], CLASSES) for machine in SMALL}


def unfitted_by(machine, function, message=None):
    """A machine that is fitted already keeps its fit when the next one is refused."""
    points = POINTS[type(machine)]
    before, history = machine.predict(points), copy.deepcopy(machine.history)
    refused(function, message)
    assert torch.equal(machine.predict(points), before)
    assert machine.history == history


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("machine", SMALL)
def test_inputs_of_machines(machine, name, fitted):
    bad, fitted = INPUTS[name](POINTS[machine]), fitted[machine]
    unfitted_by(fitted, lambda: fitted.fit(bad, CLASSES))
    unfitted_by(fitted, lambda: fitted.fit(POINTS[machine], CLASSES, bad, CLASSES))
    if name != "other n":
        unfitted_by(fitted, lambda: fitted.predict(bad))
        unfitted_by(fitted, lambda: fitted.scores(bad))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("machine", SMALL)
def test_targets_of_machines(machine, name, fitted):
    bad, fitted, points = TARGETS[name], fitted[machine], POINTS[machine]
    unfitted_by(fitted, lambda: fitted.fit(points, bad))
    if name not in ("one class",):
        unfitted_by(fitted, lambda: fitted.fit(points, CLASSES, points, bad))


@pytest.mark.parametrize("machine", SMALL)
def test_uses_of_machines(machine, fitted, tmp_path):
    points, fitted, new = POINTS[machine], fitted[machine], machine(**SMALL[machine])
    for use in (
        lambda: new.predict(points), lambda: new.scores(points), lambda: new.save(tmp_path / "m"),
        lambda: new.network(), lambda: new.predictor,
    ):  # fmt: skip
        refused(use, "not fitted: call fit")
    unfitted_by(fitted, lambda: fitted.fit(points, CLASSES, points), "both X_val and y_val")
    unfitted_by(fitted, lambda: fitted.fit(points, CLASSES, None, CLASSES), "both X_val and y_val")
    unfitted_by(fitted, lambda: fitted.fit(points, CLASSES, progress="yes"), "progress must be True or False")
    unfitted_by(fitted, lambda: fitted.predict(points[..., :-1]))
    for path in (None, 5, "", tmp_path / "no" / "m", tmp_path):
        unfitted_by(fitted, lambda path=path: fitted.save(path))
        refused(lambda path=path: machine.load(path))
    fitted.save(tmp_path / "m")
    refused(lambda: machine.load(tmp_path / "m", device="gpu"), "device must be")
    for other in SMALL:
        if other is not machine:
            refused(lambda other=other: other.load(tmp_path / "m"), "is no machine saved by")


@pytest.mark.parametrize("machine", SMALL)
def test_several_ridges_need_validation_data(machine, fitted):
    points = POINTS[machine]
    choosing = machine(**SMALL[machine]).fit(points, CLASSES)
    object.__setattr__(choosing.stack[0], "ridge", (0.1, 1.0))
    unfitted_by(choosing, lambda: choosing.fit(points, CLASSES), "needs validation data")


# ---- kernels and solvers ----------------------------------------------------------------------------------

K = torch.eye(5, dtype=torch.float64)
Y = torch.ones(5, 2, dtype=torch.float64)


@pytest.mark.parametrize(
    "call",
    [
        lambda: make_kernel(None, 1.0),
        lambda: make_kernel("laplace", "1"),
        lambda: make_kernel("laplace", None),
        lambda: make_kernel("laplace", True),
        lambda: make_kernel("matern", 1.0, nu="1.5"),
        lambda: make_kernel("exponential", 1.0, q=None),
        lambda: Metric.from_matrix(None),
        lambda: Metric.from_matrix(K.numpy()),
        lambda: Metric.from_matrix(K[:3]),
        lambda: Metric.from_matrix(K.long()),
        lambda: Metric.diagonal("a"),
        lambda: Metric.factored([1.0]),
        lambda: solve(None, Y),
        lambda: solve(K.numpy(), Y),
        lambda: solve(K, None),
        lambda: solve(K, Y.numpy()),
        lambda: solve(K, Y[:3]),
        lambda: solve(K, Y * NAN),
        lambda: solve(K * NAN, Y),
        lambda: solve(K.long(), Y),
        lambda: solve(K, Y, "a"),
        lambda: solve(K, Y, -1),
        lambda: solve(K, Y, NAN),
        lambda: solve(K, Y, method="lu"),
        lambda: solve(K, Y, memory="2G"),
        lambda: solve(K, Y, memory=0),
        lambda: solve(K, Y, tol=0),
        lambda: solve(K, Y, tol="a"),
        lambda: solve(K, Y, max_iterations=0),
        lambda: solve(K, Y, rank=-1),
        lambda: solve(K, Y, rank="a"),
        lambda: solve(K, Y, seed=None),
        lambda: solve(K, Y, start="a"),
    ],
)
def test_kernels_and_solvers(call):
    refused(call)


# ---- numbers of other libraries ---------------------------------------------------------------------------

NUMBERS = {
    nfa.RFM: {
        "rounds": numpy.int64(1), "ridge": numpy.float32(1e-2), "seed": numpy.int32(3),
        "bandwidth": torch.tensor(2.0), "power": numpy.array(1.0), "patience": numpy.int64(2),
        "refit": numpy.bool_(True), "kernel": numpy.str_("matern"), "nu": numpy.float64(1.5),
        "agop_samples": torch.tensor(7), "memory": numpy.float64(1e9), "solver": numpy.str_("cholesky"),
    },
    nfa.DeepRFM: {
        "depth": numpy.int64(2), "width": numpy.uint8(6), "ridge": torch.tensor(1e-2),
        "rounds": torch.tensor(1), "gamma": numpy.float16(0.5), "bias": numpy.bool_(False),
        "unit_norm": torch.tensor(True),
        "norm": numpy.int64(2), "seed": torch.tensor(3), "activation": numpy.str_("laplace"),
    },
    nfa.ConvRFM: {
        "patch_size": numpy.int64(2), "depth": torch.tensor(1), "rounds": numpy.int64(1),
        "ridge": numpy.linspace(0.1, 1, 3), "agop_images": numpy.int64(5), "power": numpy.float32(2.0),
        "stride": numpy.int8(1), "seed": numpy.int64(4),
    },
    nfa.DeepConvRFM: {
        "patch_size": numpy.int64(2), "depth": numpy.int64(2), "width": torch.tensor(4),
        "layers": numpy.int64(2), "rounds": numpy.int64(1), "ridge": torch.linspace(0.1, 1, 3),
        "pool": numpy.int64(1), "conv_stride": torch.tensor(1), "seed": numpy.int64(4),
    },
}  # fmt: skip


@pytest.mark.parametrize("machine", NUMBERS)
def test_numbers_of_numpy_and_tensors_are_plain_numbers(machine, tmp_path):
    def plain(value):
        return value.tolist() if hasattr(value, "tolist") else value

    points, given = POINTS[machine], NUMBERS[machine]
    made = [machine(**given), machine(**{name: plain(value) for name, value in given.items()})]
    for one in made:
        one.fit(points, CLASSES, points, CLASSES)
        one.save(tmp_path / "machine")
    expected = made[1].scores(points)
    assert torch.equal(made[0].scores(points), expected)
    assert torch.allclose(machine.load(tmp_path / "machine").scores(points), expected)


def test_options_of_a_kernel_of_ones_own(monkeypatch):
    @dataclass(frozen=True)
    class Rational(RadialKernel):
        beta: float = 1.0
        cusp = False

        def value(self, r):
            return (1 + (r / self.bandwidth) ** 2) ** -self.beta

        def slope(self, r):
            return (1 + (r / self.bandwidth) ** 2) ** (-self.beta - 1) * (-2 * self.beta / self.bandwidth**2)

    monkeypatch.setitem(KERNELS, "rational", Rational)
    for machine in (nfa.RFM, nfa.DeepRFM):
        made = machine(kernel="rational", beta=numpy.float32(0.5), ridge=0.1).fit(X, CLASSES)
        assert made.predict(X).shape == (12,)
        refused(lambda machine=machine: machine(kernel="rational", beat=0.5), "did you mean 'beta'")


def test_numbers_of_numpy_and_tensors_in_an_audit():
    net, report = Net(), nfa.audit(Net(), X)
    found = nfa.audit(
        net, X, power=numpy.float32(0.5), probes=numpy.int64(2), nulls=torch.tensor(3), seed=numpy.int64(1),
        max_samples=numpy.int64(9), drift=numpy.bool_(True), memory=torch.tensor(1e9), device="cpu",
    )  # fmt: skip
    expected = nfa.audit(net, X, None, 0.5, 2, 9, None, 3, 1, drift=True, memory=1e9)
    assert [row.cosine for row in found.rows] == pytest.approx([row.cosine for row in expected.rows])
    assert type(found.meta["power"]) is float
    assert type(found.meta["seed"]) is int
    assert report.pair("0").cosine(numpy.float64(0.5)) == report.pair("0").cosine(0.5)


def test_a_device_that_is_written_to_stays_one():
    before = os.stat("/dev/null").st_mode
    nfa.RFM(rounds=0).fit(X, CLASSES).save("/dev/null")
    assert os.stat("/dev/null").st_mode == before
