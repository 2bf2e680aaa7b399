"""benchmarks/ridges.py on a tiny size, and what is not met is told."""

import sys

import pytest

from benchmarks import ridges as benchmark


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_small_size(capsys):
    assert benchmark.compare(200, "float32", 1, required=False) == []
    assert "6 ridges" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "size", "met"), [(5.0, 110, True), (7.0, 110, False), (5.0, 130, False)])
def test_what_is_not_met_is_told(monkeypatch, seconds, size, met):
    def found(n, dtype, ridges):
        return {
            "seconds": seconds if ridges > 1 else 1.0,
            "solve_seconds": 1.0,
            "bytes": size if ridges > 1 else 100,
        }

    monkeypatch.setattr(benchmark, "in_fresh_process", found)
    assert (benchmark.compare(10, "float64", 1) == []) == met
