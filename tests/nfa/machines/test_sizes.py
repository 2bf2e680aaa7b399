"""Sizes that files and options claim meet the memory before anything is allocated."""

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch import nn

from nfa import NfaError, device
from nfa.command.cli import main
from nfa.device import size_words
from nfa.inputs import load_inputs
from nfa.inputs.preprocessing import Preprocessing
from nfa.zoo.weights import load_weights, read_file

MILLION = 10**6


@pytest.fixture
def little(monkeypatch):
    """A machine with 20 MB."""
    monkeypatch.setattr(device, "free_memory", lambda device: 2e7)


def header(shape, kind="<f4"):
    """The head of a .npy file of so many numbers, without any."""
    buffer = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def npz(path, content, *, packed=False):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.writestr("x.npy", content)


def refused(data, *words, **options):
    with pytest.raises(NfaError) as error:
        for _ in load_inputs(str(data), **options):
            pass
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value), str(error.value)


@pytest.mark.parametrize("shape", [(8, MILLION, MILLION), (10**30, 4), (2**62, 2**62), (2**63 // 4, 1)])
def test_an_npz_whose_header_claims_more_than_the_file_holds(tmp_path, shape):
    npz(tmp_path / "x.npz", header(shape))
    refused(tmp_path / "x.npz", "cut off: its header tells of", "the file holds 0")


def test_an_npz_with_negative_lengths(tmp_path):
    npz(tmp_path / "x.npz", header((-1, -4)))
    refused(tmp_path / "x.npz", "got shape (-1, -4)")


def test_an_npz_that_unpacks_to_more_than_memory_holds(tmp_path, little):
    npz(tmp_path / "x.npz", header((100, 100_000)) + bytes(40 * MILLION), packed=True)
    assert (tmp_path / "x.npz").stat().st_size < MILLION
    refused(tmp_path / "x.npz", "takes about 40 MB of memory, 20 MB are free")


def test_integers_take_more_in_memory_than_in_the_file(tmp_path, little):
    numpy.savez(tmp_path / "x.npz", input_ids=numpy.zeros((4, MILLION), dtype="int16"))
    refused(tmp_path / "x.npz", "takes about 40 MB of memory")


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.mkdir, (tmp_path / "broken-in",))

    numpy.savez(tmp_path / "x.npz", x=numpy.array([Evil()], dtype=object))
    refused(tmp_path / "x.npz", "run code when they are read")
    assert not (tmp_path / "broken-in").exists()


def test_a_safetensors_of_inputs_larger_than_memory(tmp_path, little):
    with (tmp_path / "x.safetensors").open("wb") as handle:
        text = json.dumps({"x": {"dtype": "F32", "shape": [10, MILLION], "data_offsets": [0, 40 * MILLION]}})
        handle.write(struct.pack("<Q", len(text)) + text.encode())
        handle.truncate(8 + len(text) + 40 * MILLION)  # a hole
    refused(tmp_path / "x.safetensors", "takes about 40 MB of memory")


def test_a_safetensors_that_claims_more_than_it_holds(tmp_path):
    text = json.dumps({"x": {"dtype": "F32", "shape": [MILLION, MILLION], "data_offsets": [0, 4 * 10**12]}})
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text.encode())
    refused(tmp_path / "x.safetensors", "could not read it")
    (tmp_path / "y.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    refused(tmp_path / "y.safetensors", "could not read it")


def test_a_text_larger_than_memory(tmp_path, little):
    (tmp_path / "x.txt").write_text("word " * 500_000)
    refused(tmp_path / "x.txt", "takes about 50 MB of memory", tokenize=lambda text: [0])


@pytest.mark.parametrize("size", [MILLION, 10**30])
def test_a_resize_to_millions(size):
    known = Preprocessing(size=(size, size))
    refused("digits", "a batch of 32 images of", "of memory", "pass a smaller --size", preprocessing=known)


def test_a_resize_before_the_cut_to_millions(tmp_path):
    known = Preprocessing(size=(8, 8), resize=10 * MILLION, channels=1)
    refused("digits", "10000000x10000000 once resized", "--resize", preprocessing=known)
    Image.new("RGB", (20_000, 1)).save(tmp_path / "line.png")  # its longer side grows with the shorter one
    refused(tmp_path, "once resized", preprocessing=Preprocessing(size=(8, 8), resize=20_000))


def test_pictures_that_unpack_to_more_than_memory_holds(tmp_path, little):
    Image.new("L", (3000, 3000)).save(tmp_path / "flat.png")
    assert (tmp_path / "flat.png").stat().st_size < 100_000
    refused(tmp_path, "3000x3000", "of memory", preprocessing=Preprocessing(size=(8, 8), channels=1))


def test_a_picture_that_claims_to_be_huge(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "small.bmp")
    content = bytearray((tmp_path / "small.bmp").read_bytes())
    content[18:26] = struct.pack("<ii", 100_000, 100_000)
    (tmp_path / "small.bmp").write_bytes(content)
    refused(tmp_path, "small.bmp", preprocessing=Preprocessing(size=(8, 8), channels=1))


# ---- weights ----------------------------------------------------------------------------------------------


def test_weights_larger_than_memory(tmp_path, little):
    with (tmp_path / "w.pth").open("wb") as handle:
        handle.write(b"PK\x03\x04")
        handle.truncate(30 * MILLION)
    with pytest.raises(NfaError, match="takes about 30 MB of memory"):
        read_file(tmp_path / "w.pth")


def test_compressed_weights_are_not_unpacked(tmp_path):
    torch.save({"weight": torch.zeros(MILLION)}, tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as whole,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(NfaError, match="its entries are compressed"):
        read_file(tmp_path / "packed.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_that_claim_more_than_their_storage(tmp_path, zipped):
    """A view of one number as a square of millions is read by torch; a copy of it would take terabytes."""
    wide = torch.ones(1).expand(MILLION, MILLION)
    torch.save(
        {"weight": wide, "bias": torch.zeros(4)}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(NfaError, match=r"takes about 4\.0 TB of memory"):
        load_weights(nn.Linear(4, 4), tmp_path / "w.pth")


def test_storage_beyond_the_file(tmp_path):
    torch.save({"weight": torch.zeros(4096, 16)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(NfaError, match="cut off or damaged"):
        read_file(tmp_path / "w.pth")


# ---- options ----------------------------------------------------------------------------------------------

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
"""
HUGE = str(10**30)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--probes", HUGE), "a whole number from 1 to 1000000"),
        (("--nulls", HUGE), "a whole number from 0 to 1000000"),
        (("--seed", HUGE), "a whole number from 0 to 2**32 - 1"),
        (("--max-samples", HUGE), None),
        (("--batch-size", HUGE), None),
        (("--pictures", HUGE), None),
        (("--tokens", HUGE), None),
        (("--memory", "1e290GB"), None),
    ],
)
def test_huge_numbers_on_the_command_line(tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("sized_net.py").write_text(NET)
    numpy.savez("x.npz", x=numpy.random.default_rng(0).normal(size=(16, 6)))
    arguments = ["audit", "sized_net:build", "--data", "x.npz", "--out", "out", *options]
    if words is None:
        assert main(arguments) == 0
        return
    with pytest.raises(SystemExit):
        main(arguments)
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_sizes_in_words():
    words = [size_words(n) for n in (5, 2e7, 1.26e9, 4e12, 3e15, 10**400)]
    assert words == ["1 kB", "20 MB", "1.3 GB", "4.0 TB", "3.0 PB", "1000000000.0 PB"]
