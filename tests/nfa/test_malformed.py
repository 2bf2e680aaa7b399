"""Malformed checkpoints, weights, data and arguments: one line and status 2, nothing written, never a traceback.

Cases are generated under a seed. Where one passes, since nothing that matters was damaged, the table reads back.
"""

import io
import itertools
import json
import math
import random
import struct
import sys
import zipfile
from functools import cache
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import save, save_file
from torch import nn

from nfa.cli import main
from nfa.rows import read_csv

RUNS = Path(__file__).parents[1] / "fixtures" / "v0.1" / "runs"
QUICK = ("--exact", "--max-samples", "4", "--nulls", "2", "--pictures", "0")
X = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
"""

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "malformed_net.py").write_text(NET)
    save_file({"x": X}, tmp_path / "x.safetensors")
    save_file({"x": IMAGES}, tmp_path / "images.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("malformed_net", None)


def check(capsys, *arguments):
    """Run an audit; it is refused in one line and leaves nothing, or it ends with a table. Returns the line."""
    try:
        status = main(["audit", *arguments, "--out", "out"])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    if status == 0:
        rows = read_csv("out/audit.csv")
        assert rows
        assert all(row.skipped or math.isfinite(row.cosine) or row.verdict == "undefined" for row in rows)
        return None
    errors = [line for line in error.splitlines() if line.startswith("error: ")]
    assert status == 2
    assert len(errors) == 1, error
    assert len(errors[0]) < 2200
    assert error.splitlines()[-1] == errors[0]
    assert errors[0].isprintable()
    assert not Path("out").exists()
    return errors[0]


def weights(path):
    return ("malformed_net:build", "--weights", str(path), "--data", "x.safetensors", *QUICK)


def checkpoint(path):
    return (f"file:{path}", "--data", "images.safetensors", *QUICK)


def data(path, *options):
    return ("malformed_net:build", "--data", str(path), *QUICK, *options)


# ---- wrong values in a checkpoint -------------------------------------------------------------------------

WRONG = {
    "nothing": None, "text": "text", "empty text": "", "long text": "a" * 5000, "escapes": "\x1b[2J\n\u202e",
    "true": True, "minus one": -1, "zero": 0, "huge": 10**30, "fraction": 0.5, "nan": math.nan, "inf": math.inf,
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
    found = [p for p in places({k: known[k] for k in READ})]
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
    "nan": lambda t: t * math.nan, "inf": lambda t: t + math.inf, "zeros": lambda t: t * 0, "tiny": lambda t: t * 1e-38,
    "vast": lambda t: t * 1e30, "empty": lambda t: t[:0], "scalar": lambda t: torch.tensor(1.0),
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
        "renamed": "0.weights", "unicode": "größe→½", "escapes": "\x1b[2J\r\n0.weight", "not text": 5, "empty name": "",
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


# ---- data -------------------------------------------------------------------------------------------------

x = X.numpy()
ARRAYS = {
    "text": {"x": numpy.array(["a", "b"])},
    "bytes": {"x": numpy.array([b"a", b"b"])},
    "objects": {"x": numpy.array([None, 3], dtype=object)},
    "dates": {"x": numpy.array(["2020-01-01"], dtype="datetime64[D]")},
    "records": {"x": numpy.zeros(3, dtype=[("a", "f4")])},
    "complex": {"x": x.astype("complex64")},
    "truths": {"x": x > 0.5},
    "bytes as numbers": {"x": (x * 255).astype("uint8")},
    "signed": {"x": (x * 100).astype("int8")},
    "unsigned": {"x": (x * 100).astype("uint64")},
    "half": {"x": x.astype("float16")},
    "long double": {"x": x.astype("longdouble")},
    "big endian": {"x": x.astype(">f4")},
    "number": {"x": numpy.float32(1)},
    "vector": {"x": x[:, 0]},
    "empty": {"x": x[:0]},
    "no length": {"x": x[:, :0]},
    "one sample": {"x": x[:1]},
    "constant": {"x": x * 0},
    "repeated": {"x": numpy.repeat(x[:1], 6, 0)},
    "nan": {"x": x * numpy.nan},
    "inf": {"x": x + numpy.inf},
    "vast": {"x": x * 1e38},
    "four dimensions": {"x": x.reshape(6, 2, 2, 2)},
    "no name": {"arr_0": x},
    "two": {"x": x, "inputs": x},
    "lengths": {"x": x, "y": numpy.zeros(5)},
    "targets of text": {"x": x, "y": numpy.array(["a"] * 6)},
    "targets alone": {"y": numpy.arange(6)},
    "unknown arguments": {"größe": x},
    "argument that is no name": {"a b\n": x},
    "long name": {"a" * 3000: x},
    "none": {},
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_no_network_takes(place, capsys, kind):
    numpy.savez("bad.npz", **ARRAYS[kind])
    said = check(capsys, *data("bad.npz"))
    if kind in ("half", "long double", "big endian", "one sample", "repeated"):
        assert said is None, said
    if kind in ("text", "objects", "complex", "number", "empty", "nan", "none", "no name", "two", "lengths"):
        assert said


def test_arrays_beside_other_files(place, capsys):
    with zipfile.ZipFile("bad.npz", "w") as packed:
        packed.writestr("../x.npy", b"\x93NUMPY")
        packed.writestr("readme.txt", "hello")
    assert check(capsys, *data("bad.npz"))
    Path("bad.npy").write_bytes(b"")
    numpy.save("x.npy", x)
    assert "expected" in check(capsys, *data("x.npy"))
    assert check(capsys, *data("bad.npy"))


HEADERS = {
    "no mapping": [], "no entry": {"x": 3}, "unknown type": {"x": {"dtype": "F3", "shape": [2], "data_offsets": [0, 8]}},
    "negative": {"x": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
    "overlapping": {n: {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]} for n in ("x", "y")},
    "turned round": {"x": {"dtype": "F32", "shape": [2, 1], "data_offsets": [8, 0]}},
    "text": {"x": {"dtype": "F32", "shape": "two", "data_offsets": [0, 8]}},
    "float8": {"x": {"dtype": "F8_E4M3", "shape": [2, 4], "data_offsets": [0, 8]}},
    "metadata": {"__metadata__": 5, "x": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}},
    "escapes": {"\x1b[2J\n": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}},
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_of_safetensors(place, capsys, kind):
    text = json.dumps(HEADERS[kind]).encode()
    Path("bad.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    assert check(capsys, *data("bad.safetensors"))
    assert check(capsys, *weights("bad.safetensors"))


TEXTS = {"empty": b"", "no UTF-8": b"\xff\xfe\x00", "zeros": bytes(100), "words": b"a few words"}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts(place, capsys, kind):
    Path("bad.txt").write_bytes(TEXTS[kind])
    assert check(capsys, *data("bad.txt"))


@pytest.mark.parametrize("name", ["w.pth", "w.ckpt", "w.safetensors", "w.bin", "w"])
@pytest.mark.parametrize(
    "what", [b"", b"\x00", b"hello", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x80\x05N.", b"<html>", bytes(4096)]
)
def test_files_that_are_something_else(place, capsys, name, what):
    Path(name).write_bytes(what)
    assert check(capsys, *weights(name))
    assert check(capsys, f"file:{name}", "--data", "images.safetensors")


# ---- arguments --------------------------------------------------------------------------------------------

NETWORK = ("malformed_net:build", "--data", "x.safetensors")
ARGUMENTS = {
    "no network": ("", "--data", "x.safetensors"),
    "colon": (":", "--data", "x.safetensors"),
    "no module": (":build", "--data", "x.safetensors"),
    "no function": ("malformed_net:", "--data", "x.safetensors"),
    "dots": ("..:..", "--data", "x.safetensors"),
    "dots in a module": ("a..b:c", "--data", "x.safetensors"),
    "relative module": (".malformed_net:build", "--data", "x.safetensors"),
    "dunder": ("malformed_net:__name__", "--data", "x.safetensors"),
    "zero in a module": ("malformed\x00net:build", "--data", "x.safetensors"),
    "escapes in a module": ("\x1b[2J:build", "--data", "x.safetensors"),
    "surrogate in a module": ("a\udc80:build", "--data", "x.safetensors"),
    "long module": ("a" * 5000 + ":build", "--data", "x.safetensors"),
    "zero in a file": ("file:a\x00b", "--data", "x.safetensors"),
    "long file": ("file:" + "a" * 5000, "--data", "x.safetensors"),
    "surrogate in a file": ("file:a\udc80", "--data", "x.safetensors"),
    "a file that is a folder": ("file:.", "--data", "x.safetensors"),
    "a file of the system": ("file:/dev/null", "--data", "x.safetensors"),
    "unknown zoo": ("zoo:net", "--data", "x.safetensors"),
    "zero in a name": ("torchvision:res\x00net", "--data", "x.safetensors"),
    "odd weights": ("torchvision:resnet18@\x1b", "--data", "x.safetensors"),
    "empty name of the hub": ("hf:@none", "--data", "x.safetensors"),
    "no such data": ("malformed_net:build", "--data", "nothing"),
    "no data": ("malformed_net:build", "--data", ""),
    "zero in data": ("malformed_net:build", "--data", "a\x00b"),
    "surrogate in data": ("malformed_net:build", "--data", "a\udc80.npz"),
    "long data": ("malformed_net:build", "--data", "a" * 5000),
    "folder as data": ("malformed_net:build", "--data", "."),
    "system as data": ("malformed_net:build", "--data", "/dev/null"),
    "user as data": ("malformed_net:build", "--data", "~nobody-of-that-name/x.npz"),
    "zero in weights": (*NETWORK, "--weights", "a\x00b"),
    "long weights": (*NETWORK, "--weights", "a" * 5000),
    "weights of the system": (*NETWORK, "--weights", "/dev/zero"),
    "folder as weights": (*NETWORK, "--weights", "."),
    "power nan": (*NETWORK, "--power", "nan"),
    "power text": (*NETWORK, "--power", "half"),
    "tolerance": (*NETWORK, "--tolerance", "1"),
    "neglect": (*NETWORK, "--neglect", "1"),
    "nulls": (*NETWORK, "--nulls", "-1"),
    "seed": (*NETWORK, "--seed", "-1"),
    "samples": (*NETWORK, "--max-samples", "0"),
    "fraction of samples": (*NETWORK, "--max-samples", "1.5"),
    "batch": (*NETWORK, "--batch-size", "0"),
    "memory": (*NETWORK, "--memory", "-1GB"),
    "little memory": (*NETWORK, "--memory", "0.000001GB"),
    "device": (*NETWORK, "--device", "cuda:99"),
    "meta": (*NETWORK, "--device", "meta"),
    "odd device": (*NETWORK, "--device", "\x1b"),
    "empty device": (*NETWORK, "--device", "cpu:x"),
    "size of ready inputs": (*NETWORK, "--size", "8"),
    "size": (f"file:{RUNS / 'cnn'}", "--data", "digits", "--size", "-1"),
    "small size": (f"file:{RUNS / 'mlp'}", "--data", "digits", "--size", "1"),
    "mean": (f"file:{RUNS / 'cnn'}", "--data", "digits", "--mean", "a,b"),
    "mean of two": (f"file:{RUNS / 'cnn'}", "--data", "digits", "--mean", "0,0"),
    "std of zero": (f"file:{RUNS / 'cnn'}", "--data", "digits", "--std", "0"),
    "std nan": (f"file:{RUNS / 'cnn'}", "--data", "digits", "--std", "nan"),
    "layers": (*NETWORK, "--layers", "nothing"),
    "open pattern": (*NETWORK, "--layers", "[a"),
    "escapes in layers": (*NETWORK, "--layers", "\x1b[2J"),
    "split": (*NETWORK, "--split", "test"),
    "unknown split": (*NETWORK, "--split", "val"),
    "output": (*NETWORK, "--output", "loss"),
    "index": (*NETWORK, "--output-index", "9"),
    "key": (*NETWORK, "--output-key", "\x1b"),
    "unknown option": (*NETWORK, "--colour"),
    "option without value": (*NETWORK, "--power"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_arguments(place, capsys, kind):
    assert check(capsys, *ARGUMENTS[kind])


@pytest.mark.parametrize(
    "out", ["x.safetensors", "x.safetensors/inside", "/proc/nothing", "a\x00b", "a" * 5000]
)
def test_folders_that_cannot_be(place, capsys, out):
    with pytest.raises(SystemExit) as status:
        main(["audit", *NETWORK, *QUICK, "--out", out])
    assert status.value.code == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: cannot write to --out")
