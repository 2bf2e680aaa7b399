import pytest
import torch
from torch.nn import functional

from datamodules import Bars, PastedDigits, Star
from datamodules.local_signal import star_shape
from nfa.errors import NfaError
from nfa.inputs.digits import digits

SETS = [Star, PastedDigits, Bars]


def loaded(kind, **options):
    data = kind(**{"n": 60, "n_test": 40, "val_fraction": 0, **options})
    data.setup()
    return data


def samples(data, split="test"):
    batches = data.test_dataloader() if split == "test" else data.train_dataloader()
    return batches.x, batches.y


def corner(marked):
    """First row and first column of an image (h, w) in which something is marked."""
    rows, columns = marked.any(1).nonzero(), marked.any(0).nonzero()
    return int(rows[0]), int(columns[0])


@pytest.mark.parametrize(
    ("kind", "channels", "size", "classes"),
    [
        (Star, 3, 32, ("noise", "star")),
        (PastedDigits, 1, 42, tuple("0123456789")),
        (Bars, 1, 32, ("left", "right")),
    ],
)
def test_what_is_loaded(kind, channels, size, classes):
    data = loaded(kind, val_fraction=0.1)
    assert (data.task, data.class_names, data.num_outputs) == ("classification", classes, len(classes))
    assert data.input_shape == (channels, size, size)
    sizes = data.summary()
    assert (sizes["n_train"], sizes["n_val"], sizes["n_test"]) == (54, 6, 40)
    x, y = data.probe(54)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)


def test_the_star_set_is_of_the_published_size():
    data = Star(val_fraction=0)
    data.setup()
    assert (data.summary()["n_train"], data.noise, data.strength) == (50, 0.3, 1.0)
    assert star_shape(data.star).sum() == 29


@pytest.mark.parametrize("kind", SETS)
def test_samples_are_a_function_of_the_seed(kind):
    first, again, other = (samples(loaded(kind, seed=s), "train") for s in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize("kind", SETS)
def test_training_and_test_images_share_no_noise(kind):
    data = loaded(kind, noise=1.0)
    train, test = (samples(data, split)[0] for split in ("train", "test"))
    noise = train[train > 1.1]  # no signal is as bright
    assert len(noise) > 1000
    assert torch.isin(noise, test).float().mean() < 0.05  # some float32 numbers are drawn twice


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("n", [20, 21])
def test_classes_are_as_even_as_they_can_be(kind, n):
    _, y = samples(loaded(kind, n=n), "train")
    counts = y.bincount()
    assert counts.max() - counts.min() <= (1 if kind is not PastedDigits else 2)
    assert not torch.equal(y, y.sort().values)


@pytest.mark.parametrize("kind", SETS)
def test_noise_has_mean_zero_and_the_deviation_asked_for(kind):
    signal = {Star: "star", PastedDigits: "digit", Bars: "bar"}[kind]
    x, _ = samples(loaded(kind, n_test=400, noise=0.7, strength=1e-3, **{signal: 5}))
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 0.7) < 0.02


# --- star ------------------------------------------------------------------------------------------------


def test_star_has_five_points_and_a_mirror():
    shape = star_shape(101)
    assert torch.equal(shape, shape.flip(1))
    assert shape.any(0).all()  # as wide as its square
    assert abs(shape.float().mean() - 0.31) < 0.01  # the area of the unit star over that of its square
    assert shape[1:].float().sum(1).max() > 90  # the arms
    assert (shape[90].diff() != 0).sum() == 4  # two feet


def test_every_second_image_has_a_star_in_two_channels():
    x, y = samples(loaded(Star, n_test=41, noise=0.0))
    assert sorted(y.bincount().tolist()) == [20, 21]
    for image, label in zip(x, y, strict=True):
        assert not image[2].any()
        if not label:
            assert not image.any()
            continue
        row, column = corner(image[0] == 1)
        expected = torch.zeros(32, 32)
        shape = star_shape(9)
        top = corner(shape)[0]
        expected[row - top : row - top + 9, column : column + 9][shape] = 1
        assert torch.equal(image[0], expected)
        assert torch.equal(image[1], expected)


def test_star_replaces_the_noise_where_it_is_and_nowhere_else():
    x, y = samples(loaded(Star, strength=2.5))
    star = x == 2.5
    assert star.sum((1, 2, 3)).tolist() == (y * 2 * 29).tolist()
    clean = samples(loaded(Star, strength=1.5))[0]
    assert torch.equal(x[~star], clean[~star])


def test_places_cover_the_image():
    x, y = samples(loaded(Star, n_test=2000, noise=0.0, size=12))
    places = {corner(image[0] == 1) for image in x[y == 1]}
    assert len(places) == 4 * 4


def test_star_as_large_as_the_image():
    x, y = samples(loaded(Star, noise=0.0, size=7, star=7))
    assert torch.equal(x[y == 1][0, 0] == 1, star_shape(7))


# --- pasted digits ---------------------------------------------------------------------------------------


def values(image):
    return tuple(image.flatten().tolist())


def pasted(x, side):
    """What stands out of an image (1, h, w) of zeros but for a square of digit values + 1."""
    row, column = corner(x[0] > 0)
    return x[:, row : row + side, column : column + side]


def test_digits_are_pasted_whole_and_training_and_test_digits_are_disjoint(monkeypatch):
    train, test = digits()
    lifted = ((train[0] + 1, train[1]), (test[0] + 1, test[1]))  # no pixel of a digit is 0
    monkeypatch.setattr("datamodules.local_signal.digits", lambda: lifted)
    data = loaded(PastedDigits, n=1438, n_test=359, size=20, digit=8, noise=0.0)
    for split, (images, labels) in (("train", lifted[0]), ("test", lifted[1])):
        x, y = samples(data, split)
        known = dict(zip(map(values, images), labels.tolist(), strict=True))
        found = [values(pasted(image, 8)) for image in x]
        assert [known[image] for image in found] == y.tolist()
        assert len(set(found)) == len(known)  # each digit once
    assert not set(map(values, lifted[0][0])) & set(map(values, lifted[1][0]))


def test_enlarged_digits_keep_their_values_and_replace_the_noise():
    x, y = samples(loaded(PastedDigits, size=30, digit=20, strength=2.0, noise=1e-3))
    clean = digits()[1]
    enlarged = functional.interpolate(clean[0], size=(20, 20), mode="bilinear")
    assert x.max() <= 2
    of_class = enlarged[clean[1] == y[0]] * 2
    windows = functional.unfold(x[:1], 20)[0].T  # some window of the image is one of them, exactly
    assert (torch.cdist(windows, of_class.flatten(1), p=torch.inf) == 0).any()


def test_more_images_than_digits_paste_them_again_elsewhere():
    x, y = samples(loaded(PastedDigits, n_test=2 * 359 + 5))
    assert torch.equal(y[:359], y[359 : 2 * 359])
    assert torch.equal(y[:5], y[-5:])
    assert not torch.equal(x[0], x[359])


# --- bars ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 9])
def test_bars_are_in_the_half_of_their_class(size):
    x, y = samples(loaded(Bars, n_test=600, size=size, bar=3, noise=0.0, strength=2.0))
    seen = set()
    for image, label in zip(x[:, 0], y.tolist(), strict=True):
        assert image.sum() == 3 * 2
        row, column = corner(image > 0)
        assert (image[row : row + 3, column] == 2).all()
        assert column < size // 2 if label == 0 else column >= size - size // 2
        seen.add((row, column))
    assert len(seen) == (size - 2) * 2 * (size // 2)


# --- options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        *((kind, {"n": 0}, "data.n ") for kind in SETS),
        *((kind, {"n_test": 0}, "n_test") for kind in SETS),
        *((kind, {"n": 10, "n_train": 11}, "n_train of at most 10") for kind in SETS),
        (Star, {"n": 1}, "two classes"),
        (Star, {"size": 0}, "data.size"),
        (Star, {"size": 8}, "data.star must be at most data.size=8, got 9"),
        (Star, {"star": 4}, "data.star must be a whole number of at least 5, got 4"),
        (Star, {"star": 9.0}, "data.star must be a whole number"),
        (Star, {"noise": -0.1}, "data.noise"),
        (Bars, {"noise": float("nan")}, "data.noise"),
        (Bars, {"noise": float("inf")}, "data.noise"),
        (Star, {"strength": 0}, "data.strength must be a number above 0, got 0"),
        (PastedDigits, {"strength": float("nan")}, "data.strength"),
        (PastedDigits, {"digit": 43}, "data.digit must be at most data.size=42, got 43"),
        (PastedDigits, {"digit": 0}, "data.digit"),
        (Bars, {"bar": 33}, "data.bar must be at most data.size=32, got 33"),
        (Bars, {"size": 1, "bar": 1}, "data.size must be a whole number of at least 2, got 1"),
    ],
)
def test_options_out_of_range(kind, options, message):
    with pytest.raises(NfaError, match=message):
        loaded(kind, **options)
