"""What an RFM shared out over processes costs each of them: seconds, peak memory, and digits.

    python benchmarks/sharded.py                   # 20 000 points on 1, 2 and 4 processes
    python benchmarks/sharded.py --n 2000          # a look

Every process has one thread, on CPUs, and speaks gloo. One process alone fits as it does by default; several
hold their rows of the kernel matrix and solve by conjugate gradients. Memory is the growth of the peak
resident set of the process that grew most, beyond imports and data (VmHWM). Required: at most (1/processes +
10 %) of that of one, and the predictions of one up to what the residual of the system lets through. A time is
one of wall clock, and on fewer cores than processes these wait for one another.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import distributed

import nfa
from nfa.device import resident_bytes

SPARE = 0.1  # of the memory of one process, beyond a share of it
SAME = 1e-4  # predictions, relative to the largest: float32 with a residual of 1e-5
WIDTH, OUTPUTS, VALIDATION = 64, 4, 500


def data(n: int) -> tuple[torch.Tensor, ...]:
    """Points, targets, and validation points."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n + VALIDATION, WIDTH, generator=generator)
    Y = torch.stack([X[:, k] * X[:, k + 1] for k in range(OUTPUTS)], 1)
    return X[:n], Y[:n], X[n:]


def work(n: int, rounds: int, folder: str) -> None:
    """One process of those that torchrun's variables describe."""
    torch.set_num_threads(1)
    world = int(os.environ["WORLD_SIZE"])
    if world > 1:
        distributed.init_process_group("gloo")
    X, Y, Z = data(n)
    options = {"rounds": rounds, "bandwidth": 20.0, "distributed": world > 1}
    few = {"solver": "cg"} if world > 1 else {}
    nfa.RFM(**options, **few).fit(X[:50], Y[:50])  # starts what is started once
    before = resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    began = time.perf_counter()
    machine = nfa.RFM(**options, **few).fit(X, Y)
    seconds = time.perf_counter() - began
    grown = resident_bytes(peak=True) - before
    rank = int(os.environ["RANK"])
    told = {"seconds": seconds, "bytes": grown, "history": machine.history}
    Path(folder, f"{rank}.json").write_text(json.dumps(told))
    if rank == 0:
        torch.save(machine.predict(Z), Path(folder, "predictions.pt"))
    if world > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def fit(world: int, n: int, rounds: int, folder: Path) -> tuple[float, float, torch.Tensor]:
    """Seconds, bytes and predictions of so many processes."""
    folder.mkdir()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, __file__, "--n", str(n), "--rounds", str(rounds), "--folder", str(folder)]
    running = [subprocess.Popen(command, env={**os.environ, **place, "RANK": str(r)}) for r in range(world)]
    if sum(process.wait() != 0 for process in running):
        raise SystemExit(f"a process of {world} failed")
    told = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]
    solvers = [f"{row['solver']} {row['iterations']}" for row in told[0]["history"]]
    seconds, peak = max(row["seconds"] for row in told), max(row["bytes"] for row in told)
    print(f"{world:9d}  {seconds:8.1f}  {peak / 2**20:8.0f}  {', '.join(solvers)}", flush=True)
    return seconds, peak, torch.load(folder / "predictions.pt")


def main() -> int:
    """Print the table; 1 where a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=20_000, help="points")
    parser.add_argument("--rounds", type=int, default=1, help="updates of M")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], help="beside one alone")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        work(args.n, args.rounds, args.folder)
        return 0
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print(f"{args.n} points × {WIDTH}, {OUTPUTS} outputs, float32, {args.rounds} update(s) of M")
    print("processes   seconds       MiB  solver and iterations by round")
    missed = []
    with tempfile.TemporaryDirectory() as base:
        _, whole, expected = fit(1, args.n, args.rounds, Path(base, "1"))
        for world in args.processes:
            _, peak, found = fit(world, args.n, args.rounds, Path(base, str(world)))
            error = float((found - expected).abs().max() / expected.abs().max())
            share, most = peak / whole, 1 / world + SPARE
            print(
                f"           memory {share:.2f} of one (at most {most:.2f}); predictions off by {error:.1e}"
            )
            if share > most or error > SAME:
                missed.append(world)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
