"""Errors hold the bias of noisy sensitivities, and random probes are corrected for it."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import nfa
from nfa import FeaturePair
from nfa.ansatz.contradictions import contradiction_sentence, contradictions
from nfa.ansatz.precision import without
from nfa.ansatz.row import AUDIT_COLUMNS, VERDICTS
from nfa.ansatz.words import format_table, summary_sentence
from tests.nfa.example_rows import MEASURED

SAMPLES = 30
SEEDS = 20


@pytest.fixture(scope="module")
def trained():
    """A net that tells which of six products is largest, and its inputs."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(20, 48),
        nn.ReLU(),
        nn.Linear(48, 40),
        nn.ReLU(),
        nn.Linear(40, 32),
        nn.ReLU(),
        nn.Linear(32, 6),
    )
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    x = torch.randn(400, 20)
    y = (x[:, :6] * x[:, 6:12]).argmax(1)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net, x


def measured(report):
    return [row for row in report.rows if row.measured]


def inside(reports, truth):
    """Shares of layers and reports that have the truth within two errors: cosines, alignments."""
    pairs = [(row, truth.row(row.layer)) for report in reports for row in measured(report)]
    return [
        sum(abs(getattr(a, name) - getattr(b, name)) <= 2 * getattr(a, error) for a, b in pairs) / len(pairs)
        for name, error in (("cosine", "stderr"), ("alignment", "alignment_stderr"))
    ]


@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("probes", [2, 4, 8])
def test_two_errors_of_probes_hold_the_exact_value(trained, probes, power):
    net, x = trained
    exact = nfa.audit(net, x[:SAMPLES], power=power, nulls=0)
    reports = [
        nfa.audit(net, x[:SAMPLES], probes=probes, seed=seed, power=power, nulls=0) for seed in range(SEEDS)
    ]
    assert min(inside(reports, exact)) >= 0.9


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_two_errors_of_few_samples_hold_the_value_of_all(trained, power):
    net, x = trained
    exact = nfa.audit(net, x[:200], power=power, nulls=0)
    reports = []
    for seed in range(SEEDS):
        few = x[torch.randperm(200, generator=torch.Generator().manual_seed(seed))[:20]]
        reports.append(nfa.audit(net, few.split(2), power=power, nulls=0))
    assert min(inside(reports, exact)) >= 0.9


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
def test_probes_are_right_on_average(trained, power):
    """So are nulls: the spectrum that is rotated is as noisy as C."""
    net, x = trained
    exact = nfa.audit(net, x[:SAMPLES], power=power)
    reports = [nfa.audit(net, x[:SAMPLES], probes=4, seed=seed, power=power) for seed in range(SEEDS)]
    for row in measured(exact):
        rows = [report.row(row.layer) for report in reports]
        for name, bias in (
            ("cosine", "cosine_bias"), ("alignment", "alignment_bias"), ("null_mean", "null_bias")
        ):  # fmt: skip
            biases = torch.tensor([getattr(report.precision[row.layer], bias) for report in reports])
            left = torch.tensor([getattr(r, name) for r in rows]) - getattr(row, name)
            noise = 3 * float(left.std()) / SEEDS**0.5  # of 27 comparisons
            assert abs(float(left.mean())) < 0.35 * abs(float(biases.mean())) + noise, (row.layer, name)


def test_exact_numbers_stay_those_of_the_samples(trained):
    net, x = trained
    report = nfa.audit(net, x[:16].split(2), drift=True)
    for row in measured(report):
        pair, known = report.pair(row.layer), report.precision[row.layer]
        assert row.cosine == pytest.approx(pair.cosine(0.5), abs=1e-9)
        assert row.alignment == pytest.approx(pair.alignment, abs=1e-9)
        assert row.stderr >= abs(known.cosine_bias)
        assert row.alignment_stderr >= abs(known.alignment_bias)
        assert row.drift == known.drift > 0
        assert math.isnan(known.null_bias)


def test_one_group_has_no_error(trained):
    net, x = trained
    for report in (nfa.audit(net, x[:8]), nfa.audit(net, x[:8], probes=1)):
        for row in measured(report):
            assert math.isnan(row.alignment_stderr)
            assert math.isnan(row.stderr) or row.stderr == report.precision[row.layer].cut
            assert row.verdict != "not settled"


def test_values_at_initialisation_are_corrected_too(trained):
    net, x = trained
    start = nn.Sequential(
        *(type(m)(m.in_features, m.out_features) if isinstance(m, nn.Linear) else m for m in net)
    )
    options = {"probes": 4, "nulls": 0}
    before = nfa.audit(start, x[:SAMPLES], **options)
    report = nfa.audit(net, x[:SAMPLES], initial_state=start.state_dict(), **options)
    for row in measured(report):
        assert row.init_cosine == pytest.approx(before.row(row.layer).cosine, abs=1e-9)
        assert row.init_alignment == pytest.approx(before.row(row.layer).alignment, abs=1e-9)


def of_groups(factor, sizes, **options):
    """A pair of a factor X, and its precision from groups of its columns."""
    torch.manual_seed(0)
    W = torch.randn(6, 9, dtype=torch.float64)
    parts = list(factor.split(sizes, 1))
    sums = [(X @ X.mT)[None] for X in parts]
    return FeaturePair(W, factor @ factor.mT).precision(sums, sizes, **options)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_groups_that_say_the_same_have_no_bias(power):
    X = torch.randn(6, 3, dtype=torch.float64).repeat(1, 4)
    known = of_groups(X, [3, 3, 3, 3], power=power)
    values = (known.cosine, known.alignment, known.cosine_bias, known.alignment_bias)
    assert values == pytest.approx((0, 0, 0, 0), abs=1e-9)


@pytest.mark.parametrize("corrected", [False, True])
def test_groups_that_have_nothing_in_common_are_not_corrected_beyond_reason(corrected):
    """Products of different groups vanish, and a norm of zero would follow."""
    known = of_groups(torch.eye(6, 4, dtype=torch.float64), [2, 2], power=1.0, corrected=corrected)
    assert all(map(math.isfinite, (known.cosine, known.alignment, known.cosine_bias, known.alignment_bias)))
    assert known.alignment >= abs(known.alignment_bias)  # as uncertain as it is large


def test_a_sensitivity_of_one_group_alone():
    X = torch.zeros(6, 4, dtype=torch.float64)
    X[:, 0] = 1
    known = of_groups(X, [2, 2], power=1.0)
    assert math.isnan(known.cosine)
    assert without(known.cosine_bias, 0.5) == 0.5 or -1 <= without(known.cosine_bias, 0.5) <= 1
    assert without(-0.4, 0.9) == 1.0
    assert without(math.nan, 0.9) == 0.9


def test_more_groups_widen_an_error_less():
    torch.manual_seed(1)
    X = torch.randn(6, 24, dtype=torch.float64)
    widths = [of_groups(X, [24 // n] * n, power=1.0, corrected=True).cosine for n in (2, 12)]
    assert 0 < widths[1] < widths[0]


# ---- columns, verdicts, words -----------------------------------------------------------------------------


def test_columns_stand_after_the_cnfc():
    start = AUDIT_COLUMNS.index("cnfc")
    assert AUDIT_COLUMNS[start : start + 3] == ("cnfc", "alignment_stderr", "drift")


@pytest.mark.parametrize(
    ("z", "error", "verdict"),
    [
        (3.0, 0.4, "above null"),
        (3.0, 0.6, "not settled"),
        (1.0, 0.6, "not settled"),
        (-1.0, 0.6, "not settled"),
        (-1.0, 0.4, "within null"),
        (-3.0, 0.6, "not settled"),
        (-3.0, 0.4, "below null"),
        (3.0, math.nan, "above null"),
        (0.0, 0.1, "within null"),
        (math.nan, math.nan, "undefined"),
    ],
)
def test_verdict_is_settled_where_the_error_stays_on_one_side(z, error, verdict):
    row = replace(MEASURED, alignment=0.1 * z, z=z, alignment_stderr=0.1 * error)
    assert row.verdict == verdict
    assert verdict in VERDICTS


def test_alignment_is_shown_with_its_error():
    row = replace(MEASURED, alignment_stderr=0.01234)
    assert "+0.878 ± 0.012  40.2" in format_table([row])
    assert "alignment ± se" in format_table([row])
    assert "alignment ±" not in format_table([MEASURED])
    assert "+0.878  40.2" in format_table([MEASURED])
    unsettled = replace(MEASURED, alignment_stderr=0.9)
    assert "far beyond chance (z > 5) in 1 and not settled (its error reaches across |z| = 2) in 1" in (
        summary_sentence([row, unsettled])
    )


def linear_net(sigma2, sensitivity):
    """A linear net whose first map has these squared singular values, and this sensitivity to each."""
    torch.manual_seed(0)
    r = len(sigma2)
    U, V = (torch.linalg.qr(torch.randn(n, r, dtype=torch.float64)).Q for n in (r, 40))
    net = nn.Sequential(nn.Linear(40, r, bias=False), nn.Linear(r, r, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(U @ torch.diag(torch.tensor(sigma2).double().sqrt()) @ V.mT)
        net[1].weight.copy_(torch.diag(torch.tensor(sensitivity).double().sqrt()) @ U.mT)
    return net


def test_a_verdict_that_the_cosine_contradicts_is_explained():
    net = linear_net([8.28, 2.48, 2.48] + [0.2] * 17, [0.21, 5.65, 5.65] + [0.64] * 17)
    report = nfa.audit(net, torch.randn(8, 40, dtype=torch.float64))
    row = report.rows[0]
    assert row.verdict == "above null"
    assert row.cosine < row.null_mean - 4 * row.null_std
    share = 8.28**2 / (8.28**2 + 2 * 2.48**2 + 17 * 0.2**2)
    sensitivity = 0.21 / ((0.21 + 2 * 5.65 + 17 * 0.64) / 20)
    assert report.pair("0").strongest_direction() == pytest.approx((share, sensitivity), rel=1e-6)
    sentence = contradiction_sentence(report)
    assert sentence.startswith("Verdict and cosine disagree in 0: z is +3.5, the cosine ")
    assert "below its null. 84 % of ‖N‖² lies in the strongest direction of W" in sentence
    assert f"{sensitivity:.2g} times as sensitive" in sentence
    assert str(report).endswith(sentence)


def test_no_contradiction_where_the_error_of_the_cosine_reaches_its_null():
    low = replace(MEASURED, cosine=0.7, null_mean=0.8, null_std=0.01)
    high = replace(MEASURED, alignment=-0.5, z=-9.0, cosine=0.9, null_mean=0.8, null_std=0.01)
    assert contradictions([MEASURED, low, high]) == [low, high]
    assert contradictions([replace(low, stderr=0.06), replace(low, null_std=math.nan)]) == []
    assert contradiction_sentence(nfa.AnsatzReport(rows=[MEASURED])) is None
