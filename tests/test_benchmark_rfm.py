"""benchmarks/rfm.py on tiny sizes: the comparisons agree, and what is not met is told."""

import json
import sys

import pytest

from benchmarks import rfm as benchmark
from benchmarks.rfm import Case

needs_xrfm = pytest.mark.skipif(not benchmark.installed("xrfm"), reason="xrfm is not installed")
needs_sklearn = pytest.mark.skipif(not benchmark.installed("sklearn"), reason="scikit-learn is not installed")


@needs_xrfm
@pytest.mark.parametrize("case", [Case(150, 12, 2), Case(60, 90, 3), Case(120, 10, 1)], ids=str)
def test_same_error_as_xrfm(case, capsys):
    assert benchmark.compare_fits((case,), repeats=1, speed_required=False) == []
    assert "xrfm l2_high_dim" in capsys.readouterr().out


@needs_xrfm
def test_same_metric_as_xrfm():
    data = benchmark.make_data(Case(150, 12, 2))
    M, peer = benchmark.fit_nfa(data).M, benchmark.fit_xrfm(data, "laplace").M
    assert float((M - peer).norm() / M.norm()) < 2e-3


@needs_xrfm
def test_a_ratio_or_an_error_that_is_not_met_is_told(monkeypatch, capsys):
    (failure,) = benchmark.compare_fits((Case(50, 8, 1, required=1e9),), repeats=1)
    assert "required 1e+09" in failure
    monkeypatch.setattr(benchmark, "SAME_ERROR", -1.0)
    failures = benchmark.compare_fits((Case(50, 8, 1),), repeats=1, speed_required=False)
    assert len(failures) == 2
    assert all("validation error" in failure for failure in failures)


def test_without_peers(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "installed", lambda package: False)
    assert benchmark.compare_fits((Case(50, 8, 1, required=1e9),), repeats=1) == []
    assert benchmark.compare_kernel_ridge(Case(50, 8, 1), 1) == []
    out = capsys.readouterr().out
    assert "xrfm is not installed" in out
    assert "scikit-learn is not installed" in out


@needs_sklearn
def test_round_zero_is_kernel_ridge(monkeypatch, capsys):
    assert benchmark.compare_kernel_ridge(Case(100, 10, 2), 1) == []
    monkeypatch.setattr(benchmark, "SAME_RIDGE", -1.0)
    assert len(benchmark.compare_kernel_ridge(Case(100, 10, 2), 1)) == 2


def test_phases_of_a_history():
    history = [{"solve_seconds": 1.0, "agop_seconds": 2.0}, {"solve_seconds": 3.0}]
    assert benchmark.phases(history) == {"kernel": None, "solve": 4.0, "agop": 2.0}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory(capsys):
    assert benchmark.measure_memory((Case(1000, 10, 1),), required=False) == []
    grown = float(capsys.readouterr().out.rsplit("MiB", 1)[0].split()[-1])
    assert 3 < grown < 300  # K alone is 4 MiB


def fake_process(monkeypatch, **found):
    told = {"bytes": 2**20, "residual": 1e-5, "iterations": 3, "rank": 2, "seconds": 0.1} | found
    monkeypatch.setattr(benchmark, "in_fresh_process", lambda *arguments: told)


def test_requirements_of_memory_and_solver(monkeypatch, capsys):
    fake_process(monkeypatch, bytes=4 * 2.6 * 1000**2)
    assert len(benchmark.measure_memory((Case(1000, 10, 1), Case(1000, 500, 1)))) == 1  # the wide one is told
    fake_process(monkeypatch)
    assert benchmark.solve_large(Case(60_000, 8, 1), Case(150, 8, 1)) == []
    fake_process(monkeypatch, bytes=2**33, residual=1e-3)
    assert len(benchmark.solve_large(Case(60_000, 8, 1), Case(150, 8, 1))) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_job(capsys):
    job = {"task": "large", "n": 400, "d": 8, "outputs": 1, "budget": 2**28}
    benchmark.print_growth(job)
    assert json.loads(capsys.readouterr().out)["residual"] <= benchmark.TOLERANCE


@pytest.mark.parametrize(("failures", "status"), [([], 0), (["slow"], 1)])
def test_status(failures, status, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "compare_fits", lambda *arguments, **options: failures)
    monkeypatch.setattr(benchmark, "compare_kernel_ridge", lambda *arguments: [])
    monkeypatch.setattr(benchmark, "measure_memory", lambda *arguments, **options: [])
    monkeypatch.setattr(sys, "argv", ["rfm.py", "--quick"])
    with pytest.raises(SystemExit) as stop:
        benchmark.main()
    assert stop.value.code == status
    assert ("not met: slow" in capsys.readouterr().out) == bool(failures)
