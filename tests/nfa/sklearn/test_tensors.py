"""Tensors go into estimators and come out on their device, here the CPU or that of ``NFA_TEST_DEVICE``."""

import os

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from nfa.sklearn import RFMClassifier, RFMRegressor

DEVICE = os.environ.get("NFA_TEST_DEVICE", "cpu")


def points():
    X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    return X, (X[:, 0] > 0).long()


@pytest.mark.parametrize("weights", [None, torch.ones(40), torch.arange(40.0)], ids=["none", "ones", "range"])
def test_classes(weights):
    X, y = points()
    there = [None if t is None else t.to(DEVICE) for t in (X, y, weights)]
    model = RFMClassifier(rounds=1).fit(there[0], there[1], sample_weight=there[2])
    for found in (model.predict, model.predict_proba, model.predict_log_proba, model.decision_function):
        assert found(there[0]).device.type == DEVICE
    assert model.predict(there[0]).dtype == torch.int64
    assert model.score(there[0], there[1]) > 0.9
    here = RFMClassifier(rounds=1).fit(X.numpy(), y.numpy(), sample_weight=weights)
    assert np.allclose(here.predict_proba(X.numpy()), model.predict_proba(there[0]).cpu(), atol=1e-5)
    assert isinstance(model.predict_proba(X.numpy()), np.ndarray)  # whatever it was fitted to
    assert torch.equal(there[0].cpu(), X)


def test_texts_stay_here():
    X, y = points()
    model = RFMClassifier(rounds=1).fit(X.to(DEVICE), ["no" if label else "yes" for label in y.tolist()])
    assert set(model.predict(X.to(DEVICE))) == {"no", "yes"}


def test_numbers_folds_and_validation_data():
    X, _ = points()
    there = X.to(DEVICE)
    model = RFMRegressor(rounds=1, ridge=[0.1, 1.0], cv=3).fit(there, there[:, :2])
    assert model.predict(there).shape == (40, 2)
    assert model.predict(there).device.type == DEVICE
    assert np.isfinite(model.feature_importances_).all()
    shown = RFMRegressor(rounds=1).fit(there[:30], there[:30, 0], X_val=there[30:], y_val=there[30:, 0])
    assert shown.predict(there).shape == (40,)


def test_a_graph_is_left_alone():
    X, y = points()
    X.requires_grad_()
    model = RFMClassifier(rounds=1).fit(X, y)
    assert not model.predict_proba(X).requires_grad
    assert X.requires_grad
    assert X.grad is None


def test_others_are_refused():
    X, y = points()
    model = RFMClassifier(rounds=1).fit(X, y)
    with pytest.raises(ValueError, match="X has 2 features, but RFMClassifier is expecting 3"):
        model.predict(X[:, :2])
    with pytest.raises(ValueError, match="float16"):
        RFMRegressor().fit(X.half(), X[:, 0])
    with pytest.raises(ValueError, match=r"points \(n, d\)"):
        RFMRegressor().fit(X[:, None], X[:, 0])
    whole = RFMRegressor(rounds=1).fit((X * 3).long(), X[:, 0])
    assert whole.predict((X * 3).long()).dtype == torch.float32
