"""Each set is read by torchvision from files in its real format, made here; checksums are switched off."""

import gzip
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

from datamodules import TorchvisionSet
from nfa.errors import NfaError
from nfa.inputs import torchvision_sets as sets
from tests.set_files import MAKERS, make_mnist, make_svhn, switch_off_checksums, targets

SHAPES = {"MNIST": (1, 28, 28), "FashionMNIST": (1, 28, 28), "STL10": (3, 96, 96)}


@pytest.fixture(autouse=True)
def no_checksums(monkeypatch):
    switch_off_checksums(monkeypatch)


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
    assert error.value.__context__ is None
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
    with pytest.raises(NfaError, match=r"data.name must be one of MNIST, .*GTSRB, got 'ImageNet'"):
        TorchvisionSet("ImageNet")


def test_size_out_of_range():
    with pytest.raises(NfaError, match=r"data\.size"):
        TorchvisionSet("MNIST", size=0)
