import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from nfa.errors import NfaError
from nfa.inputs import TORCHVISION_SETS, load_inputs
from nfa.inputs.digits import digits
from nfa.inputs.preprocessing import Preprocessing
from nfa.inputs.torchvision_sets import SOURCES
from tests.set_files import MAKERS, switch_off_checksums

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "channels": 3}
PLAIN = Preprocessing()


def write(path, shape=(6, 8, 3), seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return torch.from_numpy(pixels)


def fill(folder, classes=("cat", "dog"), n=5, ending="png", **kwargs):
    for label, name in enumerate(classes):
        for i in range(n):
            write(folder / name / f"{i}.{ending}", seed=100 * label + i, **kwargs)
    return folder


def whole(inputs):
    """All batches as one (x, y)."""
    x, y = zip(*inputs, strict=True)
    return torch.cat(x), torch.cat(y)


def fails(data, message, **options):
    with pytest.raises(NfaError, match=message) as error:
        list(load_inputs(str(data), **{"preprocessing": PLAIN, **options}))
    assert "\n" not in str(error.value)


def test_class_folders(tmp_path):
    inputs = load_inputs(str(fill(tmp_path / "photos")), preprocessing=PLAIN, batch_size=4)
    assert inputs.description == "photos: 10 images in 2 classes"
    assert (inputs.samples, inputs.shape) == (10, (3, 6, 8))
    assert [len(x) for x, _ in inputs] == [4, 4, 2]
    x, y = whole(inputs)
    assert (x.dtype, y.dtype, x.shape) == (torch.float32, torch.int64, (10, 3, 6, 8))
    assert x.is_contiguous()
    assert all(torch.equal(a, b) for a, b in zip(whole(inputs), (x, y), strict=True))  # a second pass
    cats = {write(tmp_path / "cat.png", seed=i).permute(2, 0, 1).float().div(255) for i in range(5)}
    assert all(sum(torch.equal(cat, image) for image in x[y == 0]) == 1 for cat in cats)


def test_every_prefix_is_balanced_and_seeded(tmp_path):
    fill(tmp_path, classes=("a", "b", "c"), n=6)

    def labels(**options):
        return whole(load_inputs(str(tmp_path), preprocessing=PLAIN, **options))[1].tolist()

    everything = labels()
    assert [sorted(everything[i : i + 3]) for i in range(0, 18, 3)] == [[0, 1, 2]] * 6
    assert labels(max_samples=7, batch_size=3) == everything[:7]
    assert any(labels(seed=seed) != everything for seed in range(1, 4))
    inputs = load_inputs(str(tmp_path), preprocessing=PLAIN, max_samples=2)
    assert inputs.description == f"{tmp_path.name}: 2 of 18 images in 2 classes"
    assert load_inputs(str(tmp_path), preprocessing=PLAIN, max_samples=99).samples == 18


def test_nested_folders_count_by_their_first_level_and_other_files_do_not(tmp_path):
    write(tmp_path / "cat" / "tabby" / "young" / "0.png")
    write(tmp_path / "cat" / ".thumbnails" / "0.png")
    write(tmp_path / ".cache" / "0.png")
    write(tmp_path / "dog" / "1.PNG")
    (tmp_path / "notes.txt").write_text("hello")
    _, y = whole(load_inputs(str(tmp_path), preprocessing=PLAIN))
    assert sorted(y.tolist()) == [0, 1]


def test_images_without_classes_come_without_labels(tmp_path):
    expected = [write(tmp_path / f"{i}.png", seed=i) for i in range(5)]
    inputs = load_inputs(str(tmp_path), preprocessing=PLAIN, batch_size=2)
    x = torch.cat(list(inputs))
    assert inputs.description == f"{tmp_path.name}: 5 images"
    assert torch.equal(x, torch.stack(expected)[inputs.order].permute(0, 3, 1, 2).float() / 255)


@pytest.mark.parametrize("other", ["test", "val"])
def test_folders_divided_into_train_and_test(tmp_path, other):
    root = tmp_path / "pets"
    fill(root / "train", n=3)
    fill(root / other, classes=("dog",), n=2)
    train, test = (load_inputs(str(root), preprocessing=PLAIN, split=split) for split in ("train", "test"))
    assert (train.description, train.samples) == ("pets/train: 6 images in 2 classes", 6)
    assert test.description == f"pets/{other}: 2 images in 1 class"
    assert whole(test)[1].tolist() == [1, 1]  # the index that the class has in training
    assert load_inputs(str(root / "train"), preprocessing=PLAIN).description == "train: 6 images in 2 classes"


def test_a_part_that_is_missing(tmp_path):
    fill(tmp_path / "a" / "train")
    fill(tmp_path / "b" / "val")
    assert load_inputs(str(tmp_path / "a"), preprocessing=PLAIN).samples == 10
    fails(tmp_path / "a", "no folder test or val: add it, or pass --split train", split="test")
    fails(tmp_path / "b", "no folder train: add it, or pass --split test")
    fails(tmp_path / "a" / "train", "not divided into train and test", split="test")
    fill(tmp_path / "a" / "test", classes=("emu",))
    fails(tmp_path / "a", r"class folders of .*found others \(emu\)", split="test")


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, classes=("plane", "train"))
    assert load_inputs(str(tmp_path), preprocessing=PLAIN).description.endswith("10 images in 2 classes")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("resize", "size"), [(24, (16, 16)), (None, (16, 16)), (24, (20, 15)), (40, (33, 33))]
)
@pytest.mark.parametrize("shape", [(30, 47, 3), (61, 24, 3), (24, 24, 3)])
def test_preprocessing_is_that_of_torchvision(tmp_path, interpolation, resize, size, shape):
    for i, mode in enumerate(("RGB", "L")):  # a grey image among others
        write(tmp_path / f"{i}.png", shape, seed=i)
        Image.open(tmp_path / f"{i}.png").convert(mode).save(tmp_path / f"{i}.png")
    preprocessing = Preprocessing(size=size, resize=resize, interpolation=interpolation, **IMAGENET)
    reference = v2.Compose(
        [
            v2.Resize(resize or size[0], InterpolationMode(interpolation)),
            v2.CenterCrop(size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET["mean"], IMAGENET["std"]),
        ]
    )
    inputs = load_inputs(str(tmp_path), preprocessing=preprocessing)
    expected = torch.stack(
        [reference(Image.open(tmp_path / f"{i}.png").convert("RGB")) for i in inputs.order]
    )
    assert inputs.shape == (3, *size)
    assert (next(iter(inputs)) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("shape", [(30, 50, 3), (50, 30, 3), (20, 90, 3)])
def test_without_resize_the_cut_reaches_two_edges(tmp_path, shape):
    write(tmp_path / "0.png", shape)
    x = next(iter(load_inputs(str(tmp_path), preprocessing=Preprocessing(size=(12, 18)))))
    assert x.shape == (1, 3, 12, 18)


def test_too_small_for_the_cut(tmp_path):
    write(tmp_path / "0.png", (20, 30, 3))
    fails(tmp_path, r"0\.png is 10x15 once resized", preprocessing=Preprocessing(size=(12, 12), resize=10))


def test_grey_and_color(tmp_path):
    grey, color = fill(tmp_path / "grey", shape=(6, 8)), fill(tmp_path / "color")
    assert load_inputs(str(grey), preprocessing=PLAIN).shape == (1, 6, 8)
    fails(
        grey,
        "grey images for a network with 3 input channels: .*--rgb",
        preprocessing=Preprocessing(channels=3),
    )
    fails(color, r"RGB images \(.*png\) for a network with 1", preprocessing=Preprocessing(channels=1))
    fails(grey, "--rgb makes 3 channels", preprocessing=Preprocessing(channels=1), rgb=True)
    fails(color, "4 input channels: expected a .npz", preprocessing=Preprocessing(channels=4))
    x, _ = whole(load_inputs(str(grey), preprocessing=Preprocessing(**IMAGENET), rgb=True))
    assert x.shape[1:] == (3, 6, 8)
    red, blue = (x[:, c] * IMAGENET["std"][c] + IMAGENET["mean"][c] for c in (0, 2))
    assert torch.allclose(red, blue, atol=1e-6)


def test_few_samples_do_not_make_a_set_grey(tmp_path):
    for i in range(9):
        write(tmp_path / f"{i}.png", (6, 8))
    write(tmp_path / "9.png")
    for seed in range(5):
        assert load_inputs(str(tmp_path), preprocessing=PLAIN, max_samples=1, seed=seed).shape == (3, 6, 8)


def test_different_shapes_need_a_size(tmp_path):
    fill(tmp_path)
    write(tmp_path / "cat" / "large.png", (12, 8, 3))
    fails(tmp_path, r"(6x8|12x8) .*png\) and (6x8|12x8) .*png\): pass --size")
    assert load_inputs(str(tmp_path), preprocessing=Preprocessing(size=(5, 5))).shape == (3, 5, 5)


@pytest.mark.parametrize("preprocessing", [PLAIN, Preprocessing(size=(4, 4))])
def test_a_damaged_image_is_named_when_its_batch_comes(tmp_path, preprocessing):
    fill(tmp_path)
    (tmp_path / "cat" / "broken.png").write_bytes(b"not an image")
    inputs = load_inputs(str(tmp_path), preprocessing=preprocessing, batch_size=1)
    batches = iter(inputs)
    for _ in range(inputs.order.tolist().index(5)):  # the five good cats come first in the listing
        next(batches)
    with pytest.raises(NfaError, match=r"could not decode .*broken\.png"):
        next(batches)


def test_only_damaged_images(tmp_path):
    write(tmp_path / "0.png")
    (tmp_path / "0.png").write_bytes(b"")
    fails(tmp_path, r"could not decode .*0\.png")


def test_images_vanish_meanwhile(tmp_path):
    write(tmp_path / "0.png")
    inputs = load_inputs(str(tmp_path), preprocessing=PLAIN)
    (tmp_path / "0.png").unlink()
    with pytest.raises(NfaError, match=r"0\.png"):
        next(iter(inputs))


def test_only_one_batch_is_decoded_at_a_time(tmp_path, monkeypatch):
    from nfa.inputs import image_sources

    fill(tmp_path)
    decoded = []
    decode = image_sources.decode
    monkeypatch.setattr(
        image_sources, "decode", lambda path, mode: decoded.append(path) or decode(path, mode)
    )
    batches = iter(load_inputs(str(tmp_path), preprocessing=PLAIN, batch_size=3))
    assert decoded == []
    next(batches)
    assert len(decoded) == 3


def test_folders_without_images(tmp_path):
    fails(tmp_path, "no images in .*expected files ending in .jpg")
    write(tmp_path / "0.png")
    fill(tmp_path / "cats")
    fails(tmp_path, r"found both \(0.png and cats.cat.0.png\)")
    fails(tmp_path / "cat", r"found no data .*a folder of images.*did you mean .*cats\?")


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        (None, r"pass --mean and --std \(--mean 0 --std 1 for pixels in \[0, 1\]\), and --size"),
        (Preprocessing(mean=(0.1, 0.2)), "--mean of one finite number, or of 3 .* got 0.1, 0.2"),
        (Preprocessing(std=(float("nan"),)), "--std of one finite number"),
        (Preprocessing(std=(0.0,)), "--std above 0"),
        (Preprocessing(size=(0, 4)), "--size of at least 1"),
        (Preprocessing(interpolation="magic"), "interpolation 'magic': expected bilinear or bicubic"),
    ],
)
def test_preprocessing_out_of_range(tmp_path, preprocessing, message):
    write(tmp_path / "0.png")
    fails(tmp_path, message, preprocessing=preprocessing)


@pytest.mark.parametrize("name", ["max_samples", "batch_size", "tokens"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_counts_out_of_range(name, value):
    fails("digits", f"--{name.replace('_', '-')} to be a whole number", **{name: value})


def test_unknown_split():
    fails("digits", "unknown split 'validation'", split="validation")


def test_digits():
    for split, (x, y) in zip(("train", "test"), digits(), strict=True):
        inputs = load_inputs("digits", preprocessing=PLAIN, split=split)
        assert inputs.description == f"digits/{split}: {len(y)} images in 10 classes"
        assert all(map(torch.equal, whole(inputs), (x[inputs.order], y[inputs.order])))


def test_digits_are_resized_and_repeated():
    preprocessing = Preprocessing(size=(32, 32), interpolation="bicubic", channels=3)
    x, _ = next(iter(load_inputs("digits", preprocessing=preprocessing, rgb=True)))
    assert x.shape == (32, 3, 32, 32)
    assert (x.min(), x.max()) == (0, 1)
    assert torch.equal(x[:, 0], x[:, 2])


@pytest.fixture
def sets(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    switch_off_checksums(monkeypatch)
    return tmp_path


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_torchvision_sets(name, sets):
    expected = MAKERS[TORCHVISION_SETS[name]](sets)["test"]
    inputs = load_inputs(name, preprocessing=PLAIN, split="test", root=str(sets))
    assert inputs.description == f"{TORCHVISION_SETS[name]}/test: 20 images in 10 classes"
    x, y = whole(inputs)
    assert torch.equal(x, torch.from_numpy(expected.copy())[inputs.order].float() / 255)
    assert y[:10].sort()[0].tolist() == list(range(10))


def test_names_are_those_of_the_configs():
    assert set(TORCHVISION_SETS.values()) == set(SOURCES)
    configs = Path(__file__).parents[3] / "configs" / "data"
    assert all((configs / f"{name}.yaml").is_file() for name in TORCHVISION_SETS)


def test_missing_set(sets):
    fails("svhn", "SVHN is missing or damaged .* put train_32x32.mat.* and run again", root=str(sets))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "found no data ''"),
        ("CIFAR", "expected digits, mnist, .*a folder of images.*mean cifar10"),
        ("nowhere/x.npz", "found no data 'nowhere/x.npz': expected digits"),
        ("~no:user/x", "found no data"),
        (__file__, r"cannot read .*test_inputs\.py: expected digits"),
    ],
)
def test_unknown_data(data, message):
    fails(data, message)


def test_importing_needs_torch_alone():
    code = (
        "import sys, nfa.inputs\n"
        "assert not {'PIL', 'torchvision', 'sklearn', 'safetensors'} & set(sys.modules)\n"
        "sys.modules['PIL'] = None\n"
        "try:\n    nfa.inputs.load_inputs('.')\n"
        "except nfa.NfaError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == '. needs pillow: pip install "neural-feature-ansatz[zoo]"'


@pytest.mark.parametrize(
    ("data", "module", "words"),
    [
        ("digits", "sklearn", "digits needs scikit-learn: pip install scikit-learn"),
        ("photos", "PIL", 'photos needs pillow: pip install "neural-feature-ansatz[zoo]"'),
        ("cifar10", "torchvision", 'cifar10 needs torchvision: pip install "neural-feature-ansatz[zoo]"'),
    ],
)
def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch, data, module, words):
    (tmp_path / "photos").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path)
    for name in [*sys.modules]:
        if name.startswith(("nfa.inputs.", module)) and name != "nfa.inputs.load":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NfaError) as refused:
        load_inputs(data, preprocessing=Preprocessing())
    assert str(refused.value) == words
