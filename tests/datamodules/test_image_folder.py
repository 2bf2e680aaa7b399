import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import ImageFolderData
from datamodules import images as images_module
from nfa.errors import NfaError
from nfa.inputs.image_folder import list_images


def write(path, shape=(6, 8, 3), value=None, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8) if value is None else np.full(shape, value, np.uint8)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels)


def fill(folder, classes=("cat", "dog"), n=5, ending="png", **kwargs):
    for label, name in enumerate(classes):
        for i in range(n):
            write(folder / name / f"{i}.{ending}", seed=100 * label + i, **kwargs)


def load(root, **options):
    data = ImageFolderData(root, **{"val_fraction": 0, **options})
    data.setup()
    return data


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test", n=3)
    return tmp_path


def test_train_and_test_folders(folder):
    data = load(folder)
    assert data.class_names == ("cat", "dog")
    assert data.input_shape == (3, 6, 8)
    assert (data.summary()["n_train"], data.summary()["n_test"]) == (10, 6)
    assert data.test_dataloader().y.tolist() == [0] * 3 + [1] * 3


def test_training_and_audit_read_the_same_files(folder):
    write(folder / "train" / "cat" / "more" / "inside.png")
    write(folder / "train" / "cat" / ".hidden" / "inside.png")
    data, listed = load(folder), list_images(folder, "train")
    assert data.summary()["n_train"] == len(listed.paths) == 11
    assert data.train_dataloader().y.bincount().tolist() == listed.labels.bincount().tolist() == [6, 5]


def test_pixels_are_those_of_the_files(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "val", n=2)  # stands in for test
    expected = write(tmp_path / "val" / "dog" / "0.png", seed=77)
    x = load(tmp_path).test_dataloader().x
    assert torch.equal(x[2], expected.permute(2, 0, 1))


def test_class_folders_are_split_by_class(tmp_path):
    fill(tmp_path, n=10)
    data = load(tmp_path, test_fraction=0.3)
    assert (data.summary()["n_train"], data.summary()["n_test"]) == (14, 6)
    assert data.test_dataloader().y.bincount().tolist() == [3, 3]
    assert torch.equal(load(tmp_path, test_fraction=0.3).test_dataloader().x, data.test_dataloader().x)
    both = torch.cat([data.train_dataloader().x, data.test_dataloader().x])
    assert len(both.flatten(1).unique(dim=0)) == 20


def test_grey_only_if_every_file_is_grey(tmp_path):
    fill(tmp_path / "train", shape=(4, 4))
    fill(tmp_path / "test", shape=(4, 4))
    assert load(tmp_path).input_shape == (1, 4, 4)
    write(tmp_path / "test" / "dog" / "colour.png", shape=(4, 4, 3))
    data = load(tmp_path)
    assert data.input_shape == (3, 4, 4)
    grey = data.train_dataloader().x[0]
    assert torch.equal(grey[0], grey[2])


def test_transparency_is_dropped(folder):
    write(folder / "train" / "cat" / "rgba.png", shape=(6, 8, 4))
    palette = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8), mode=None).convert("P")
    palette.save(folder / "train" / "cat" / "palette.png", transparency=bytes([0, 100, 255]))
    assert load(folder).input_shape == (3, 6, 8)


def test_size_resizes_the_shorter_side_and_cuts_out_the_centre(tmp_path):
    fill(tmp_path / "train", shape=(20, 40, 3))
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, 16:32] = 200  # the centre square; the filter mixes its edges with what is outside
    (tmp_path / "test" / "cat").mkdir(parents=True)
    (tmp_path / "test" / "dog").mkdir()
    for name in ("cat", "dog"):
        Image.fromarray(pixels).save(tmp_path / "test" / name / "0.png")
    x = load(tmp_path, size=8).test_dataloader().x
    assert x.shape == (2, 3, 8, 8)
    assert (x[..., 1:-1] == 200).all()
    assert (x > 100).all()


def test_only_chosen_files_are_decoded(folder):
    (folder / "train" / "cat" / "broken.png").write_bytes(b"not an image")
    loaded = []
    for seed in range(20):
        try:
            data = load(folder, n_train=4, n_test=2, seed=seed)
        except NfaError:
            continue
        loaded.append(data.summary()["n_train"])
    assert loaded
    assert set(loaded) == {4}


def test_files_that_are_no_images_by_name_are_skipped(folder):
    (folder / "train" / "cat" / "notes.txt").write_text("hello")
    (folder / "train" / "cat" / "._0.png").write_text("a Mac's resource fork")
    (folder / "train" / ".cache").mkdir()
    assert load(folder).summary()["n_train"] == 10


def test_each_of_thousands_of_jpegs_is_opened_twice_at_most(tmp_path, monkeypatch):
    opened, real = [], Image.open

    def counted(path, *args, **kwargs):
        opened.append(path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Image, "open", counted)
    for name in ("cat", "dog"):
        write(tmp_path / name / "0.jpg", shape=(32, 32, 3))
        original = (tmp_path / name / "0.jpg").read_bytes()
        for i in range(1, 1000):
            (tmp_path / name / f"{i}.jpg").write_bytes(original)
    load(tmp_path)
    assert 0 < len(opened) <= 2 * 2000  # to see its size, and to read it


def fails(root, message, **options):
    with pytest.raises(NfaError, match=message) as error:
        load(root, **options)
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is None
    return str(error.value)


@pytest.mark.parametrize("damage", [b"", b"not an image", None])
def test_corrupt_image_is_named(folder, damage):
    path = folder / "train" / "dog" / "2.png"
    path.write_bytes(path.read_bytes()[:60] if damage is None else damage)
    fails(folder, r"could not decode .*dog.2\.png .*replace or remove")


def test_truncated_jpeg_is_named(tmp_path):
    fill(tmp_path, ending="jpg", shape=(32, 32, 3))
    path = tmp_path / "cat" / "1.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    fails(tmp_path, r"cat.1\.jpg")


def test_images_of_more_than_8_bits(folder):
    Image.fromarray(np.full((6, 8), 40000, np.uint16)).save(folder / "train" / "cat" / "deep.png")
    fails(folder, r"8-bit image, could not decode .*deep\.png \(more than 8 bits")


def test_different_shapes_need_a_size(folder):
    write(folder / "train" / "cat" / "large.png", shape=(12, 8, 3))
    fails(folder, r"6x8 .*12x8 .*large\.png.*pass data\.size=")
    assert load(folder, size=5).input_shape == (3, 5, 5)


def test_missing_folder(tmp_path):
    fails(tmp_path / "nowhere", r"expected a folder of images at .*nowhere.*data\.root=")


def test_empty_folder(tmp_path):
    fails(tmp_path, "one sub-folder of images for each class")


def test_folder_without_class_folders(tmp_path):
    write(tmp_path / "0.png")
    fails(tmp_path, "found no sub-folder")


def test_empty_class_folder(folder):
    (folder / "train" / "emu").mkdir()
    (folder / "test" / "emu").mkdir()
    fails(folder, "images in the class folder .*emu")


def test_different_classes(folder):
    fill(folder / "test", classes=("emu",))
    fails(folder, "same class folders .* emu: make them equal")


def test_one_class_only(tmp_path):
    fill(tmp_path, classes=("cat",))
    fails(tmp_path, "two classes or more")


def test_train_folder_alone(tmp_path):
    fill(tmp_path / "train")
    assert "test_fraction" in fails(tmp_path, "expected test or val beside")
    assert load(tmp_path / "train").summary()["n_test"] == 2


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, classes=("plane", "train"))
    assert load(tmp_path).class_names == ("plane", "train")


def test_more_than_half_of_the_memory(folder, monkeypatch):
    monkeypatch.setattr(images_module, "free_memory", lambda device: 4000)
    fails(folder, r"16 images of 3x6x8 need .* GB, more than half of .* GB.*data\.size")


def test_free_memory_is_plausible():
    assert 2**20 < images_module.free_memory(torch.device("cpu")) < 2**50


def test_more_samples_than_files(folder):
    fails(folder, "data.n_train of at most 10", n_train=11)


@pytest.mark.parametrize("options", [{"size": 0}, {"test_fraction": 0}, {"test_fraction": 1.0}])
def test_options_out_of_range(folder, options):
    fails(folder, "size|test_fraction", **options)
