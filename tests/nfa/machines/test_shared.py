"""Processes that share a system out give the numbers of one alone."""

import signal

import pytest
import torch
from torch import distributed

from nfa import RFM, NfaError
from nfa.kernels import sharded
from tests.processes import run, start
from tests.waiting import HANGS

CASES = {
    "laplace": {"rounds": 2},
    "gaussian, centred, some points": {"kernel": "gaussian", "centering": "output", "agop_samples": 11},
    "bandwidths and ridges": {"rounds": 1, "bandwidth": (5.0, "median"), "ridge": (1e-3, 1e-1)},
    "diagonal": {"rounds": 2, "metric": "diagonal"},
    "weighted": {"rounds": 2},
}
FIT = """
from tests.nfa.machines.test_shared import CASES, data, fit
found = {}
for name in CASES:
    machine = fit(name, solver="cg", distributed=True)
    solvers = [row["solver"] for row in machine.history]
    found[name] = {"M": machine.M, "predictions": machine.predict(data()[2]), "solvers": solvers}
torch.save(found, f"{out}.{rank}")
"""
DIFFERENT = """
X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
for points, targets in ((X[: 50 - rank], X[: 50 - rank, 0]), (X + rank, X[:, 0]), (X, X[:, min(rank, 1)])):
    try:
        nfa.RFM(solver="cg", distributed=True).fit(points, targets)
    except nfa.NfaError as error:
        print(error, file=sys.stderr)
"""


def data():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(131, 4, generator=generator, dtype=torch.float64)
    X[7] = X[93]  # at the same place, in different processes
    Y = torch.stack([X[:, 0] * X[:, 1], X[:, 2].sin()], 1)
    return X[:101], Y[:101], X[101:], Y[101:]


def fit(name, **options):
    weights = data()[0][:, 0].abs() if name == "weighted" else None
    return RFM(**CASES[name], **options).fit(*data(), sample_weight=weights)


@pytest.mark.long
def test_numbers_of_one_and_no_different_data(tmp_path):
    world = 3
    told = run(world, tmp_path, FIT + DIFFERENT)
    for name in CASES:
        one = fit(name)
        for rank in range(world):
            found = torch.load(tmp_path / f"found.{rank}")[name]
            assert set(found["solvers"]) == {"cg"}
            torch.testing.assert_close(found["M"], one.M, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(found["predictions"], one.predict(data()[2]), rtol=1e-6, atol=1e-6)
    for errors in told:
        kinds = [line.split(":")[0] for line in errors.splitlines() if "the processes have" in line]
        assert kinds == [f"the processes have different {what}" for what in ("points", "points", "targets")]


@pytest.mark.long
def test_a_process_that_is_killed_ends_the_others_with_one_sentence(tmp_path):
    code = """
    X = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
    try:
        while True:
            nfa.RFM(rounds=1, solver="cg", distributed=True).fit(X, X[:, 0])
            open(f"{out}.{rank}", "w").close()
    except nfa.errors.ProcessLost as error:
        sys.exit(f"ended: {error}")
    """
    running = start(3, tmp_path, code)
    while not all((tmp_path / f"found.{rank}").exists() for rank in range(3)):
        assert all(process.poll() is None for process in running), running[0].stderr.read()
    running[1].send_signal(signal.SIGKILL)
    for process in (running[0], running[2]):
        _, errors = process.communicate(timeout=HANGS)
        assert process.returncode == 1
        told = [line for line in errors.splitlines() if line.startswith("ended: ")]
        assert len(told) == 1
        assert "lost another one, which ended or cannot be reached" in told[0]
    running[1].communicate()


def test_one_process_has_nobody_to_share_with():
    with pytest.raises(NfaError, match=r"there is none: start the script with torchrun"):
        RFM(distributed=True).fit(*data())


@pytest.fixture
def group_of_one():
    distributed.init_process_group("gloo", store=distributed.HashStore(), world_size=1, rank=0)
    yield
    distributed.destroy_process_group()


def test_rows_that_fit_are_evaluated_once_for_all_ridges_and_outputs(group_of_one, monkeypatch):
    plain, evaluated = sharded.fill, []

    def counted(own, X, **options):
        evaluated.append(len(own))
        return plain(own, X, **options)

    monkeypatch.setattr(sharded, "fill", counted)
    options = {"rounds": 0, "bandwidth": (5.0, 7.0), "ridge": (1e-3, 1e-2, 1e-1), "solver": "cg"}
    shared = RFM(**options, distributed=True).fit(*data())
    assert sum(evaluated) == 2 * 101 + (0 if shared.history[0]["bandwidth"] == 7.0 else 101)
    expected = RFM(**{**options, "solver": "cholesky"}).fit(*data()).predict(data()[2])
    torch.testing.assert_close(shared.predict(data()[2]), expected, rtol=1e-6, atol=1e-6)
