"""benchmarks/conv_rfm.py on tiny sizes: the comparisons agree, and what is not met is told."""

import sys

import pytest
import torch

from benchmarks import conv_rfm as benchmark
from benchmarks.conv_rfm import Case, Spent
from nfa.kernels.conv import ConvKernel

CASE = Case(12, side=9, points=3, classes=2)


class FakePeer:
    """Answers with nfa's numbers, changed a little, after any number of seconds."""

    versions = "fake 1"

    def __init__(self, seconds, error=0.0):
        self.seconds, self.error, self.closed = seconds, error, False

    def run(self, task, case, x64=False, batch=0):
        X = benchmark.images(case)
        found = 3 * case.kernel.matrix(X) if task == "kernel" else benchmark.nfa_agop(case)
        return Spent(self.seconds, self.seconds), found + self.error * torch.rand(found.shape)

    def close(self):
        self.closed = True


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_plain_kernel_is_that_of_nfa(depth):
    case = Case(5, side=9, channels=2, depth=depth)
    X = benchmark.images(case, torch.float64)
    X[1, :, :6] = 0  # patches that vanish
    X[2, :, 3:] = X[0, :, 3:]  # patches that are shared
    U = ConvKernel(3, depth).patches(X)
    K = ConvKernel(3, depth).matrix(X)
    assert benchmark.difference(benchmark.plain_kernel(U, U, case), K) < 1e-7  # κ₀ has an infinite slope


@pytest.mark.parametrize("forwards", ["each class", "shared"])
def test_autograd_finds_the_same_agop(forwards):
    G = benchmark.autograd_agop(CASE, forwards)
    assert benchmark.difference(G, benchmark.nfa_agop(CASE)) < 1e-10


def test_a_constant_ratio():
    K = torch.rand(4, 4) + 1
    assert benchmark.unevenness(3 * K, K) < 1e-6
    L = K.clone()
    L[0, 1] *= 1.1
    assert benchmark.unevenness(L, K) > 0.05


def test_without_a_peer(capsys):
    assert benchmark.open_peer(None) is None
    assert benchmark.open_peer("/no/such/python") is None
    assert benchmark.compare_kernels(CASE, None, 1) == []
    assert benchmark.compare_agops(CASE, None, 1, speed_required=False) == []
    out = capsys.readouterr().out
    assert "left out: no --peer PYTHON is given" in out
    assert "left out: /no/such/python: " in out


def test_a_peer_without_the_package_is_left_out(tmp_path, capsys):
    (tmp_path / "jax.py").write_text("raise ImportError('no jax here')")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    assert benchmark.open_peer(str(python)) is None
    assert "left out" in capsys.readouterr().out


def test_a_peer_is_asked_and_answers(monkeypatch):
    answers = """
import json, sys, numpy as np
print(json.dumps({"versions": "fake 1"}), flush=True)
for line in sys.stdin:
    job, X = json.loads(line), np.load(sys.argv[1] + "/images.npy")
    assert X.shape == (job["n"], job["side"], job["side"], 3) and X.dtype == (float if job["x64"] else "f4")
    np.save(sys.argv[1] + "/found.npy", X[:, 0, 0])
    print(json.dumps({"wall": 2.0, "cpu": 1.0}), flush=True)
"""
    monkeypatch.setattr(benchmark, "PEER", answers)
    peer = benchmark.Peer(sys.executable)
    try:
        for x64 in (False, True):
            spent, found = peer.run("kernel", CASE, x64=x64)
            assert spent == Spent(2.0, 1.0)
            assert torch.equal(found, benchmark.images(CASE)[:, :, 0, 0].to(found))
    finally:
        peer.close()


def test_requirements_of_speed_and_agreement(monkeypatch, capsys):
    assert benchmark.compare_kernels(Case(20, side=9), FakePeer(1e9), 1) == []
    assert len(benchmark.compare_kernels(Case(20, side=9), FakePeer(0.0), 1)) == 1
    failures = benchmark.compare_kernels(Case(10, side=9), FakePeer(1e9, error=1.0), 1)
    assert len(failures) == 1
    assert "constant ratio" in failures[0]
    monkeypatch.setattr(benchmark, "AGOP_FASTER", 0.0)
    monkeypatch.setattr(benchmark, "EXACT", CASE)
    assert benchmark.compare_agops(CASE, FakePeer(1.0), 1) == []
    (failure,) = benchmark.compare_agops(CASE, FakePeer(1.0, error=1.0), 1)
    assert "neural-tangents in float64" in failure
    monkeypatch.setattr(benchmark, "AGOP_FASTER", 1e9)
    (failure,) = benchmark.compare_agops(CASE, FakePeer(1.0), 1)
    assert "times as fast as published" in failure
    monkeypatch.setattr(benchmark, "SAME_AGOP", -1.0)
    assert len(benchmark.compare_agops(CASE, None, 1)) == 2  # both routes of autograd


def test_slow_routes_are_scaled_to_all_points(monkeypatch, capsys):
    case = Case(8, side=8, points=8, classes=2)
    monkeypatch.setattr(benchmark, "EXACT", CASE)
    assert benchmark.compare_agops(case, FakePeer(1.0), 1, speed_required=False) == []
    (row,) = (
        line for line in capsys.readouterr().out.splitlines() if "class by class" in line and "jit" in line
    )
    assert row.split("class by class")[1].split()[:2] == ["2.000", "2.000"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory():
    grown = benchmark.in_fresh_process(Case(100, side=16, depth=1), 1)["bytes"]
    assert 2**20 < grown < 2**27


def test_requirement_of_memory(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "in_fresh_process", lambda case, threads: {"bytes": 2**30})
    assert len(benchmark.measure_memory((CASE,))) == 1
    assert benchmark.measure_memory((CASE,), required=False) == []
    monkeypatch.setattr(benchmark, "in_fresh_process", lambda case, threads: {"bytes": 2**10})
    assert benchmark.measure_memory((CASE,)) == []


def test_phases_of_a_fit(capsys):
    assert benchmark.split_fit(20, 1, 8) == []
    out = capsys.readouterr().out
    assert all(f"{phase} 0." in out for phase in benchmark.PHASES)
    history = [{"solve_seconds": 1.0, "agop_seconds": 2.0}, {"solve_seconds": 3.0}]
    assert benchmark.phases(history) == {"kernel": 0, "solve": 4.0, "predict": 0, "agop": 2.0}


@pytest.mark.parametrize(("failures", "status"), [([], 0), (["slow"], 1)])
def test_status(failures, status, monkeypatch, capsys):
    peer = FakePeer(1.0)
    monkeypatch.setattr(benchmark, "open_peer", lambda python: peer)
    monkeypatch.setattr(benchmark, "compare_kernels", lambda *arguments: failures)
    monkeypatch.setattr(benchmark, "compare_agops", lambda *arguments: [])
    monkeypatch.setattr(benchmark, "measure_memory", lambda *arguments, **options: [])
    monkeypatch.setattr(benchmark, "split_fit", lambda *arguments: [])
    monkeypatch.setattr(sys, "argv", ["conv_rfm.py", "--quick", "--threads", str(torch.get_num_threads())])
    with pytest.raises(SystemExit) as stop:
        benchmark.main()
    assert stop.value.code == status
    assert ("not met: slow" in capsys.readouterr().out) == bool(failures)
    assert peer.closed
