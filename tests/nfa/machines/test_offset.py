"""Regression targets are fitted without their mean: ``f`` of ``y + c`` is ``f + c``, in every machine."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa import RFM, ConvRFM, DeepConvRFM, DeepRFM, audit
from nfa.machines.offset import with_offset, without_offset

D = torch.float64
MACHINES = {
    "rfm": (RFM, {"bandwidth": 2.0, "ridge": 1e-2, "rounds": 2}),
    "ridges": (RFM, {"bandwidth": [1.0, 2.0], "ridge": [1e-2, 1e-1], "rounds": 1, "refit": True}),
    "cg": (RFM, {"bandwidth": 2.0, "ridge": 1e-1, "rounds": 1, "solver": "cg"}),
    "deep_rfm": (DeepRFM, {"depth": 2, "width": 16, "ridge": 1e-2}),
    "conv_rfm": (ConvRFM, {"patch_size": 2, "depth": 1, "rounds": 1}),
    "conv_ridges": (ConvRFM, {"patch_size": 2, "depth": 1, "ridge": [1e-3, 1e-2], "rounds": 1}),
    "deep_conv_rfm": (DeepConvRFM, {"patch_size": 2, "depth": 2, "width": 4, "rounds": 1}),
}


def data(name, n=18, outputs=0, seed=0, dtype=D):
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 4, 5) if "conv" in name else (5,)
    X = torch.randn(n, *shape, generator=generator, dtype=D).to(dtype)
    flat = X.flatten(1)
    y = flat[:, 0] * flat[:, 1] + flat[:, 2] / 2
    return X, torch.stack([y, flat[:, 1], -y][:outputs], 1) if outputs else y


def fitted(name, c=0.0, offset="mean", outputs=0, dtype=D):
    machine, options = MACHINES[name]
    (X, y), (X_val, y_val) = data(name, 18, outputs, 0, dtype), data(name, 8, outputs, 1, dtype)
    return machine(**options, offset=offset).fit(X, y + c, X_val, y_val + c)


@pytest.mark.parametrize("outputs", [0, 3])
@pytest.mark.parametrize("name", MACHINES)
def test_a_shift_of_the_targets_is_a_shift_of_the_predictions(name, outputs):
    X, _ = data(name, 6, seed=2)
    plain, shifted = fitted(name, outputs=outputs), fitted(name, 1e4, outputs=outputs)
    assert torch.allclose(shifted.predict(X) - 1e4, plain.predict(X), atol=1e-6)
    assert torch.allclose(shifted.network()(X) - 1e4, plain.network()(X), atol=1e-6)
    for one, other in zip(shifted.history, plain.history, strict=True):
        assert one["train_mse"] == pytest.approx(other["train_mse"], rel=1e-4, abs=1e-9)
        assert one["val_mse"] == pytest.approx(other["val_mse"], rel=1e-4)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    c=st.floats(-1e6, 1e6, allow_subnormal=False),
    name=st.sampled_from(["rfm", "deep_rfm", "conv_rfm", "deep_conv_rfm"]),
)
def test_any_shift(c, name):
    X, _ = data(name, 4, seed=3)
    difference = fitted(name, c).predict(X) - c - fitted(name).predict(X)
    assert float(difference.abs().max()) < 1e-7 * max(abs(c), 1)


@pytest.mark.parametrize("name", MACHINES)
def test_each_output_has_its_own_mean(name):
    X, _ = data(name, 6, seed=2)
    c = torch.tensor([1e3, 0.0, -5.0], dtype=D)
    difference = fitted(name, c, outputs=3).scores(X) - fitted(name, outputs=3).scores(X)
    assert torch.allclose(difference, c.expand(6, 3), atol=1e-6)


@pytest.mark.parametrize("name", ["rfm", "deep_rfm", "conv_rfm", "deep_conv_rfm"])
def test_r2_of_a_target_at_ten_thousand(name):
    X, y = data(name, 40, seed=4, dtype=torch.float32)
    machine, options = MACHINES[name]

    def r2(c, offset):
        fit = machine(**options, offset=offset).fit(X[:30], y[:30] + c, X[30:], y[30:] + c)
        error = (fit.predict(X).double() - (y + c).double()).square().mean()
        return float(1 - error / y.double().var())

    assert r2(1e4, "mean") == pytest.approx(r2(0.0, "mean"), abs=1e-3)
    assert r2(1e4, "none") < r2(0.0, "none") - 1e-2


@pytest.mark.parametrize("name", ["rfm", "conv_rfm"])
def test_float64_targets_keep_their_digits_beside_float32_points(name):
    X, y = data(name, dtype=torch.float32)
    machine, options = MACHINES[name]
    plain = machine(**options).fit(X, y.double())
    far = machine(**options).fit(X, y.double() + 1e8)  # of which float32 resolves no more than 8
    assert torch.allclose(far.predictor.coefficients, plain.predictor.coefficients, rtol=1e-3, atol=1e-4)
    assert far.history[-1]["train_mse"] == pytest.approx(plain.history[-1]["train_mse"], rel=1e-2)


@pytest.mark.parametrize("name", ["rfm", "deep_rfm", "conv_rfm", "deep_conv_rfm"])
def test_files_and_audits_have_the_offset(name, tmp_path):
    X, _ = data(name, 6, seed=2)
    machine = fitted(name, 1e3)
    machine.save(tmp_path / "machine.safetensors")
    again = type(machine).load(tmp_path / "machine.safetensors")
    assert torch.equal(again.predict(X), machine.predict(X))
    assert again._options()["offset"] == "mean"
    assert float(machine.predict(X).mean()) > 900
    cosines = [[row.cosine for row in audit(m.network(), [X]).rows] for m in (machine, fitted(name))]
    assert cosines[0] == pytest.approx(cosines[1], abs=1e-6)


@pytest.mark.parametrize("name", ["rfm", "deep_rfm", "conv_rfm", "deep_conv_rfm"])
def test_one_hot_columns_of_classes_keep_their_mean_as_published(name):
    machine, options = MACHINES[name]
    X, y = data(name)
    labels = (y > 0).long()
    mean, none = (machine(**options, offset=offset).fit(X, labels) for offset in ("mean", "none"))
    assert torch.equal(mean.scores(X), none.scores(X))
    assert mean.predictor.intercept is None


def test_equal_targets_become_zero_exactly():
    Y = torch.full((7, 2), 0.1, dtype=D)
    centred, mean = without_offset("mean", Y, torch.float32)
    assert not centred.any()
    assert torch.equal(with_offset(centred, mean), Y)
    kept, nothing = without_offset("none", Y, torch.float32)
    assert torch.equal(kept, Y.float())
    assert nothing is None
