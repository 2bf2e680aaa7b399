"""The points that an exponent is fitted to, and the chart of them."""

import math

import pytest
import torch

import nfa
from nfa import FeaturePair
from nfa.ansatz.forms import haar
from nfa.ansatz.pictures import layer_pictures
from nfa.ansatz.scatter import scatter_of
from nfa.page.scatter import scatter_chart

D = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def test_points_and_line_are_those_of_the_fit():
    W, X = normal(12, 20), normal(12, 30, seed=1)
    pair = FeaturePair(W, X @ X.T)
    found = scatter_of(pair)
    U, S, _ = torch.linalg.svd(W, full_matrices=False)
    x, y = S**2, (U.T @ X @ X.T @ U).diagonal()
    assert found.amplified.tolist() == pytest.approx((x / x.mean()).tolist())
    assert found.sensitive.tolist() == pytest.approx((y / y.mean()).tolist())
    logs = torch.stack([found.amplified.log(), torch.ones(12, dtype=D)], 1)
    slope, level = torch.linalg.lstsq(logs, found.sensitive.log()[:, None]).solution[:, 0].tolist()
    assert (found.slope, found.level) == pytest.approx((slope, level))
    assert found.alpha == pair.alpha_fit()[0]


def test_the_band_is_what_rotations_give():
    W, X = normal(10, 14), normal(10, 5, seed=1)
    Q = haar(3000, 10, torch.Generator().manual_seed(2))
    drawn = (Q @ X).square().sum(-1)
    expected = float(drawn.std() / drawn.mean())
    assert FeaturePair(W, X @ X.T).direction_std == pytest.approx(expected, rel=0.03)


def test_what_has_no_points():
    assert scatter_of(FeaturePair(normal(1, 5), normal(1, 1).square())) is None
    flat = scatter_of(FeaturePair(torch.eye(4, dtype=D), normal(4, 4) @ normal(4, 4).T))
    assert math.isnan(flat.level)
    assert "fit" not in scatter_chart("l", flat)


def test_every_drawn_layer_has_a_chart(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.Conv2d(6, 6, 3, groups=6), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(96, 300), torch.nn.ReLU(), torch.nn.Linear(300, 3),
    )  # fmt: skip
    report = nfa.audit(net, torch.randn(5, 3, 8, 8))
    for picture in layer_pictures(report, net, power=0.5):
        chart = scatter_chart(picture.layer, picture.scatter)
        assert "fit, α" in chart
        assert "chance" in chart
        assert chart.count("<circle") + chart.count("<path") < 200
    report.to_html(tmp_path / "a.html", model=net)
    assert (tmp_path / "a.html").read_text().count("Sensitivity by direction of") >= 3
