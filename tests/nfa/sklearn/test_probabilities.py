"""Probabilities are calibrated, and say on what."""

import math
import re

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import StratifiedKFold

import nfa
from nfa.machines.calibration import Calibration
from nfa.machines.network import KernelNetwork
from nfa.sklearn import RFMClassifier


def noisy(n, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    return X, (X[:, 0] + 0.8 * rng.normal(size=n) > 0).astype(int)


def test_probabilities_of_validation_data():
    X, y = noisy(200, 0)
    X_val, y_val = noisy(200, 1)
    model = RFMClassifier(rounds=1).fit(X, y, X_val=X_val, y_val=y_val)
    assert model.calibration_.source == "validation data"
    P = model.predict_proba(X_val)
    assert np.isclose(model.brier_score_, brier_score_loss(y_val, P[:, 1]))
    assert np.allclose(P.sum(1), 1)


def test_those_from_leaving_one_out_are_nearly_as_good():
    X, y = noisy(300, 0)
    X_val, y_val = noisy(300, 1)
    X_new, y_new = noisy(600, 2)
    alone = RFMClassifier(rounds=1, ridge=0.1).fit(X, y)
    shown = RFMClassifier(rounds=1, ridge=0.1).fit(X, y, X_val=X_val, y_val=y_val)
    assert alone.calibration_.source == "leave-one-out scores"
    base = log_loss(y_new, np.full(600, y.mean()))
    assert log_loss(y_new, alone.predict_proba(X_new)) < 0.9 * base
    assert log_loss(y_new, alone.predict_proba(X_new)) < 1.1 * log_loss(y_new, shown.predict_proba(X_new))
    own = log_loss(y_new, torch.from_numpy(alone.decision_function(X_new)).sigmoid().numpy())
    assert log_loss(y_new, alone.predict_proba(X_new)) < own  # scores alone are no logits


def test_what_was_held_out_tells_the_truth():
    """As the documentation has it: M has learned from what is left out one by one."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1300, 20))
    y = (X[:, 0] + 0.8 * rng.normal(size=1300) > 0).astype(int)
    shown = {"X_val": X[225:300], "y_val": y[225:300]}
    models = {
        "leave-one-out scores": RFMClassifier(rounds=3).fit(X[:300], y[:300]),
        "held-out folds": RFMClassifier(rounds=3, cv=5).fit(X[:300], y[:300]),
        "validation data": RFMClassifier(rounds=3).fit(X[:225], y[:225], **shown),
    }
    found = {}
    for source, model in models.items():
        assert model.calibration_.source == source
        new = brier_score_loss(y[300:], model.predict_proba(X[300:])[:, 1])
        found[source] = round(model.brier_score_, 3), round(new, 3)
    said, new = found.pop("leave-one-out scores")
    assert said < 0.6 * new
    assert all(said > 0.6 * new for said, new in found.values())
    assert all(other < new for _, other in found.values())


def test_folds_are_predicted_at_the_chosen_round():
    X, y = noisy(60, 0)
    model = RFMClassifier(cv=3, rounds=2).fit(X, y)
    scores, order = [], []
    for own, held in StratifiedKFold(3).split(X, y):
        part = RFMClassifier(rounds=model.machine_.best_round).fit(X[own], y[own])
        scores.append(part.machine_.scores(torch.from_numpy(X[held])))
        order.append(y[held])
    expected = Calibration.of(torch.cat(scores), torch.from_numpy(np.concatenate(order)), "by hand")
    assert model.calibration_.beta == pytest.approx(expected.beta)
    assert model.brier_score_ == pytest.approx(expected.brier)


def test_leave_one_out_scores_are_those_of_fits_without_a_sample():
    X, y = noisy(25, 0)
    model = RFMClassifier(rounds=0, ridge=0.3).fit(X, y)
    scores = []
    for i in range(25):
        kept = np.arange(25) != i
        machine = nfa.RFM(rounds=0, ridge=0.3).fit(torch.from_numpy(X[kept]), torch.from_numpy(y[kept]))
        scores.append(machine.scores(torch.from_numpy(X[i][None])))
    expected = Calibration.of(torch.cat(scores), torch.from_numpy(y), "by hand")
    assert model.calibration_.beta == pytest.approx(expected.beta, rel=1e-6)
    assert model.brier_score_ == pytest.approx(expected.brier, rel=1e-6)


def test_the_temperature_is_that_of_the_least_cross_entropy():
    g = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 3, (400,), generator=g)
    scores = torch.nn.functional.one_hot(classes, 3).double() + torch.randn(400, 3, generator=g).double()
    found = Calibration.of(scores, classes, "drawn")
    share = 3 / 403
    targets = (1 - share) * torch.nn.functional.one_hot(classes, 3).double() + share / 3
    losses = {
        beta: float(-(targets * (scores * beta).log_softmax(1)).sum())
        for beta in (0.9 * found.beta, found.beta, 1.1 * found.beta)
    }
    assert min(losses, key=losses.get) == found.beta
    twice = Calibration.of(scores.repeat(2, 1), classes.repeat(2), "drawn")
    weighted = Calibration.of(scores, classes, "drawn", torch.full((400,), 2.0))
    assert weighted.beta == pytest.approx(twice.beta, rel=1e-9)
    assert weighted.brier == pytest.approx(twice.brier, rel=1e-9)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_scores_that_tell_nothing_give_equal_probabilities(scale):
    classes = torch.tensor([0, 1, 1, 0])
    scores = scale * torch.nn.functional.one_hot(classes, 2).double()
    found = Calibration.of(scores, classes, "drawn")
    assert found.beta == 0
    assert torch.equal(found.probabilities(scores), torch.full((4, 2), 0.5, dtype=torch.float64))


def test_classes_that_come_apart_leave_a_doubt():
    X = np.array([[0.0], [0.1], [5.0], [5.1]])
    model = RFMClassifier(rounds=0, bandwidth=1.0).fit(X, [0, 0, 1, 1])
    P = model.predict_proba(X)
    assert ((P > 0) & (P < 1)).all()


def test_refitted_with_validation_data_they_are_left_out_one_by_one():
    X, y = noisy(60, 0)
    X_val, y_val = noisy(30, 1)
    model = RFMClassifier(rounds=1, refit=True).fit(X, y, X_val=X_val, y_val=y_val)
    assert model.calibration_.source == "leave-one-out scores"
    assert len(model.machine_.predictor.centers) == 90


def test_without_room_there_are_none_and_the_fit_stays():
    X, y = noisy(200, 0)
    with pytest.warns(UserWarning, match="no probabilities: leave-one-out predictions of 200 points take"):
        model = RFMClassifier(rounds=0, memory=1e6, solver="cholesky").fit(X, y)
    assert model.score(X, y) > 0.6
    assert model.brier_score_ is None
    with pytest.raises(nfa.NfaError, match="fit with X_val and y_val"):
        model.predict_proba(X)


def test_what_is_not_fitted_has_no_temperature():
    network = KernelNetwork(nfa.RFM().stack[0].kernel, (4,), 2)
    with pytest.raises(nfa.NfaError, match="got one before its first fit: fit it first"):
        Calibration.of_network(network)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "and a source, got None"),
        ([1.0], "and a source, got a list"),
        ({"beta": 1.0, "brier": 0.1}, "and a source, got a dict"),
        ({"beta": 1.0, "brier": 0.1, "source": 3}, "and a source, got 3"),
        ({"beta": -1.0, "brier": 0.1, "source": "scores"}, "beta must be 0 or a positive number, got -1.0"),
        ({"beta": 10**400, "brier": 0.1, "source": "scores"}, "beta must be 0 or a positive number"),
        ({"beta": 1.0, "brier": True, "source": "scores"}, "brier must be 0 or a positive number, got True"),
    ],
)
def test_a_calibration_in_a_file_of_a_stranger(state, words):
    with pytest.raises(nfa.NfaError, match=re.escape(words)) as refused:
        Calibration.read(state)
    assert len(str(refused.value)) < 200


def test_a_calibration_in_a_file():
    known = Calibration.read({"beta": 2, "brier": 0.25, "source": "validation scores"})
    scores = torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64)
    assert known.probabilities(scores)[0].tolist() == pytest.approx(
        [math.exp(2 * s) / sum(math.exp(2 * t) for t in (0.3, -0.2, 0.1)) for s in (0.3, -0.2, 0.1)]
    )
