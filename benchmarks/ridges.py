"""Six ridges to choose from: a fit with all of them against six fits with one each, in time and peak memory.

Each fit runs in a fresh process, in turns. Required: less than six times the seconds of one, and at most 1.2
times its memory.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import nfa
from nfa.device import resident_bytes

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 3.0, 10.0)
MOST_MEMORY = 1.2  # times that of one ridge
SIZES = ((3000, "float32"), (4000, "float64"))
QUICK = ((400, "float32"),)


def fit(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds, bytes of peak growth and history of a fit of round 0."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(job["n"] + 300, 20, generator=generator, dtype=getattr(torch, job["dtype"]))
    y = X[:, 0] * X[:, 1] + X[:, 2]
    train, validation = (X[:-300], y[:-300]), (X[-300:], y[-300:])
    options = {"ridge": RIDGES[: job["ridges"]], "rounds": 0, "solver": "cholesky"}
    nfa.RFM(**options).fit(X[:50], y[:50], *validation)  # starts the thread pools
    before = resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    start = time.perf_counter()
    machine = nfa.RFM(**options).fit(*train, *validation)
    seconds = time.perf_counter() - start
    told = {name: machine.history[0][name] for name in ("solve_seconds", "ridge", "val_mse")}
    return {"seconds": seconds, "bytes": resident_bytes(peak=True) - before} | told


def in_fresh_process(n: int, dtype: str, ridges: int) -> dict[str, Any]:
    job = json.dumps({"n": n, "dtype": dtype, "ridges": ridges})
    done = subprocess.run([sys.executable, __file__, "--job", job], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the process of {ridges} ridges failed:\n{done.stderr}")
    return json.loads(done.stdout)


def compare(n: int, dtype: str, repeats: int, required: bool = True) -> list[str]:
    """One ridge and six, in turns; what was not met."""
    found: dict[int, list[dict[str, Any]]] = {1: [], len(RIDGES): []}
    for _ in range(repeats):
        for ridges, runs in found.items():
            runs.append(in_fresh_process(n, dtype, ridges))
    one, all_six = (_medians(runs) for runs in found.values())
    time_ratio, memory_ratio = all_six["seconds"] / one["seconds"], all_six["bytes"] / one["bytes"]
    square = n * n * getattr(torch, dtype).itemsize
    print(
        f"{n} points × 20, {dtype}: one ridge {one['seconds']:.2f} s (solve {one['solve_seconds']:.2f} s), "
        f"{len(RIDGES)} ridges {all_six['seconds']:.2f} s (solve {all_six['solve_seconds']:.2f} s) = "
        f"{time_ratio:.2f} × (required < {len(RIDGES)}); peak {one['bytes'] / square:.2f} n² and "
        f"{all_six['bytes'] / square:.2f} n² = {memory_ratio:.2f} × (required ≤ {MOST_MEMORY})",
        flush=True,
    )
    if required and not (time_ratio < len(RIDGES) and memory_ratio <= MOST_MEMORY):
        return [f"{n} points: {time_ratio:.2f} × the time and {memory_ratio:.2f} × the memory of one ridge"]
    return []


def _medians(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in ("seconds", "solve_seconds", "bytes")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small size; nothing is required")
    parser.add_argument("--repeats", type=int, default=3, help="of each fit; the median counts")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(fit(json.loads(arguments.job))))
        return
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads, "
        f"{platform.machine()}"
    )
    sizes = QUICK if arguments.quick else SIZES
    failures = [
        failure for n, dtype in sizes for failure in compare(n, dtype, arguments.repeats, not arguments.quick)
    ]
    if failures:
        sys.exit("not met:\n" + "\n".join(failures))


if __name__ == "__main__":
    main()
