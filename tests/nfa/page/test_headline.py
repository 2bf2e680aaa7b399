"""The score of a run and what it cost, at the top of its page."""

import math

import pytest

from nfa.page import write_html
from nfa.page.headline import audit_headline, duration, monitor_headline, run_headline
from tests.nfa.example_rows import MEASURED

RUN = {"test/accuracy": 0.97772, "test/loss": 0.1, "epochs": 4, "fit_seconds": 10.99, "ansatz_seconds": 5.5}


def test_a_run_is_told_by_score_training_and_measuring():
    assert run_headline(RUN, 5) == {
        "test accuracy": "0.9777",
        "training": "11 s, 4 epochs",
        "measuring": "5.5 s, 50 % of training, 5 measurements",
    }


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"test/accuracy": math.nan}, "test accuracy"),
        ({"fit_seconds": 0.0}, "training"),
        ({"ansatz_seconds": 0.0}, "measuring"),
    ],
)
def test_what_is_unknown_is_left_out(changes, absent):
    told = run_headline({**RUN, **changes}, 1)
    assert absent not in told
    assert "nan" not in str(told)


def test_errors_of_a_regression_are_a_score():
    assert run_headline({"test/mse": 0.123456}, 0) == {"test error (mse)": "0.1235"}


def test_an_audit_and_a_monitor_tell_what_measuring_took():
    meta = {"samples": 64, "sweep_seconds": 3.21, "statistics_seconds": 0.5}
    assert audit_headline(meta) == {"measuring": "3.21 s, 64 samples", "statistics": "0.5 s"}
    assert audit_headline({}) == {}
    assert monitor_headline(2.0, 1) == {"measuring": "2 s, 1 measurement"}


@pytest.mark.parametrize(("seconds", "words"), [(0.0123, "0.0123 s"), (300, "5 min"), (9000, "2.5 h")])
def test_durations_have_three_digits(seconds, words):
    assert duration(seconds) == words


def test_it_stands_before_the_charts(tmp_path):
    write_html(tmp_path / "a.html", title="T", rows=[MEASURED], headline=run_headline(RUN, 5))
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert 0 < text.index("test accuracy") < text.index("50 % of training") < text.index("By depth")
