"""The few curves of a network."""

import math
from dataclasses import replace

from nfa.ansatz.curves import metrics_of, summary_metrics
from nfa.ansatz.row import AnsatzRow

ROW = AnsatzRow("conv1", "conv2d", 27, 16, alignment=0.5, z=9.0, cosine=0.9)
UNMEASURED = [
    replace(ROW, layer="head", status="trivial", cosine=1.0),
    replace(ROW, layer="rnn", status="skipped: fused"),
]


def test_metrics_are_those_of_measured_layers():
    expected = {"nfa/alignment/conv1": 0.5, "nfa/z/conv1": 9.0, "nfa/cosine/conv1": 0.9}
    assert metrics_of([ROW, *UNMEASURED]) == expected


def test_a_network_of_one_layer_has_no_spread():
    expected = {"nfa/alignment/median": 0.5, "nfa/cosine/median": 0.9, "nfa/above_chance/all": 1.0}
    assert summary_metrics([ROW, *UNMEASURED]) == expected
    assert summary_metrics(UNMEASURED) == {}


def test_curves_of_all_layers_and_of_groups():
    first = replace(ROW, alignment=0.1, z=1.0, alignment_stderr=0.001)
    stage = [
        replace(first, layer="layer1.0.conv1", alignment=0.3, z=9.0),
        replace(first, layer="layer1.1.conv1", alignment=0.4, z=0.5),
        replace(first, layer="layer1.2.conv1", alignment=math.nan, z=math.nan, cosine=0.6),
    ]
    found = summary_metrics([first, *stage, *UNMEASURED])
    assert found == {
        "nfa/alignment/median": 0.3, "nfa/alignment/minimum": 0.1, "nfa/alignment/maximum": 0.4,
        "nfa/cosine/median": 0.9, "nfa/cosine/minimum": 0.6, "nfa/cosine/maximum": 0.9,
        "nfa/above_chance/all": 1 / 3,
        "nfa/alignment/conv1": 0.1,
        "nfa/alignment/layer1 median": 0.35,
        "nfa/alignment/layer1 minimum": 0.3,
        "nfa/alignment/layer1 maximum": 0.4,
        "nfa/above_chance/layer1": 0.5,
    }  # fmt: skip


def test_a_layer_is_not_taken_for_a_number_of_all():
    found = summary_metrics([replace(ROW, layer="median", alignment=0.1), replace(ROW, layer="fc")])
    assert (found["nfa/alignment/median"], found["nfa/alignment/median_"]) == (0.3, 0.1)
