"""The estimators are scikit-learn's: its own checks, and the tools that people use around them."""

import pickle

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import nfa
from nfa.sklearn import RFMClassifier, RFMRegressor


def classes(n=60, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    return X, np.where(X[:, 0] * X[:, 1] > 0, "same", "other")


def numbers(n=60, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    return X, X[:, 0] ** 2 + 0.1 * rng.normal(size=n)


@pytest.mark.filterwarnings("ignore")  # the checks give data that machines have a right to warn of
@parametrize_with_checks([RFMClassifier(), RFMRegressor()])
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([RFMClassifier(cv=3, rounds=2), RFMRegressor(cv=3, rounds=2, ridge=[0.01, 0.1])])
@pytest.mark.long
def test_checks_of_scikit_learn_with_other_options(estimator, check):
    check(estimator)


def test_the_options_are_those_of_the_machine():
    own = RFMRegressor().get_params()
    assert {k: v for k, v in own.items() if k in nfa.RFM.defaults} == {
        k: v for k, v in nfa.RFM.defaults.items() if k != "seed"
    }
    assert set(own) - set(nfa.RFM.defaults) == {"random_state", "kernel_options", "cv"}
    with pytest.raises(TypeError, match="no option 'bandwith'"):
        RFMClassifier(bandwith=1.0)


def test_numbers_are_those_of_the_machine():
    import torch

    X, y = numbers()
    machine = nfa.RFM(bandwidth=3.0, rounds=2, seed=5).fit(torch.from_numpy(X), torch.from_numpy(y))
    model = RFMRegressor(bandwidth=3.0, rounds=2, random_state=5).fit(X, y)
    assert np.array_equal(model.predict(X), machine.predict(torch.from_numpy(X)).numpy())
    assert np.array_equal(model.feature_importances_, machine.M.diagonal().numpy()) or np.allclose(
        model.feature_importances_, machine.M.diagonal().numpy(), rtol=1e-12
    )


def test_clone_and_pickle():
    X, y = classes()
    model = clone(RFMClassifier(rounds=1, bandwidth=[1.0, 5.0])).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(model.predict_proba(X), again.predict_proba(X))


def test_pipelines_grids_and_validation():
    X, y = classes()
    pipe = make_pipeline(StandardScaler(), RFMClassifier(rounds=1))
    grid = GridSearchCV(
        pipe, {"rfmclassifier__bandwidth": [1.0, 5.0], "rfmclassifier__kernel": ["gaussian"]}, cv=3
    )
    grid.fit(X, y)
    assert grid.best_score_ > 0.6
    assert cross_val_score(pipe, X, y, cv=3, scoring="roc_auc").mean() > 0.6
    X, y = numbers()
    assert cross_val_score(RFMRegressor(rounds=1, bandwidth=3.0), X, y, cv=3).mean() > 0.3


def test_what_is_inspected():
    X, y = numbers(120)
    model = RFMRegressor(rounds=2, bandwidth=3.0).fit(X, y)
    assert model.feature_importances_.argmax() == 0
    assert permutation_importance(model, X, y, n_repeats=2, random_state=0).importances_mean.argmax() == 0
    found = partial_dependence(model, X, [0], grid_resolution=5)
    assert found["average"].shape == (1, 5)


def test_a_partial_dependence_is_drawn():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from sklearn.inspection import PartialDependenceDisplay

    X, y = classes()
    model = RFMClassifier(rounds=1).fit(X, y)
    shown = PartialDependenceDisplay.from_estimator(model, X, [0, (0, 1)], grid_resolution=3)
    assert len(shown.lines_.ravel()) >= 1
    matplotlib.pyplot.close("all")


def test_options_are_looked_at_when_it_is_fitted():
    X, y = numbers()
    with pytest.raises(nfa.NfaError, match="kernel"):
        RFMRegressor(kernel="lapalce").fit(X, y)
    with pytest.raises(nfa.NfaError, match="both choose the round"):
        RFMRegressor(cv=3).fit(X, y, X_val=X, y_val=y)
    with pytest.raises(nfa.NfaError, match="needs labels of classes"):
        RFMRegressor(criterion="accuracy", cv=3).fit(X, y)
    with pytest.raises(nfa.NfaError, match="give both"):
        RFMRegressor().fit(X, y, X_val=X)
    for folds, message in ([], "cv has no fold"), ([(range(9), [])], "cv has a fold with nothing to fit to"):
        with pytest.raises(nfa.NfaError, match=message):
            RFMRegressor(cv=folds).fit(X, y)


def test_seeds_of_scikit_learn():
    X, y = numbers()
    options = {"agop_samples": 10, "rounds": 2}
    first, second = (
        RFMRegressor(random_state=np.random.RandomState(3), **options).fit(X, y).predict(X) for _ in range(2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, RFMRegressor(random_state=7, **options).fit(X, y).predict(X))


# ---- what chooses ------------------------------------------------------------------------------------------


def test_folds_choose_the_round_and_all_samples_are_fitted():
    X, y = numbers(80)
    model = RFMRegressor(cv=4, rounds=3, bandwidth=3.0).fit(X, y)
    assert len(model.cv_errors_) == 4
    best = int(np.argmin(model.cv_errors_))
    assert len(model.machine_.history) == best + 1
    plain = RFMRegressor(rounds=best, bandwidth=3.0).fit(X, y)
    assert np.array_equal(model.predict(X), plain.predict(X))
    errors = []
    import torch
    from sklearn.model_selection import KFold

    for own, held in KFold(4).split(X):
        data = (X[own], y[own], X[held], y[held])
        machine = nfa.RFM(rounds=3, bandwidth=3.0).fit(*map(torch.from_numpy, data))
        errors.append([row["val_mse"] for row in machine.history])
    assert np.allclose(np.mean(errors, 0), model.cv_errors_)


def test_folds_of_a_classification_are_stratified_and_counted_by_accuracy():
    X, y = classes(80)
    model = RFMClassifier(cv=4, rounds=2, criterion="accuracy").fit(X, y)
    same = RFMClassifier(cv=StratifiedKFold(4), rounds=2, criterion="accuracy").fit(X, y)
    assert model.cv_errors_ == same.cv_errors_
    assert all(np.isclose(error * 80, round(error * 80)) for error in model.cv_errors_)


def test_several_ridges_are_chosen_among_by_leaving_one_out():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 3))
    y = X[:, 0] + 2 * rng.normal(size=80)
    model = RFMRegressor(ridge=[1e-6, 10.0], rounds=2).fit(X, y)
    assert model.machine_.history[-1]["ridge"] == 10.0
    assert "val_mse" not in model.machine_.history[-1]


def test_validation_data_choose_the_round():
    X, y = numbers(80)
    model = RFMRegressor(rounds=3, bandwidth=[1.0, 3.0]).fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    errors = [row["val_mse"] for row in model.machine_.history]
    assert model.machine_.best_round == int(np.argmin(errors))


# ---- weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [RFMClassifier(rounds=2), RFMRegressor(rounds=2), RFMRegressor(cv=3)])
def test_a_weight_of_zero_is_removal_exactly(estimator):
    X, y = classes(40) if isinstance(estimator, RFMClassifier) else numbers(40)
    weights = np.random.default_rng(1).integers(0, 3, 40).astype(float)
    kept = weights > 0
    if estimator.cv is not None:  # the same folds of those that are left
        folds = [
            (np.flatnonzero(np.arange(40) % 2 != k), np.flatnonzero(np.arange(40) % 2 == k)) for k in (0, 1)
        ]
        place = np.cumsum(kept) - 1
        estimator = clone(estimator).set_params(cv=folds)
        less = [tuple(place[part][kept[part]] for part in fold) for fold in folds]
    first = clone(estimator).fit(X, y, sample_weight=weights)
    second = clone(estimator).set_params(**({"cv": less} if estimator.cv is not None else {}))
    second.fit(X[kept], y[kept], sample_weight=weights[kept])
    assert np.array_equal(first.predict(X), second.predict(X))
    if isinstance(estimator, RFMClassifier):
        assert np.array_equal(first.predict_proba(X), second.predict_proba(X))


@pytest.mark.parametrize(
    "weights", [np.ones(3), np.ones((40, 2)), -np.ones(40), np.full(40, np.nan), ["a"] * 40], ids=str
)
def test_other_weights_are_refused(weights):
    X, y = numbers(40)
    with pytest.raises(ValueError, match="sample_weight"):
        RFMRegressor().fit(X, y, sample_weight=weights)
