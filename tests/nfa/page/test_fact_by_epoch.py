"""FACT by epoch on the page of a run: where there is any."""

from nfa import AnsatzRow
from nfa.page.charts import history_charts


def rows(**columns):
    return [
        AnsatzRow(layer, "linear", 4, 4, alignment=0.1, z=1.0, cosine=0.9, epoch=epoch, **columns)
        for epoch in (0.0, 1.0)
        for layer in ("first", "second")
    ]


def test_it_is_drawn_with_its_values_where_there_is_any():
    charts = history_charts(rows(fact=0.987, fact_snapshot=0.765))
    assert len(charts) == 4
    assert "first\n1: 0.987<" in charts[2].wide
    assert "second\n0: 0.765<" in charts[3].narrow
    assert "chance" not in charts[2].wide


def test_where_there_is_none_there_are_alignment_and_cosine():
    assert len(history_charts(rows())) == 2
