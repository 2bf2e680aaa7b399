"""Columns of a DataFrame: what is a number, what a text, what is refused."""

from datetime import date

import numpy as np
import pytest

from nfa import NfaError

pandas = pytest.importorskip("pandas")

from nfa.inputs.tables.frames import is_frame, table_of_frame


def columns(**values):
    return table_of_frame(pandas.DataFrame(values)).columns


def test_a_frame_is_known_without_pandas():
    assert is_frame(pandas.DataFrame({"a": [1]}))
    assert not is_frame(pandas.Series([1]))
    assert not is_frame({"a": [1]})


@pytest.mark.parametrize(
    "values",
    [
        [1, 2],
        [1.0, 2.0],
        pandas.array([1, 2], dtype="Int64"),
        pandas.Series([1, np.float32(2)], dtype=object),
    ],
    ids=["whole", "floating", "of pandas", "objects"],
)
def test_numbers(values):
    assert columns(a=values)["a"].tolist() == [1.0, 2.0]


def test_gaps_in_numbers():
    for values in (pandas.array([1, None], dtype="Int64"), pandas.Series([1, None], dtype=object)):
        first, gap = columns(a=values)["a"]
        assert first == 1.0
        assert np.isnan(gap)


def test_texts():
    assert columns(a=[True, False])["a"].tolist() == ["True", "False"]
    assert columns(a=pandas.Categorical([3, 4]))["a"].tolist() == ["3", "4"]
    assert columns(a=pandas.Series([1, "x", None], dtype=object))["a"].tolist() == ["1", "x", None]
    assert columns(a=pandas.Series([None, None], dtype=object))["a"].tolist() == [None, None]


def test_dates_are_days():
    dates = pandas.Series([date(2020, 1, 2), None, date(2020, 1, 4)], dtype=object)
    table = table_of_frame(pandas.DataFrame({"a": dates, "b": pandas.to_datetime(dates)}))
    for name in "ab":
        first, gap, last = table.columns[name]
        assert last - first == 2.0
        assert np.isnan(gap)
        assert "dates" in str(table.about[name])


def test_columns_of_one_name_are_refused():
    frame = pandas.DataFrame([[1, 2, 3]], columns=["a", "b", "a"])
    with pytest.raises(NfaError, match="different names in the DataFrame, got two called 'a': rename one"):
        table_of_frame(frame)
    with pytest.raises(NfaError, match="two called '1'"):
        table_of_frame(pandas.DataFrame([[1, 2]], columns=[1, "1"]))


def test_complex_numbers_are_refused():
    with pytest.raises(NfaError, match="column 'a' of the DataFrame holds complex numbers"):
        columns(a=[1j, 2.0])
