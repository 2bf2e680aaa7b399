"""benchmarks/at_scale.py: its rates, and costs that follow from them."""

import json

import pytest

from benchmarks.at_scale import Rates, Size, costs, from_results, main, measured_here

RATES = Rates(1e12, 1e13, 5e12, 8e10, 1e11, "made up")


def test_more_devices_share_the_rows_and_not_the_points():
    one, eight = (costs(Size(n=1_000_000, devices=devices), RATES, 10) for devices in (1, 8))
    assert eight["points and vectors, bytes"] == one["points and vectors, bytes"]
    assert eight["rows of K, bytes"] == pytest.approx(one["rows of K, bytes"] / 8)
    assert eight["AGOP, seconds"] == pytest.approx(one["AGOP, seconds"] / 8)
    assert eight["one product, seconds"] < one["one product, seconds"] / 7
    assert eight["system in 10 iterations, seconds"] == pytest.approx(12 * eight["one product, seconds"])


def test_rows_that_fit_are_kept():
    few = costs(Size(n=20_000), RATES, 10)
    assert few["share of them kept"] == 1
    assert costs(Size(), RATES, 10)["share of them kept"] < 0.01


def test_the_rates_of_a_card(tmp_path):
    rows = [{"what": "copy, bytes read and written", "GB_s": 2000.0}]
    rows += [
        {"what": f"product in {name}, 8192³", "TFLOP_s": rate}
        for name, rate in (("float32", 50.0), ("float64", 30.0))
    ]
    (tmp_path / "gpu.json").write_text(json.dumps({"card": "a card", "parts": {"floors": {"rows": rows}}}))
    rates = from_results(tmp_path / "gpu.json", 8e10, 1e11)
    assert rates == Rates(2e12, 5e13, 3e13, 8e10, 1e11, "measured: a card")


def test_the_rates_of_this_machine():
    rates = measured_here(8e9, 1e9, side=64)
    assert min(rates.bandwidth, rates.float32, rates.float64) > 0


def test_rates_that_are_assumed_are_told_as_such(capsys, monkeypatch):
    given = ["--bandwidth", "3e12", "--float32", "5e13", "--float64", "3e13", "--capacity", "8e10"]
    monkeypatch.setattr("sys.argv", ["at_scale", *given])
    main()
    told = capsys.readouterr().out
    assert told.startswith("assumed, not measured: 3e+12 B/s")
    assert "10000000 points × 64 → 10, 8 devices, each:" in told
