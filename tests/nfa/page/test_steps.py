"""Charts of a training step by step."""

import re

from nfa.page.measurement import write_html
from nfa.page.steps import StepCurves, step_charts, thinned


def test_few_points_are_all_drawn_and_marked():
    losses = [(0.0, 4.0), (1.0, 2.0), (2.0, 9.0), (3.0, 1.0)]
    told = StepCurves("Loss", "loss", {"after so many steps": losses}, {"peak": losses[2:3]}, log=True)
    ((chart, caption),) = step_charts([told])
    drawn = [tuple(map(float, p)) for p in re.findall(r"after so many steps\n(\d+): ([\d.]+)<", chart.wide)]
    assert drawn == losses
    assert "peak\n2: 9<" in chart.wide
    assert "loss, log scale" in chart.narrow
    assert caption == ""


def test_of_many_points_the_extremes_and_the_ends_stay():
    values = [1.0] * 20000
    values[777], values[15003] = 50.0, -3.0
    points = list(enumerate(values))
    kept = thinned(points, 1000)
    assert len(kept) <= 1000
    assert {(0, 1.0), (777, 50.0), (15003, -3.0), (19999, 1.0)} <= set(kept)
    assert list(kept) == sorted(kept)


def test_they_stand_on_the_page_with_their_caption(tmp_path):
    told = StepCurves("Loss by step", "loss", {"a": [(0, 1.0), (5, 2.0)]}, rules=[1.5], caption="What it is.")
    write_html(tmp_path / "a.html", title="t", rows=[], steps=[told])
    page = (tmp_path / "a.html").read_text()
    assert page.index("Step by step") < page.index("Loss by step") < page.index("What it is.")
    write_html(tmp_path / "b.html", title="t", rows=[])
    assert "Step by step" not in (tmp_path / "b.html").read_text()
