"""Malformed checkpoints and weights: one line and status 2, nothing written, never a traceback.

Cases are generated under a seed. Where one passes, since nothing that matters was damaged, a table is there.
"""

import io
import itertools
import math
import random
import sys
from functools import cache
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from tests.nfa.malformed import IMAGES, QUICK, RUNS, X, check, checkpoint, data, place, weights

__all__ = ["place"]
pytestmark = pytest.mark.filterwarnings("ignore")


# ---- wrong values in a checkpoint -------------------------------------------------------------------------

WRONG = {
    "nothing": None, "text": "text", "empty text": "", "long text": "a" * 5000, "escapes": "\x1b[2J\n\u202e",
    "true": True, "minus one": -1, "zero": 0, "huge": 10**30, "fraction": 0.5, "nan": math.nan,
    "inf": math.inf,
    "list": [], "list of text": ["a", "b"], "nested": [[[1]]], "mapping": {}, "mapping of a number": {1: 2},
    "bytes": b"bytes", "tuple": (1, 2), "scalar": torch.tensor(1.0), "vector": torch.zeros(3),
    "complex": 1j, "set": {1}, "target": {"_target_": "os.system"},
}  # fmt: skip


@cache
def original(model):
    return (RUNS / model / "checkpoints" / "last.ckpt").read_bytes()


def content(model):
    return torch.load(io.BytesIO(original(model)), weights_only=True, map_location="cpu")


def places(value, limit=2, place=()):
    """Paths of all entries of nested mappings, and of the first few of lists."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    )
    for key, entry in entries:
        yield (*place, key)
        yield from places(entry, limit, (*place, key))


READ = ("hyper_parameters", "inputs", "state_dict")


def wrong_places(model):
    """What an audit reads of a checkpoint."""
    known = content(model)
    found = list(places({k: known[k] for k in READ}))
    for part in ("initial_rows", "initial_weights"):
        found += [("callbacks", "AnsatzMonitor", part)]
        found += [
            ("callbacks", "AnsatzMonitor", part, *p)
            for p in places(known["callbacks"]["AnsatzMonitor"][part])
        ]
    return [("callbacks",), ("callbacks", "AnsatzMonitor"), ("loops",), *found]


def with_value(known, place, value):
    """The same with another value at a place."""
    *parents, last = place
    inner = known
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return known


def without(known, place):
    *parents, last = place
    inner = known
    for key in parents:
        inner = inner[key]
    del inner[last]
    return known


def cases(model, count):
    everything = list(itertools.product(wrong_places(model), [*WRONG, "left out"]))
    return random.Random(f"{model}").sample(everything, min(count, len(everything)))


def check_wrong_value(capsys, model, place, kind):
    known = content(model)
    known = without(known, place) if kind == "left out" else with_value(known, place, WRONG[kind])
    torch.save(known, "bad.ckpt")
    check(capsys, *checkpoint("bad.ckpt"))


def named(case):
    return f"{'.'.join(map(str, case[0]))}: {case[1]}"


@pytest.mark.parametrize("case", cases("mlp", 40), ids=named)
def test_wrong_values_in_a_checkpoint(place, capsys, case):
    check_wrong_value(capsys, "mlp", *case)


@pytest.mark.long
@pytest.mark.parametrize("model", ["mlp", "cnn", "rfm", "deep_conv_rfm"])
def test_many_wrong_values_in_a_checkpoint(place, capsys, model):
    failures = []
    for case in cases(model, 120):
        try:
            check_wrong_value(capsys, model, *case)
        except BaseException as error:
            failures.append(f"{named(case)}: {type(error).__name__}: {str(error).splitlines()[:1]}")
        for path in Path("out").glob("*"):
            path.unlink()
        if Path("out").exists():
            Path("out").rmdir()
    assert failures == []


CHECKPOINTS = {
    "a number": lambda: 3,
    "nothing": lambda: None,
    "a list": lambda: [torch.zeros(3)],
    "a tensor": lambda: torch.zeros(3),
    "empty": dict,
    "no state": lambda: {k: v for k, v in content("mlp").items() if k != "state_dict"},
    "nested": lambda: nested({"state_dict": {}}, 1000, lambda v: {"state_dict": v}),
    "lists in lists": lambda: {
        "hyper_parameters": {"net": {"_target_": "torch.nn.Linear", "a": nested(1, 5000, lambda v: [v])}}
    },
    "target of itself": lambda: itself(),
    "long name": lambda: {"state_dict": {"a" * 10**6: torch.zeros(3)}},
    "other names": lambda: {"state_dict": {"größe\x1b\n\udc80.weight": torch.zeros(3), 5: torch.zeros(2)}},
}


def nested(value, depth, wrap):
    for _ in range(depth):
        value = wrap(value)
    return value


def itself():
    known = content("mlp")
    known["hyper_parameters"]["net"]["again"] = known["hyper_parameters"]["net"]
    return known


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints_of_another_kind(place, capsys, kind):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)  # of pickle alone, which is written here
    try:
        torch.save(CHECKPOINTS[kind](), "bad.ckpt")
    finally:
        sys.setrecursionlimit(limit)
    assert check(capsys, *checkpoint("bad.ckpt"))
    assert check(capsys, *weights("bad.ckpt"))


# ---- wrong weights ----------------------------------------------------------------------------------------


def state():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)
    )
    return net.state_dict()


TENSORS = {
    "nan": lambda t: t * math.nan, "inf": lambda t: t + math.inf, "zeros": lambda t: t * 0,
    "tiny": lambda t: t * 1e-38, "vast": lambda t: t * 1e30, "empty": lambda t: t[:0],
    "scalar": lambda t: torch.tensor(1.0),
    "transposed": lambda t: t.mT if t.dim() > 1 else t[None], "longer": lambda t: torch.cat([t, t]),
    "complex": lambda t: t.to(torch.complex64), "bool": lambda t: t > 0, "int8": lambda t: t.to(torch.int8),
    "long": lambda t: t.long(), "half": lambda t: t.half(), "double": lambda t: t.double(),
    "bfloat16": lambda t: t.bfloat16(), "float8": lambda t: t.to(torch.float8_e4m3fn),
    "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "sparse": lambda t: t.to_sparse(), "csr": lambda t: t.to_sparse_csr() if t.dim() == 2 else t.to_sparse(),
    "expanded": lambda t: t.flatten()[:1].expand(t.shape), "meta": lambda t: t.to("meta"),
    "parameter": nn.Parameter, "number": lambda t: 3.0, "nothing": lambda t: None, "text": lambda t: "text",
    "list": lambda t: t.tolist(),
    "nested tensor": lambda t: torch.nested.nested_tensor([t, t]),
}  # fmt: skip


@pytest.mark.parametrize("name", ["0.weight", "1.running_var", "5.bias"])
@pytest.mark.parametrize("kind", TENSORS)
def test_wrong_tensors_in_weights(place, capsys, kind, name):
    known = state()
    torch.save({**known, name: TENSORS[kind](known[name])}, "bad.pth")
    said = check(capsys, *weights("bad.pth"))
    if kind in ("double", "half", "bfloat16", "parameter", "expanded"):
        assert said is None


@pytest.mark.parametrize(
    "kind", ["left out", "one more", "renamed", "unicode", "escapes", "not text", "empty name"]
)
def test_wrong_names_in_weights(place, capsys, kind):
    known = state()
    tensor = known.pop("0.weight")
    names = {
        "renamed": "0.weights", "unicode": "größe→½", "escapes": "\x1b[2J\r\n0.weight", "not text": 5,
        "empty name": "",
    }  # fmt: skip
    if kind == "one more":
        known |= {"0.weight": tensor, "9.weight": tensor}
    elif kind != "left out":
        known[names[kind]] = tensor
    torch.save(known, "bad.pth")
    assert check(capsys, *weights("bad.pth"))


# ---- damaged bytes ----------------------------------------------------------------------------------------


def archive():
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    return buffer.getvalue()


def legacy():
    buffer = io.BytesIO()
    torch.save(state(), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def packed(**arrays):
    buffer = io.BytesIO()
    numpy.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def stored():
    buffer = io.BytesIO()
    numpy.savez(buffer, x=X.numpy(), y=numpy.arange(6) % 3)
    return buffer.getvalue()


def picture(kind):
    buffer = io.BytesIO()
    Image.fromarray((IMAGES[0, 0] * 255).byte().numpy()).save(buffer, kind)
    return buffer.getvalue()


FILES = {
    "w.pth": archive,
    "legacy.pth": legacy,
    "w.safetensors": lambda: save(state()),
    "run.ckpt": lambda: original("mlp"),
    "x.npz": stored,
    "packed.npz": lambda: packed(x=X.numpy()),
    "data.safetensors": lambda: save({"x": X, "y": torch.arange(6)}),
    "a.png": lambda: picture("png"),
    "a.jpg": lambda: picture("jpeg"),
    "a.bmp": lambda: picture("bmp"),
    "a.tif": lambda: picture("tiff"),
    "a.webp": lambda: picture("webp"),
}


def damaged(content, rng):
    """One way to damage a file, its name and the bytes."""
    size = len(content)
    at = rng.choice(
        (rng.randrange(size), rng.randrange(min(size, 200)), max(size - 1 - rng.randrange(min(size, 300)), 0))
    )
    kind = rng.choice(("cut", "flip", "zeros", "insert", "repeat", "front"))
    changed = bytearray(content)
    if kind == "cut":
        changed = changed[:at]
    elif kind == "flip":
        changed[at] ^= 1 << rng.randrange(8)
    elif kind == "zeros":
        changed[at : at + 40] = bytes(len(changed[at : at + 40]))
    elif kind == "insert":
        changed[at:at] = rng.randbytes(7)
    elif kind == "repeat":
        changed += changed[at:]
    else:
        changed = changed[at:]
    return f"{kind} at {at}", bytes(changed)


def check_damaged(capsys, name, seed):
    content = FILES[name]()
    what, changed = damaged(content, random.Random(f"{name} {seed}"))
    path = Path(name)
    if path.suffix in (".png", ".jpg", ".bmp", ".tif", ".webp"):
        Path("photos").mkdir(exist_ok=True)
        path = Path("photos") / name
        path.write_bytes(changed)
        check(capsys, f"file:{RUNS / 'cnn'}", "--data", "photos", *QUICK)
        return what
    path.write_bytes(changed)
    if name == "run.ckpt":
        check(capsys, *checkpoint(path))
    elif name in ("w.pth", "legacy.pth", "w.safetensors"):
        check(capsys, *weights(path))
    else:
        check(capsys, *data(path))
    return what


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", FILES)
def test_damaged_files(place, capsys, name, seed):
    check_damaged(capsys, name, seed)


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_many_damaged_files(place, capsys, name):
    for seed in range(4, 40):
        check_damaged(capsys, name, seed)
        for path in Path("out").glob("*"):
            path.unlink()
        if Path("out").exists():
            Path("out").rmdir()
