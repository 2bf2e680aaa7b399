"""Each set is read by torchvision from files in its real format, made here; checksums are switched off."""

import gzip
import os
import pickle
import socket
import struct
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from datamodules import TorchvisionSet
from datamodules import torchvision_sets as sets
from nfa.errors import NfaError

N = {"train": 40, "test": 20}


def pixels(split, *shape):
    rng = np.random.default_rng(len(split))
    return rng.integers(0, 256, (N[split], *shape), dtype=np.uint8)


def targets(split, num_classes=10):
    return np.arange(N[split], dtype=np.uint8) % num_classes


def make_mnist(root, name="MNIST"):
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        x, y = pixels(split, 28, 28), targets(split)
        header = struct.pack(">4i", 0x0803, *x.shape)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + x.tobytes())
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x0801, len(y)) + y.tobytes())
    return {split: pixels(split, 1, 28, 28) for split in N}


def make_cifar(root, folder, files, label_key, meta, names):
    (root / folder).mkdir(parents=True)

    def dump(name, content):
        (root / folder / name).write_bytes(pickle.dumps(content))

    for split, parts in files.items():
        x, y = pixels(split, 3, 32, 32).reshape(N[split], -1), targets(split).tolist()
        size = N[split] // len(parts)
        for i, part in enumerate(parts):
            cut = slice(i * size, (i + 1) * size)
            dump(part, {"data": x[cut], label_key: y[cut]})
    dump(meta, {names: [f"class {i}" for i in range(10)]})
    return {split: pixels(split, 3, 32, 32) for split in N}


def make_cifar10(root):
    files = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    return make_cifar(root, "cifar-10-batches-py", files, "labels", "batches.meta", "label_names")


def make_cifar100(root):
    files = {"train": ["train"], "test": ["test"]}
    return make_cifar(root, "cifar-100-python", files, "fine_labels", "meta", "fine_label_names")


def make_svhn(root):
    root.mkdir(exist_ok=True)
    for split in N:
        x, y = pixels(split, 3, 32, 32), targets(split)
        y = np.where(y == 0, 10, y)[:, None]  # SVHN calls the digit 0 class 10
        savemat(root / f"{split}_32x32.mat", {"X": x.transpose(2, 3, 1, 0), "y": y})
    return {split: pixels(split, 3, 32, 32) for split in N}


def make_stl10(root):
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for split in N:
        pixels(split, 3, 96, 96).transpose(0, 1, 3, 2).tofile(folder / f"{split}_X.bin")
        (targets(split) + 1).tofile(folder / f"{split}_y.bin")
    (folder / "unlabeled_X.bin").write_bytes(b"")
    (folder / "class_names.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    return {split: pixels(split, 3, 96, 96) for split in N}


def make_gtsrb(root):
    base = root / "gtsrb"
    for split, folder in (("train", "Training"), ("test", "Final_Test/Images")):
        for i, (x, y) in enumerate(zip(pixels(split, 32, 32, 3), targets(split), strict=True)):
            sub = f"{y:05d}" if split == "train" else ""
            path = base / "GTSRB" / folder / sub / f"{i:05d}.ppm"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x).save(path)
    rows = [f"{i:05d}.ppm;32;32;0;0;0;0;{y}" for i, y in enumerate(targets("test"))]
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    (base / "GT-final_test.csv").write_text("\n".join([header, *rows]))
    order = np.argsort(targets("train"), kind="stable")  # torchvision lists them folder by folder
    return {
        "train": pixels("train", 32, 32, 3).transpose(0, 3, 1, 2)[order],
        "test": pixels("test", 32, 32, 3).transpose(0, 3, 1, 2),
    }


MAKERS = {
    "MNIST": make_mnist,
    "FashionMNIST": lambda root: make_mnist(root, "FashionMNIST"),
    "CIFAR10": make_cifar10,
    "CIFAR100": make_cifar100,
    "SVHN": make_svhn,
    "STL10": make_stl10,
    "GTSRB": make_gtsrb,
}
SHAPES = {"MNIST": (1, 28, 28), "FashionMNIST": (1, 28, 28), "STL10": (3, 96, 96)}


@pytest.fixture(autouse=True)
def no_checksums(monkeypatch):
    for module in ("cifar", "svhn", "stl10", "utils"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: os.path.isfile(path)
        )


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    attempts = []

    def refuse(request, *args, **kwargs):
        attempts.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return attempts


def load(name, root, **options):
    data = TorchvisionSet(name, root, **{"val_fraction": 0, **options})
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize("name", sets.SOURCES)
def test_every_set_is_read_as_uint8_images(name, tmp_path, no_network):
    expected = MAKERS[name](tmp_path)
    data = load(name, tmp_path)
    test = data.test_dataloader()
    assert data.input_shape == SHAPES.get(name, (3, 32, 32))
    assert test.x.dtype == torch.uint8
    assert torch.equal(test.x, torch.from_numpy(expected["test"].copy()))
    assert test.y.tolist() == targets("test").tolist()
    assert data.summary()["n_train"] == 40
    assert data.num_outputs == len(data.class_names) == 10
    assert no_network == []  # what is there is not fetched


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "GTSRB"])
def test_training_images_keep_their_labels(name, tmp_path):
    expected = MAKERS[name](tmp_path)["train"]
    labels = np.sort(targets("train"), kind="stable") if name == "GTSRB" else targets("train")
    batches = load(name, tmp_path).train_dataloader()
    pairs = {(x.numpy().tobytes(), int(y)) for x, y in zip(batches.x, batches.y, strict=True)}
    assert pairs == {(x.tobytes(), int(y)) for x, y in zip(expected, labels, strict=True)}


@pytest.mark.parametrize("name", ["MNIST", "GTSRB"])
def test_size_resizes(name, tmp_path):
    MAKERS[name](tmp_path)
    data = load(name, tmp_path, size=16, n_train=20, n_test=10)
    assert data.input_shape[1:] == (16, 16)
    assert (data.summary()["n_train"], data.summary()["n_test"]) == (20, 10)


def test_few_samples_keep_the_number_of_classes(tmp_path):
    make_svhn(tmp_path)
    data = load("SVHN", tmp_path, n_train=3, n_test=2)
    assert data.num_outputs == 10


@pytest.mark.parametrize("name", sets.SOURCES)
def test_missing_data_without_network_is_one_clear_sentence(name, tmp_path, no_network):
    with pytest.raises(NfaError) as error:
        load(name, tmp_path)
    message, source = str(error.value), sets.SOURCES[name]
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    assert "\n" not in message
    assert "no network in tests" in message
    assert str(tmp_path / source.folder) in message
    assert source.url in message
    assert source.archives
    assert all(archive in message for archive in source.archives)
    assert set(no_network) == {sets.NETWORK_TIMEOUT}
    assert socket.getdefaulttimeout() is None


def test_missing_data_that_may_not_be_downloaded(tmp_path, no_network):
    with pytest.raises(NfaError, match=r"not downloaded .*pass data.download=true"):
        load("CIFAR10", tmp_path, download=False)
    assert no_network == []


def test_archives_put_there_by_hand_are_unpacked(tmp_path):
    make_mnist(tmp_path)
    for raw in list((tmp_path / "MNIST" / "raw").iterdir()):
        raw.with_name(raw.name + ".gz").write_bytes(gzip.compress(raw.read_bytes()))
        raw.unlink()
    assert load("MNIST", tmp_path).summary()["n_train"] == 40


def test_damaged_files(tmp_path):
    make_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(NfaError, match="MNIST is missing or damaged"):
        load("MNIST", tmp_path)


def test_unknown_name():
    with pytest.raises(NfaError, match=r"unknown data.name='ImageNet': expected one of MNIST, .*GTSRB"):
        TorchvisionSet("ImageNet")


def test_size_out_of_range():
    with pytest.raises(NfaError, match=r"data\.size"):
        TorchvisionSet("MNIST", size=0)
