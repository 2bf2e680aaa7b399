import pytest
import torch

from datamodules.transforms import BatchTransform, Normalize, ShiftFlip


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("kind", "dims"), [("channel", (0, 2, 3)), ("feature", (0,))])
def test_images_get_zero_mean_and_unit_variance(dtype, kind, dims):
    x = torch.randint(0, 256, (50, 3, 4, 5)).to(dtype)
    z = Normalize.fit(x, kind)(x)
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.mean(dims), torch.zeros_like(z.mean(dims)), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(dims, unbiased=False), torch.ones_like(z.mean(dims)))


def test_statistics_of_images_are_in_units_of_one():
    x = torch.full((4, 2, 3, 3), 51, dtype=torch.uint8)
    x[:2] = 153
    fitted = Normalize.fit(x, "channel")
    assert fitted.mean.shape == (2, 1, 1)
    torch.testing.assert_close(fitted.mean.flatten(), torch.full((2,), 0.4, dtype=torch.float64))
    torch.testing.assert_close(fitted.std.flatten(), torch.full((2,), 0.2, dtype=torch.float64))


def test_flat_inputs_are_normalised_per_feature_under_either_name():
    x = torch.randn(100, 6) * torch.arange(1, 7) + 5
    torch.testing.assert_close(Normalize.fit(x, "channel")(x), Normalize.fit(x, "feature")(x))


def test_none_only_scales_images():
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    torch.testing.assert_close(Normalize.fit(image, "none")(image).flatten(), torch.tensor([0.0, 0.2, 1.0]))
    x = torch.randn(5, 2)
    assert torch.equal(Normalize.fit(x, "none")(x), x)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_constant_features_are_divided_by_one(value):
    x = torch.full((7, 2), value)
    x[:, 1] = torch.arange(7.0)
    fitted = Normalize.fit(x, "feature")
    assert fitted.std[0] == 1
    torch.testing.assert_close(fitted(x)[:, 0], torch.zeros(7), atol=1e-6, rtol=0)


def test_float64_offsets_beyond_float32_survive():
    x = 1.7e9 + torch.randn(1000, 1, dtype=torch.float64)
    assert abs(Normalize.fit(x, "feature")(x).std().item() - 1) < 0.01


def test_statistics_do_not_depend_on_the_size_of_a_chunk(monkeypatch):
    x = torch.randint(0, 256, (100, 3, 4, 4), dtype=torch.uint8)
    whole = Normalize.fit(x, "channel")
    monkeypatch.setattr("datamodules.transforms._CHUNK_VALUES", 7 * 48)
    torch.testing.assert_close(Normalize.fit(x, "channel").std, whole.std)


def reference_moves(image, margin):
    """Every translation of one image (c, h, w), and its mirror images, by explicit slices."""
    c, h, w = image.shape
    padded = torch.zeros(c, h + 2 * margin, w + 2 * margin, dtype=image.dtype)
    padded[:, margin : margin + h, margin : margin + w] = image
    moved = [padded[:, i : i + h, j : j + w] for i in range(2 * margin + 1) for j in range(2 * margin + 1)]
    return moved, [m.flip(2) for m in moved]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("flip", [False, True])
def test_augmentation_gives_all_shifts_and_flips_and_nothing_else(flip, dtype):
    image = torch.randint(1, 256, (2, 8, 8)).to(dtype)
    out = ShiftFlip(flip)(image.expand(400, 2, 8, 8), torch.Generator().manual_seed(0))
    plain, mirrored = reference_moves(image, margin=1)
    allowed = plain + mirrored * flip
    counts = [sum(torch.equal(o, a) for o in out) for a in allowed]
    assert sum(counts) == 400
    assert min(counts) > 0
    assert out.dtype == dtype


def test_margin_is_an_eighth_of_each_side():
    x = torch.ones(2000, 1, 32, 16)
    out = ShiftFlip(flip=False)(x, torch.Generator().manual_seed(0))
    assert (32 - out.amax(3).sum(2)).max() == 4
    assert (16 - out.amax(2).sum(2)).max() == 2


def test_transform_augments_only_with_a_generator():
    x = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    normalize = Normalize.fit(x, "channel")
    transform = BatchTransform(normalize, ShiftFlip(flip=True))
    assert torch.equal(transform(x, None), normalize(x))
    assert not torch.equal(transform(x, torch.Generator()), normalize(x))
    assert torch.equal(BatchTransform(normalize)(x, torch.Generator()), normalize(x))
