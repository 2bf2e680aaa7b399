"""What decides a verdict: alignment, basis or ranks; and how often chance alone is beyond the border."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import nfa
from nfa import FeaturePair
from nfa.ansatz.basis_draws import percentile
from nfa.ansatz.forms import haar
from tests.nfa.example_rows import MEASURED

D = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


# ---- percentiles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 9), (9, 5), (16, 20)])
def test_drawn_shares_are_those_of_rotations(shape):
    W, X = normal(*shape), normal(shape[0], shape[0], seed=1)
    pair = FeaturePair(W, X @ X.T)
    drawn = pair.basis_draws(4000)
    U = torch.linalg.svd(W, full_matrices=False).U
    c = U.T @ X @ X.T @ U  # on the range of W
    rotations = haar(400, len(c), torch.Generator().manual_seed(2))
    direct = torch.tensor([FeaturePair(W, U @ Q @ c @ Q.T @ U.T).basis for Q in rotations])
    assert float(drawn.mean()) == pytest.approx(0, abs=4 * pair.basis_std / 60)
    assert float(drawn.std()) == pytest.approx(pair.basis_std, rel=0.1)
    for q in (0.1, 0.5, 0.9):
        assert (direct < drawn.quantile(q)).double().mean() == pytest.approx(q, abs=0.08)


def test_equal_singular_values_share_a_block():
    W = torch.diag(torch.tensor([3.0, 3.0, 2.0, 1.0, 1.0, 1.0], dtype=D))
    X = normal(6, 6, seed=1)
    pair = FeaturePair(W, X @ X.T)
    drawn = pair.basis_draws(4000)
    assert float(drawn.mean()) == pytest.approx(0, abs=4 * pair.basis_std / 60)
    assert float(drawn.std()) == pytest.approx(pair.basis_std, rel=0.1)


def test_groups_are_rotated_apart():
    W, X = normal(5, 4, 6), normal(5, 4, 4, seed=1)
    pair = FeaturePair(W, X @ X.mT)
    drawn = pair.basis_draws(4000)
    assert float(drawn.mean()) == pytest.approx(0, abs=4 * pair.basis_std / 60)
    assert float(drawn.std()) == pytest.approx(pair.basis_std, rel=0.1)


def test_where_nothing_is_drawn():
    wide = FeaturePair(normal(64, 70), factor=normal(64, 3, seed=1))
    assert len(wide.basis_draws(10)) == 0
    assert len(FeaturePair(normal(5, 7), torch.eye(5, dtype=D)).basis_draws(10)) == 0
    assert math.isnan(percentile(0.5, wide.basis_draws(10)))
    assert percentile(0.5, torch.tensor([0.1, 0.5, 0.9, 1.0])) == 37.5


# ---- ranks -------------------------------------------------------------------------------------------------


def test_ranks_of_a_depthwise_map():
    W = normal(6, 1, 9)
    size = W.square().sum((1, 2))
    c = size.argsort().argsort().double() ** 8 + 1  # grows with it, but not along a line
    pair = FeaturePair(W, c[:, None, None])
    assert pair.rank_correlation == pytest.approx(1)
    assert pair.alignment < 0.99
    x = torch.tensor([1.0, 2.0, 2.0, 4.0, 5.0])  # mean ranks of 1, 2.5, 2.5, 4, 5 with 5, 1, 2, 3, 4
    W = x.sqrt()[:, None, None].double()
    pair = FeaturePair(W, torch.tensor([5.0, 1.0, 2.0, 3.0, 4.0], dtype=D)[:, None, None])
    ranks = torch.tensor([1, 2.5, 2.5, 4, 5], dtype=D), torch.tensor([5.0, 1, 2, 3, 4], dtype=D)
    assert pair.rank_correlation == pytest.approx(float(torch.corrcoef(torch.stack(ranks))[0, 1]))
    assert math.isnan(FeaturePair(normal(6, 9), factor=normal(6, 2)).rank_correlation)
    assert math.isnan(FeaturePair(normal(2, 1, 9), normal(2, 1, 1).square()).rank_correlation)


# ---- verdicts ----------------------------------------------------------------------------------------------

WITHIN = replace(MEASURED, alignment=0.05, z=1.0, alignment_stderr=0.001)
CHANCE = ("within null", "alignment", "negligible")
RANKS = {"groups": 65, "alignment_stderr": math.nan}


def within(**changes):
    return replace(WITHIN, **changes)


DECIDED = {
    "alignment": (MEASURED, ("above null", "alignment", "strong")),
    "a weak one": (replace(MEASURED, alignment=0.05, z=9.0), ("above null", "alignment", "negligible")),
    "chance": (within(basis=0.1, basis_z=1.0), CHANCE),
    "basis by z": (within(basis=0.4, basis_z=9.0), ("above null", "basis", "moderate")),
    "basis by draws": (
        within(basis=0.2, basis_z=2.5, basis_percentile=99.5),
        ("above null", "basis", "weak"),
    ),
    "basis within draws": (within(basis=0.4, basis_z=3.5, basis_percentile=98.0), CHANCE),
    "basis within its error": (within(basis=0.4, basis_z=9.0, basis_stderr=0.25), CHANCE),
    "not settled, but above": (
        within(z=2.5, alignment=0.05, alignment_stderr=0.02, basis=0.4, basis_z=9.0),
        ("above null", "basis", "moderate"),
    ),
    "not settled, and below": (
        within(z=-81.0, alignment=-0.3, alignment_stderr=0.2, basis=0.23, basis_z=42.0),
        ("not settled", "alignment", "moderate"),
    ),
    "reversed": (
        replace(MEASURED, alignment=-0.3, z=-9.0, basis=0.9, basis_z=50.0),
        ("below null", "alignment", "moderate"),
    ),
    "ranks": (
        within(alignment=-0.3, z=-4.0, rank_correlation=0.5, **RANKS),
        ("above null", "ranks", "moderate"),
    ),
    "ranks by chance": (
        within(alignment=0.9, z=9.0, rank_correlation=0.2, **RANKS),
        ("within null", "ranks", "weak"),
    ),
    "undefined": (replace(MEASURED, alignment=math.nan, z=math.nan), ("undefined", "", "")),
    "skipped": (replace(MEASURED, status="skipped: no"), ("skipped", "", "")),
}


@pytest.mark.parametrize(("row", "expected"), DECIDED.values(), ids=DECIDED)
def test_the_verdict_says_what_decided_it(row, expected):
    assert (row.verdict, row.decided_by, row.effect) == expected


# ---- how often chance is beyond the border -----------------------------------------------------------------


def mlp(i):
    width = (12, 24, 40, 56, 80)[i % 5]
    layers = [nn.Linear(16, width), nn.ReLU()]
    for _ in range(1 + i // 5):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 6)), (16,)


def convolutional(i):
    width = (16, 24, 32, 48, 64)[i % 5]
    groups = (2, 4)[i // 5]
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.ReLU(),
        nn.Conv2d(width, width, 3, groups=width), nn.ReLU(),
        nn.Conv2d(width, width, 1, groups=groups), nn.ReLU(), nn.Flatten(), nn.Linear(16 * width, 6),
    ), (3, 8, 8)  # fmt: skip


class Transformer(nn.Module):
    def __init__(self, width, blocks):
        super().__init__()
        self.blocks = nn.Sequential(
            *[nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True) for _ in range(blocks)]
        )
        self.head = nn.Linear(width, 6)

    def forward(self, x):
        return self.head(self.blocks(x).mean(1))


def transformer(i):
    width = (16, 24, 32, 40, 48)[i % 5]
    return Transformer(width, 1 + i // 5), (6, width)


def random_rows(family, sizes, seeds):
    """Rows of networks whose weights are random, in any basis alike."""
    for i in range(sizes):
        for seed in range(seeds):
            torch.manual_seed(1000 * i + seed)
            net, shape = family(i)
            for weight in net.parameters():
                if weight.dim() > 1:
                    nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
            report = nfa.audit(net, list(torch.randn(8, 6, *shape)), nulls=0, replicates=1)
            for row in report:
                if row.measured:
                    pair = report.pair(row.layer)
                    yield replace(row, basis_percentile=percentile(pair.basis, pair.basis_draws(200)))


def shares(rows):
    """How many layers there are, and how many beyond 95 % of chance on either side, by statistic."""
    paired = [row for row in rows if math.isnan(row.rank_correlation)]
    dealt = [row for row in rows if not math.isnan(row.rank_correlation)]
    values = {
        "alignment": ([row.z for row in paired], -1.96, 1.96),
        "basis": ([row.basis_percentile for row in paired], 2.5, 97.5),
        "ranks": ([row.rank_correlation * math.sqrt(row.groups - 1) for row in dealt], -1.96, 1.96),
    }
    return {
        name: (sum(map(math.isfinite, found)), sum(v < low for v in found), sum(v > high for v in found))
        for name, (found, low, high) in values.items()
    }


def check_shares(rows):
    for count, below, above in shares(rows).values():
        if count:
            most = 0.025 * count + 3 * math.sqrt(0.025 * count) + 1
            assert below <= most
            assert above <= most
    wrong = sum(row.verdict == "above null" for row in rows)
    assert wrong <= 0.035 * len(rows) + 3 * math.sqrt(0.035 * len(rows)) + 1


@pytest.mark.parametrize("family", [mlp, convolutional, transformer])
def test_chance_is_beyond_the_border_as_often_as_said(family):
    check_shares(list(random_rows(family, 3, 1)))


@pytest.mark.long
def test_chance_in_ninety_random_networks():
    rows = [row for family in (mlp, convolutional, transformer) for row in random_rows(family, 10, 3)]
    assert len(rows) > 400
    check_shares(rows)
