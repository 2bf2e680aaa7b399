import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nfa.errors import NfaError
from nfa.inputs import load_inputs

X = np.random.default_rng(0).normal(size=(6, 3, 4))
IDS = np.arange(24).reshape(6, 4)


def load(path, **options):
    return load_inputs(str(path), **options)


@pytest.fixture
def save(tmp_path):
    """Function that writes arrays to a .npz file and returns its path."""

    def npz(**arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        return tmp_path / "a.npz"

    return npz


def fails(path, message, **options):
    with pytest.raises(NfaError, match=message) as error:
        load(path, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x", "X", "inputs", "images", "input"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4"])
def test_one_array_is_the_only_argument(save, name, dtype):
    inputs = load(save(**{name: X.astype(dtype)}), batch_size=4)
    assert (inputs.description, inputs.samples, inputs.shape) == ("a.npz: 6 inputs", 6, (3, 4))
    batches = list(inputs)
    assert [len(b) for b in batches] == [4, 2]
    expected = torch.from_numpy(X.astype(dtype).astype(np.float32))[inputs.order]
    assert batches[0].dtype == torch.float32
    assert torch.equal(torch.cat(batches), expected)


@pytest.mark.parametrize("name", ["y", "labels", "targets"])
def test_labels_make_pairs_and_stratify(save, name):
    y = np.repeat([7, -100, 10**12], 2)  # labels may be anything
    inputs = load(save(x=X, **{name: y.astype(np.int64)}), max_samples=3)
    ((x, labels),) = inputs
    assert inputs.description == "a.npz: 3 of 6 inputs in 3 classes"
    assert sorted(labels.tolist()) == [-100, 7, 10**12]
    assert torch.equal(x, torch.from_numpy(X).float()[inputs.order])


def test_targets_of_other_kinds(save):
    assert next(iter(load(save(x=X, y=X[:, 0]))))[1].dtype == torch.float32
    assert next(iter(load(save(x=X, y=np.arange(6, dtype=np.uint8)))))[1].dtype == torch.int64
    assert next(iter(load(save(x=IDS, y=IDS))))[1].shape == (6, 4)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint16, np.uint64])
def test_integers_stay_whole(save, dtype):
    (x,) = load(save(x=IDS.astype(dtype)))
    assert x.dtype == torch.int64
    assert sorted(x.flatten().tolist()) == list(range(24))


def test_other_names_are_keyword_arguments(save):
    mask = np.ones((6, 4), np.uint8)
    path = save(attention_mask=mask, input_ids=IDS, flag=mask[:, 0] > 0, labels=np.arange(6) % 2)
    inputs = load(path, batch_size=2)
    batch = next(iter(inputs))
    assert inputs.description == "a.npz: 6 inputs (attention_mask, input_ids, flag) in 2 classes"
    assert inputs.shape == (4,)
    kinds = {name: (t.dtype, tuple(t.shape)) for name, t in batch.items()}
    assert kinds == {
        "input_ids": (torch.int64, (2, 4)),
        "attention_mask": (torch.int64, (2, 4)),
        "flag": (torch.bool, (2,)),
        "labels": (torch.int64, (2,)),
    }
    assert (batch["input_ids"][:, 0] // 4 == inputs.order[:2]).all()


def test_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    x = torch.randn(6, 3)
    save_file({"pixel_values": x.bfloat16(), "y": torch.arange(6)}, path)
    inputs = load(path)
    (batch,) = inputs
    assert torch.equal(batch["pixel_values"], x.bfloat16().float()[inputs.order])
    assert torch.equal(batch["labels"], inputs.order)
    save_file({"x": x.to(torch.float8_e4m3fn)}, path)
    assert next(iter(load(path))).dtype == torch.float32
    header = b'{"x": {"dtype": "C64", "shape": [6, 3], "data_offsets": [0, 144]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(144))
    fails(path, "expected real numbers, got torch.complex64|could not read it")  # before safetensors 0.7
    path.write_bytes(b"hello")
    fails(path, "expected a .safetensors file")


def test_infinities_have_their_place_in_masks(save):
    (batch,) = load(save(input_ids=IDS, bias=np.full((6, 4), -np.inf)))
    assert batch["bias"].isinf().all()


NAN = np.where(IDS == 23, np.nan, 1.0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no inputs in .*got none"),
        ({"y": IDS}, "no inputs in .*got y"),
        ({"x": X, "inputs": X}, r"ambiguous arrays in .* \(x, inputs\)"),
        ({"x": X, "attention_mask": IDS}, "ambiguous arrays"),
        ({"x": X, "y": IDS, "labels": IDS}, "ambiguous arrays"),
        ({"arr_0": X}, "no names .*np.savez"),
        ({"x": X, "y": IDS[:4]}, "as many samples in every array .* 6 of x, 4 of y"),
        ({"x": np.zeros((6, 8, 8, 3), np.uint8)}, "uint8 .*normalised"),
        ({"x": np.zeros((6, 64), np.uint8)}, "uint8"),
        ({"pixel_values": np.zeros((6, 3, 8, 8), np.uint8)}, "uint8"),
        ({"x": X * 1j}, "real numbers, got torch.complex128 for 'x'"),
        ({"x": np.array([[None]])}, "arrays of numbers .*Object arrays"),
        ({"x": np.array([["a"]])}, "expected numbers, got <U1 for 'x'"),
        ({"x": np.zeros((2, 2), "datetime64[s]")}, "expected numbers, got datetime64"),
        ({"x": NAN}, "'x' .*NaN"),
        ({"x": X, "y": NAN}, "'y' .*NaN"),
        ({"x": np.float32(1)}, r"first dimension of 'x' .* shape \(\)"),
        ({"x": X[:0]}, r"shape \(0, 3, 4\)"),
        ({"x": np.arange(6)}, r"two dimensions or more, got \(6,\)"),
    ],
)
def test_arrays_that_cannot_be_used(save, arrays, message):
    fails(save(**arrays), message)


def test_files_that_are_no_archives(tmp_path, save):
    path = save(x=X)
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(50) + content[150:])
    fails(path, "could not read")
    path.write_bytes(b"hello")
    fails(path, "expected a .npz archive")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "hello")
    fails(path, "expected numbers, got bytes for 'x'")


def test_arrays_have_no_split(save):
    fails(save(x=X), "not divided into train and test", split="test")


def test_text_is_cut_into_blocks(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("äbcdefghijk", encoding="utf-8")
    inputs = load(path, tokenize=lambda text: [ord(c) for c in text], tokens=3, batch_size=2)
    batches = list(inputs)
    assert (inputs.description, inputs.shape) == ("book.txt: 3 blocks of 3 tokens", (3,))
    assert [b["input_ids"].shape for b in batches] == [(2, 3), (1, 3)]
    ids = torch.cat([b["input_ids"] for b in batches])
    assert ids.dtype == torch.int64
    assert {"".join(map(chr, row)) for row in ids.tolist()} == {"äbc", "def", "ghi"}


def test_text_that_cannot_be_used(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xff\xfe\xfa")
    fails(path, "is text, which needs a network with a tokenizer")
    fails(path, "UTF-8 text", tokenize=list)
    path.write_text("short")
    fails(path, "at least 128 tokens, got 5", tokenize=lambda text: list(map(ord, text)))
