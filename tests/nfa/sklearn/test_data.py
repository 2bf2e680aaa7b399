"""What people have their data in: arrays, lists, DataFrames, texts, tensors; and what is refused."""

import subprocess
import sys
from datetime import date

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
pandas = pytest.importorskip("pandas")

from scipy import sparse
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.model_selection import cross_val_score

import nfa
from nfa.inputs.tables import TableEncoder
from nfa.inputs.tables.frames import table_of_frame
from nfa.inputs.tables.importances import by_column
from nfa.sklearn import RFMClassifier, RFMRegressor


def frame(n=60, seed=0):
    rng = np.random.default_rng(seed)
    colour = rng.choice(["red", "green", "blue"], n)
    size = rng.normal(50, 20, n)
    data = pandas.DataFrame(
        {
            "size": size,
            "colour": pandas.Categorical(colour),
            "shop": rng.choice(["a", "b"], n),
            "open": rng.choice([True, False], n),
            "same": 1.0,
        }
    )
    data.loc[3, "size"] = np.nan
    price = np.where(colour == "red", 3.0, 0.0) + size / 20
    return data, pandas.Series(price, name="price")


def test_kinds_of_the_same_numbers():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    expected = RFMRegressor(rounds=1).fit(X, y).predict(X)
    named = pandas.DataFrame(X, columns=["a", "b", "c"])
    model = RFMRegressor(rounds=1).fit(named, pandas.Series(y))
    assert np.array_equal(model.predict(named), expected)
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    assert model.encoder_ is None
    assert np.array_equal(RFMRegressor(rounds=1).fit(X.tolist(), y.tolist()).predict(X.tolist()), expected)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(named[["b", "a", "c"]])


@pytest.mark.parametrize(
    "labels",
    [["no", "yes"], [3, 7], [False, True], [-1.0, 1.0], np.array(["no", "yes"], dtype=object)],
    ids=str,
)
def test_labels_come_back_as_they_were(labels):
    X = np.random.default_rng(0).normal(size=(40, 2))
    y = np.asarray(labels)[(X[:, 0] > 0).astype(int)]
    for given in (y, y.tolist(), pandas.Series(y)):
        model = RFMClassifier(rounds=1).fit(X, given)
        found = model.predict(X)
        assert found.dtype == np.asarray(given).dtype
        assert set(found) <= set(y)
        assert model.score(X, given) > 0.9
        assert list(model.classes_) == sorted(labels)


def test_what_is_refused_in_a_sentence():
    X, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20.0)
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        RFMRegressor().fit(sparse.csr_matrix(X), y)
    with pytest.raises(ValueError, match="dense tensor"):
        RFMRegressor().fit(torch.eye(20).to_sparse(), y)
    with pytest.raises(ValueError, match="two classes or more, got one class, 'a'"):
        RFMClassifier().fit(X, ["a"] * 20)
    with pytest.raises(ValueError, match=r"y_val, got 5"):
        RFMClassifier().fit(X, np.arange(20) % 2, X_val=X, y_val=np.full(20, 5))
    with pytest.raises(ValueError, match="NaN"):
        RFMRegressor().fit(np.where(X > 1, np.nan, X), y)
    with pytest.raises(ValueError, match="Unknown label type"):
        RFMClassifier().fit(X, y + 0.5)


# ---- tables ------------------------------------------------------------------------------------------------


def test_a_frame_with_text_is_encoded_as_a_table():
    X, y = frame()
    model = RFMRegressor(rounds=2).fit(X, y)
    table = table_of_frame(X)
    encoder = TableEncoder.fit(table)
    machine = nfa.RFM(rounds=2).fit(encoder.transform(table), torch.tensor(y.to_numpy()))
    assert np.array_equal(model.predict(X), machine.predict(encoder.transform(table)).numpy())
    assert model.n_features_in_ == 5
    assert list(model.feature_names_in_) == ["size", "colour", "shop", "open", "same"]
    assert encoder.dropped == {"same": "constant"}
    inputs = dict(zip(encoder.feature_names, machine.M.diagonal().tolist(), strict=True))
    colour = sum(v for k, v in inputs.items() if k.startswith("colour="))
    size = inputs["size"] + inputs["size missing"]
    assert model.feature_importances_[:2] == pytest.approx([size, colour])
    assert model.feature_importances_[4] == 0
    assert model.feature_importances_[:2].sum() > model.feature_importances_[2:].sum()


def test_new_frames():
    X, y = frame()
    model = RFMRegressor(rounds=1).fit(X, y)
    new = X.head(3).copy()
    new["colour"] = new["colour"].astype(object)
    new.loc[0, "colour"] = "violet"  # no level of the training rows
    new.loc[1, "colour"] = None
    assert np.isfinite(model.predict(new)).all()
    with pytest.raises(ValueError, match="missing"):
        model.predict(new.drop(columns="shop"))
    with pytest.raises(nfa.NfaError, match="give one with the same columns"):
        model.predict(np.zeros((2, 5)))
    new["size"] = "large"
    with pytest.raises(nfa.NfaError, match="held numbers in training"):
        model.predict(new)


def test_tools_take_frames():
    X, y = frame(90)
    labels = np.where(y > y.median(), "dear", "cheap")
    model = RFMClassifier(rounds=1)
    assert cross_val_score(model, X, labels, cv=3).mean() > 0.7
    model.fit(X, labels)
    assert set(permutation_importance(model, X, labels, n_repeats=2).importances_mean.argsort()[-2:]) == {
        0,
        1,
    }
    X = X.assign(size=X["size"].fillna(50))
    found = partial_dependence(model, X, ["size"], grid_resolution=4)
    assert found["average"].shape == (1, 4)


def test_a_weight_of_zero_is_removal_from_the_encoder_too():
    X, y = frame()
    weights = np.ones(60)
    weights[:20] = 0
    first = RFMRegressor(rounds=1).fit(X, y, sample_weight=weights)
    second = RFMRegressor(rounds=1).fit(X[20:], y[20:], sample_weight=weights[20:])
    assert first.encoder_ == second.encoder_
    assert np.array_equal(first.predict(X), second.predict(X))


def test_columns_of_a_frame():
    table = table_of_frame(
        pandas.DataFrame(
            {
                "i": pandas.array([1, None], dtype="Int64"),
                "b": [True, False],
                "c": pandas.Categorical([1, 2]),
                "t": ["x", None],
                "o": pandas.Series([1, 2.5], dtype=object),
                "d": pandas.to_datetime(["1970-01-02", None]),
                "day": pandas.Series([date(1970, 1, 3), None], dtype=object),
            }
        )
    )
    found = {name: values.tolist() for name, values in table.columns.items()}
    assert found["i"][0] == 1.0
    assert np.isnan(found["i"][1])
    assert found["b"] == ["True", "False"]
    assert found["c"] == ["1", "2"]
    assert found["t"] == ["x", None]
    assert found["o"] == [1.0, 2.5]
    assert found["d"][0] == 1.0
    assert found["day"][0] == 2.0
    assert set(table.about) == {"d", "day"}
    with pytest.raises(nfa.NfaError, match="different names"):
        table_of_frame(pandas.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(nfa.NfaError, match="complex"):
        table_of_frame(pandas.DataFrame({"z": [1j, 2.0]}))


def test_sums_by_column():
    table = table_of_frame(frame()[0])
    encoder = TableEncoder.fit(table)
    sums = by_column(encoder, [1.0] * len(encoder.feature_names))
    assert sums == {"size": 2.0, "colour": 3.0, "shop": 2.0, "open": 2.0, "same": 0.0}
    with pytest.raises(nfa.NfaError, match="one an input"):
        by_column(encoder, [1.0])


def test_without_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import nfa\n"
        "try:\n"
        "    import nfa.sklearn\n"
        "except nfa.NfaError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("nfa.sklearn needs scikit-learn 1.6 or later")
    assert 'pip install "neural-feature-ansatz[sklearn]"' in done.stdout
