"""The audit: rows, initial values, nulls, errors; anchors that hold by construction."""

import copy
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

import nfa
from nfa import reference
from nfa.ansatz.gather_rows import null_draws
from nfa.ansatz.row import AUDIT_COLUMNS, read_csv, write_csv


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 8), nn.Tanh(), nn.Linear(8, 4)).double()


@pytest.fixture(scope="module")
def trained():
    """A net, its initial state and its data after a few steps."""
    net, x = mlp(), torch.randn(40, 6, dtype=torch.float64)
    initial = copy.deepcopy(net.state_dict())
    y = (x[:, 0] * x[:, 1] > 0).long() + 2 * (x[:, 2] > 0).long()
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net, initial, x


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_rows_equal_the_reference(trained, power):
    net, _, x = trained
    report = nfa.audit(net, x.split(10), power=power)
    assert [row.layer for row in report.rows] == ["0", "2", "4"]
    for row in report.rows:
        module = net.get_submodule(row.layer)
        W = module.weight.detach()[None]
        C = reference.layer_sensitivity(net, x, row.layer)
        N, G = reference.layer_nfm(module), reference.matrix_power(W.mT @ C @ W, power)
        assert row.cosine == pytest.approx(reference.cosine(N, G), abs=1e-8)
        assert row.pearson == pytest.approx(reference.pearson(N, G), abs=1e-8)
        assert (row.alignment, row.z) == pytest.approx(reference.alignment(W, C), abs=1e-7, nan_ok=True)
        assert row.null_mean == pytest.approx(
            float(reference.haar_null(W, C, power, 200, 0).mean()), abs=0.05
        )


@pytest.mark.parametrize("as_report", [False, True])
def test_initial_columns(trained, as_report):
    net, state, x = trained
    start = mlp()
    start.load_state_dict(state)
    before = nfa.audit(start, x)
    report = nfa.audit(net, x, initial_state=before if as_report else state)
    for row, first in zip(report.rows, before.rows, strict=True):
        assert row.init_cosine == pytest.approx(first.cosine)
        assert row.init_alignment == pytest.approx(first.alignment, nan_ok=True)
        W, W0 = net.get_submodule(row.layer).weight.detach(), state[f"{row.layer}.weight"]
        dense = reference.cosine((W.T @ W)[None], (W0.T @ W0)[None])
        assert row.init_nfm_cosine == pytest.approx(dense, abs=1e-9)
        D, C = W - W0, reference.layer_sensitivity(net, x, row.layer)[0]
        assert row.cnfc == pytest.approx(reference.cosine((D.T @ D)[None], (D.T @ C @ D)[None]), abs=1e-8)


def test_a_model_that_cannot_be_copied_needs_a_report():
    net, x = nn.Linear(3, 2), torch.randn(4, 3)
    state = copy.deepcopy(net.state_dict())
    net.kept = 2 * net.weight  # of a graph, which torch does not copy
    with pytest.raises(nfa.NfaError, match=r"cannot be copied .*; pass a report made at the start"):
        nfa.audit(net, x, initial_state=state)
    (row,) = nfa.audit(net, x, initial_state=nfa.audit(net, x)).rows
    assert row.init_nfm_cosine == 1.0


def test_initial_state_of_another_model(trained):
    net, _, x = trained
    with pytest.raises(nfa.NfaError, match="initial_state does not fit"):
        nfa.audit(net, x, initial_state=nn.Linear(3, 3).state_dict())


def test_last_layer_on_raw_logits_is_one_by_construction(trained):
    net, _, x = trained
    row = nfa.audit(net, x, power=1.0).row("4")
    assert row.cosine == pytest.approx(1, abs=1e-12)
    assert math.isnan(row.alignment)


def test_pair_holds_the_true_matrices_also_where_it_was_reduced(trained):
    net, _, x = trained
    report, dense = nfa.audit(net, x), nfa.agop(net, x)
    for name, G in dense.items():
        assert torch.allclose(report.pair(name).agop(), G)
        assert torch.allclose(report.pair(name).nfm(), nfa.neural_feature_matrix(net.get_submodule(name)))


def test_wide_layers_draw_fewer_nulls():
    assert null_draws(nfa.FeaturePair(torch.randn(64, 90), torch.eye(64)), 32, 0.5) == 32
    assert null_draws(nfa.FeaturePair(torch.randn(256, 300), torch.eye(256)), 32, 0.5) == 8
    assert null_draws(nfa.FeaturePair(torch.randn(64, 90), torch.eye(64)), 0, 0.5) == 0


def test_same_seed_same_report(trained):
    net, _, x = trained
    first, second = (nfa.audit(net, x, probes=3, seed=5).rows for _ in range(2))
    assert repr(first) == repr(second)
    assert repr(first) != repr(nfa.audit(net, x, probes=3, seed=6).rows)


def test_unknown_names_and_bad_arguments(trained):
    net, _, x = trained
    report = nfa.audit(net, x)
    with pytest.raises(nfa.NfaError, match="no measured layer '1'"):
        report.pair("1")
    with pytest.raises(nfa.NfaError, match="no layer '1'"):
        report.row("1")
    with pytest.raises(nfa.NfaError, match="power must be a positive"):
        nfa.audit(net, x, power=0)
    with pytest.raises(nfa.NfaError, match="nulls must be a whole number of 0 or more"):
        nfa.audit(net, x, nulls=-1)


def test_batch_of_one_sample_and_one_output():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 1))
    rows = nfa.audit(net, torch.randn(1, 1, 5, 5)).rows
    assert [row.status for row in rows] == ["ok", "trivial"]
    assert 0 <= rows[0].cosine <= 1


def test_csv_round_trip(tmp_path, trained):
    net, _, x = trained
    rows = nfa.audit(net, x).rows
    write_csv(tmp_path / "audit.csv", rows)
    assert (tmp_path / "audit.csv").read_text().splitlines()[0] == ",".join(AUDIT_COLUMNS)
    again = read_csv(tmp_path / "audit.csv")
    assert [row.layer for row in again] == [row.layer for row in rows]
    assert again[0].cosine == pytest.approx(rows[0].cosine)
    assert math.isnan(again[2].alignment)


def test_dead_layer_is_skipped_with_the_reason():
    net = mlp()
    nn.init.zeros_(net[4].weight)
    row = nfa.audit(net, torch.randn(8, 6)).row("0")
    assert row.status.startswith("skipped: no gradient reaches it")
    assert all(math.isnan(v) for v in (row.alignment, row.z, row.cosine, row.pearson, row.null_mean))


def test_library_imports_neither_lightning_nor_the_lab():
    code = (
        "import sys, nfa, nfa.ansatz.words, nfa.page; bad = [m for m in sys.modules if m.split('.')[0] in "
        "('pytorch_lightning', 'lightning', 'hydra', 'wandb', 'models', 'datamodules', 'callbacks')]; "
        "sys.exit(', '.join(bad) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
