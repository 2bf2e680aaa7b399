"""Malformed data and arguments of an audit: one line and status 2, nothing written, never a traceback."""

import json
import os
import struct
import zipfile
from pathlib import Path

import numpy
import pytest
from PIL import Image

from nfa.command.cli import main
from tests.nfa.malformed import QUICK, RUNS, X, check, data, place, weights

__all__ = ["place"]
pytestmark = pytest.mark.filterwarnings("ignore")

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
    "no mapping": [], "no entry": {"x": 3},
    "unknown type": {"x": {"dtype": "F3", "shape": [2], "data_offsets": [0, 8]}},
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
    "user as data": ("malformed_net:build", "--data", "~no:user/x.npz"),
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


# ---- folders of images ------------------------------------------------------------------------------------


def photos():
    """Two classes of grey images."""
    for label in ("a", "b"):
        Path("photos", label).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (8, 8), 40 * i + 9).save(Path("photos", label, f"{i}.png"))
    return Path("photos")


def pipe(folder):
    os.mkfifo(folder / "a" / "pipe.png")


def loop(folder):
    (folder / "a" / "again").symlink_to(folder.absolute(), target_is_directory=True)


def odd_names(folder):
    for name in ("\x1b[2J.png", "new\nline.png", os.fsdecode(b"\xff.png"), "\u202egnp.png"):
        Image.new("L", (8, 8), 99).save(folder / "a" / name)


def dangling(folder):
    (folder / "a" / "nowhere.png").symlink_to("/nothing/at/all.png")


PASSING = {"pipe": pipe, "loop": loop, "odd names": odd_names, "dangling": dangling}
REFUSED = {
    "odd name of a damaged file": lambda folder: (folder / "a" / "\x1b[2J\n.png").write_bytes(b"no image"),
    "a folder named like an image": lambda folder: (
        (folder / "a.png").mkdir() or (folder / "x.png").write_bytes(b"")
    ),
    "deep": lambda folder: Image.new("I;16", (8, 8)).save(folder / "a" / "deep.png"),
    "colour": lambda folder: Image.new("RGB", (8, 8)).save(folder / "a" / "colour\u2028.png"),
}


@pytest.mark.parametrize("kind", PASSING)
def test_folders_with_oddities_that_do_no_harm(place, capsys, kind):
    PASSING[kind](photos())
    assert check(capsys, f"file:{RUNS / 'cnn'}", "--data", "photos", "--exact", "--nulls", "0") is None


@pytest.mark.parametrize("kind", REFUSED)
def test_folders_that_cannot_be_read(place, capsys, kind):
    REFUSED[kind](photos())
    every = ("--exact", "--nulls", "0", "--batch-size", "99")
    assert check(capsys, f"file:{RUNS / 'cnn'}", "--data", "photos", *every)
