"""What a convolutional RFM costs: against neural-tangents, against automatic differentiation, and in memory.

    python benchmarks/conv_rfm.py                    # about a minute
    python benchmarks/conv_rfm.py --peer PYTHON      # beside neural-tangents, about two minutes
    python benchmarks/conv_rfm.py --quick            # small sizes, ten seconds: agreement alone is required

PYTHON is the interpreter of an environment of its own, for neural-tangents needs an old jax:

    python -m venv peer
    peer/bin/pip install jax==0.4.25 jaxlib==0.4.25 neural-tangents==0.6.5 "numpy<2" "scipy<1.13"

Required, each printed in its row, status 1 where one is not met:

* a kernel matrix at least 2 times as fast as by neural-tangents, in float32, and the same but for a factor;
* a patch AGOP at least 30 times as fast as by the published route (neural-tangents, each class differentiated
  apart for all points together, not jitted, NaN made zero), and the same as by autograd and, in float64, by
  neural-tangents; faster forms of automatic differentiation are told beside it;
* a kernel matrix within 3 times the memory of itself and of the patches.

Times are medians of repeats taken in turns, all on one thread (``--threads``): a ratio is one of CPU seconds,
which other work on the machine hardly changes as long as no thread waits for another; wall seconds stand
beside. Of routes that take points or classes one by one some are timed, and scaled to all.
Memory grows by buffers for each thread, which weigh where there are few images: the first
matrix is measured on two threads too, where nothing is required. A peer that is not given, or lacks the
package, is left out, with a line that says so.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nfa.device import resident_bytes
from nfa.kernels.conv import ConvKernel
from nfa.machines.conv_rfm import ConvRFM
from nfa.machines.patch_agop import patch_agop

KERNEL_FASTER, AGOP_FASTER = 2.0, 30.0
SAME_KERNEL = 1e-4  # entries, relative to their own size, but for one factor, in float32
SAME_AGOP = 1e-6  # relative to the norm, in float64
MOST_MEMORY = 3.0  # of the kernel matrix and the patches
PARALLEL = 1e-14  # of 1 - ρ²: the patches are parallel, in float64
FEW = 4  # points of the slow routes, which take them one by one; their seconds are scaled to all points
FEW_CLASSES = 2  # of the published route, which takes all points together
PHASES = ("kernel", "solve", "predict", "agop")


@dataclass(frozen=True)
class Case:
    """Images of a kernel matrix, or centers, points and classes of an AGOP; patches are 3 × 3."""

    n: int
    side: int = 32
    channels: int = 3
    depth: int = 3
    points: int = 20
    classes: int = 10

    def __str__(self) -> str:
        return f"{self.n} images {self.channels} × {self.side} × {self.side}, depth {self.depth}"

    @property
    def kernel(self) -> ConvKernel:
        """The kernel that is compared."""
        return ConvKernel(3, self.depth)


CASE = Case(200), Case(100)  # of the kernel, of the AGOP
QUICK = Case(40, side=16), Case(30, side=16, points=3, classes=4)
EXACT = Case(30, side=16, points=3, classes=4)  # where neural-tangents is asked for float64
MEMORY = (Case(200), Case(1000, depth=1), Case(2000, side=16, depth=1))
MEMORY_QUICK = (Case(200, depth=1),)


def images(case: Case, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(case.n, case.channels, case.side, case.side, generator=_generator()).to(dtype)


def coefficients(case: Case) -> Tensor:
    return torch.randn(case.n, case.classes, generator=_generator(), dtype=torch.float64)


def smooth_images(n: int, side: int = 32) -> tuple[Tensor, Tensor]:
    """Blurred noise in three channels, as like as photographs are, and its ten classes."""
    generator = _generator()
    coarse = torch.randn(n, 3, side // 4, side // 4, generator=generator)
    X = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    X = 0.5 + 0.2 * X + 0.05 * torch.randn(X.shape, generator=generator)
    return X.clamp(0, 1), coarse.flatten(1)[:, :10].argmax(1)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# ---- contenders -------------------------------------------------------------------------------------------


def nfa_agop(case: Case, dtype: torch.dtype = torch.float64) -> Tensor:
    """All classes in one sweep; the points are the first centers."""
    X, a = images(case, dtype), coefficients(case).to(dtype)
    same = torch.arange(case.points)
    return patch_agop(case.kernel, X[: case.points], X, a, same=same, dtype=dtype)


def autograd_agop(case: Case, forwards: str = "each class") -> Tensor:
    """AGOP by automatic differentiation: the derivative of one class after the other, NaN made zero.

    Patches are variables of their own. One point is taken at a time, which the cache of a CPU likes better
    than many. With ``forwards="shared"`` the classes share one forward.
    """
    X, a = images(case, torch.float64), coefficients(case)
    patches = case.kernel.patches(X)  # (n, h, w, D)
    G = torch.zeros(patches.shape[-1], patches.shape[-1], dtype=torch.float64)
    for i in range(case.points):
        u = patches[i : i + 1].clone().requires_grad_()
        k = plain_kernel(u, patches, case) if forwards == "shared" else None
        for c in range(case.classes):
            values = plain_kernel(u, patches, case) if k is None else k
            keep = k is not None and c + 1 < case.classes
            (r,) = torch.autograd.grad(values[0] @ a[:, c], u, retain_graph=keep)
            r = r.nan_to_num(0.0).flatten(0, 2)
            G += r.mT @ r
    return G / case.points


def plain_kernel(u: Tensor, v: Tensor, case: Case) -> Tensor:
    """K (m, n) from patches u (m, h, w, D) and v (n, h, w, D), line by line, for autograd."""
    xx = (u * u).sum(-1)[:, None] / case.channels
    zz = (v * v).sum(-1)[None] / case.channels
    k = torch.einsum("mhwd,nhwd->mnhw", u, v) / case.channels
    theta = k
    for layer in range(case.depth):
        if layer:
            k, theta, xx, zz = (_window_sums(A) for A in (k, theta, xx, zz))
            theta = theta + k
        k, theta = _relu(k, theta, xx, zz)
    return (k + theta).mean((2, 3))


def _relu(k: Tensor, theta: Tensor, xx: Tensor, zz: Tensor) -> tuple[Tensor, Tensor]:
    """Values and tangents behind a ReLU; the slope of κ₀ counts as 0 where patches are parallel or vanish."""
    product = xx * zz
    size = torch.where(product > 0, product, 1).sqrt()
    rho = k / size
    end = 1 - rho.detach() ** 2 <= PARALLEL
    inner = torch.where(end, 0.0, rho)  # no infinite slope, not even times zero
    angle = torch.pi - torch.acos(inner)
    positive = (rho.detach() > 0).to(k)
    kappa0 = torch.where(end, positive, angle / torch.pi)
    kappa1 = torch.where(end, positive * rho, ((1 - inner**2).sqrt() + angle * inner) / torch.pi)
    return torch.where(product > 0, size * kappa1, k / 2), theta * kappa0


def _window_sums(A: Tensor) -> Tensor:
    return F.avg_pool2d(A.flatten(0, 1)[:, None], 3, 1, divisor_override=1)[:, 0].unflatten(0, A.shape[:2])


# ---- the peer, a process of its own -----------------------------------------------------------------------

PEER = r"""
import json, os, sys, time
folder, threads = sys.argv[1], int(sys.argv[2])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
from importlib.metadata import version
import jax, numpy as np
from jax import numpy as jnp
from neural_tangents import stax

def network(depth, first):
    layers = []
    for i in range(depth):
        strides = (first, first) if i == 0 else None
        layers += [stax.Conv(1, (3, 3), strides, "VALID", W_std=3.0, b_std=None, parameterization="ntk"),
                   stax.ABRelu(0.0, 2**0.5)]
    return stax.serial(*layers, stax.Flatten(), stax.Dense(1, 1.0, b_std=None))[2]

held = {}

def kernel(job):
    X, n, size = np.load(folder + "/images.npy"), job["n"], job["batch"]
    if ("kernel", job["depth"]) not in held:
        k = network(job["depth"], 1)
        held["kernel", job["depth"]] = jax.jit(lambda x, z: k(x, z, "ntk"))
    f, K = held["kernel", job["depth"]], np.zeros((n, n), X.dtype)
    for i in range(0, n, size):
        for j in range(i, n, size):
            K[i:i + size, j:j + size] = np.asarray(f(X[i:i + size], X[j:j + size]))
            K[j:j + size, i:i + size] = K[i:i + size, j:j + size].T
    return K

def agop(job):
    X, a = np.load(folder + "/images.npy"), np.load(folder + "/coefficients.npy")
    if not job["x64"]:
        X, a = X.astype(np.float32), a.astype(np.float32)
    P = np.lib.stride_tricks.sliding_window_view(X, (3, 3), axis=(1, 2))  # n, h, w, c, 3, 3
    n, h, w, c = P.shape[:4]
    E = np.ascontiguousarray(P.transpose(0, 1, 4, 2, 5, 3)).reshape(n, 3 * h, 3 * w, c)  # side by side
    if ("agop", job["depth"]) not in held:
        k = network(job["depth"], 3)
        held["agop", job["depth"]] = jax.jit(jax.grad(lambda x, z, ac: jnp.sum(k(x, z, "ntk")[0] * ac)))
    f, G = held["agop", job["depth"]], 0
    if job["task"] == "published":  # as its code has it: all points together, class by class, not jitted
        k = network(job["depth"], 3)
        for column in a.T:
            at = jax.vmap(jax.grad(lambda x: (column @ k(E, x, "ntk")).squeeze()))
            g = np.asarray(jnp.nan_to_num(at(jnp.array(E[:job["points"], None]))))
            g = g.reshape(-1, h, 3, w, 3, c).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 9 * c)
            G = G + g.T @ g
        return G / job["points"]
    for i in range(job["points"]):
        for column in a.T:
            g = np.nan_to_num(np.asarray(f(E[i:i + 1], E, column)))
            r = g.reshape(h, 3, w, 3, c).transpose(0, 2, 4, 1, 3).reshape(h * w, 9 * c)
            G = G + r.T @ r
    return G / job["points"]

versions = ", ".join(f"{name} {version(name)}" for name in ("neural-tangents", "jax"))
print(json.dumps({"versions": versions}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if jax.config.jax_enable_x64 != job["x64"]:
        jax.config.update("jax_enable_x64", job["x64"])
        held.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    found = {"kernel": kernel, "agop": agop, "published": agop}[job["task"]](job)
    told = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    np.save(folder + "/found.npy", found)
    print(json.dumps(told), flush=True)
"""


@dataclass(frozen=True)
class Spent:
    """Seconds of a run: on the clock, and of all threads together."""

    wall: float
    cpu: float


class Peer:
    """neural-tangents under another interpreter: jobs go in and answers come out, each a line of JSON."""

    def __init__(self, python: str):
        self._last: list[Any] = []
        environment = {"JAX_PLATFORMS": "cpu"} | os.environ
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._errors = stack.enter_context((self._folder / "errors").open("w+"))
            command = [python, "-c", PEER, str(self._folder), str(torch.get_num_threads())]
            process = subprocess.Popen(command, env=environment, stderr=self._errors, **pipes)
            self._process = stack.enter_context(process)
            self.versions = self._answer()["versions"]
            self._open = stack.pop_all()

    def close(self) -> None:
        """End the process."""
        self._open.close()

    def run(self, task: str, case: Case, x64: bool = False, batch: int = 0) -> tuple[Spent, Tensor]:
        """What a job took, and what it found."""
        if self._last != [replace(case, points=0), x64]:
            X = images(case, torch.float64 if x64 else torch.float32).permute(0, 2, 3, 1)
            np.save(self._path("images"), X.contiguous().numpy())
            np.save(self._path("coefficients"), coefficients(case).numpy())
            self._last = [replace(case, points=0), x64]
        job = asdict(case) | {"task": task, "x64": x64, "batch": batch}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        spent = Spent(**self._answer())
        return spent, torch.from_numpy(np.load(self._path("found")))

    def _path(self, name: str) -> str:
        return str(self._folder / f"{name}.npy")

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise PeerError(self._errors.read().strip().rsplit("\n", 1)[-1] or "it ended without a word")
        return json.loads(line)


class PeerError(Exception):
    """The peer cannot be asked."""


def open_peer(python: str | None) -> Peer | None:
    """The peer, or None and a line that says why."""
    why = "no --peer PYTHON is given"
    if python is not None:
        try:
            return Peer(python)
        except (PeerError, OSError) as error:
            why = f"{python}: {error}"
    print(f"neural-tangents is left out: {why}")
    return None


# ---- measuring --------------------------------------------------------------------------------------------

Run = Callable[[], tuple[Spent, Any]]


def timed(work: Callable[[], Any]) -> Run:
    """Of work in this process."""

    def run() -> tuple[Spent, Any]:
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        return Spent(time.perf_counter() - wall, time.process_time() - cpu), found

    return run


def interleaved(runs: dict[str, Run], repeats: int) -> dict[str, tuple[Spent, Any]]:
    """Median seconds and last result of each, taken in turns."""
    spent: dict[str, list[Spent]] = {name: [] for name in runs}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            told, results[name] = run()
            spent[name].append(told)
    return {name: (_median(spent[name]), results[name]) for name in runs}


def _median(spent: list[Spent]) -> Spent:
    return Spent(statistics.median(s.wall for s in spent), statistics.median(s.cpu for s in spent))


def print_row(name: str, spent: Spent, ours: Spent | None = None, note: str = "") -> None:
    ratios = "" if ours is None else f"{spent.cpu / ours.cpu:8.1f}{spent.wall / ours.wall:8.1f}"
    print(f"  {name:<42}{spent.cpu:9.3f}{spent.wall:9.3f}{ratios:<16}   {note}".rstrip(), flush=True)


def print_header() -> None:
    print(f"  {'':<42}{'CPU s':>9}{'wall s':>9}{'× nfa: CPU':>12}{'wall':>5}")


def unevenness(K: Tensor, L: Tensor) -> float:
    """How far K/L is from one factor, relative to it."""
    ratio = K.double() / L.double()
    return float((ratio / ratio.mean() - 1).abs().max())


def difference(A: Tensor, B: Tensor) -> float:
    return float((A.double() - B.double()).norm() / B.double().norm())


# ---- claims -----------------------------------------------------------------------------------------------


def compare_kernels(case: Case, peer: Peer | None, repeats: int, speed_required: bool = True) -> list[str]:
    """The kernel matrix against neural-tangents, in blocks of the upper triangle; what was not met."""
    print(f"\nKernel matrix of {case}, float32")
    X, failures = images(case), []
    runs = {"nfa": timed(lambda: case.kernel.matrix(X))}
    if peer is not None:
        for batch in (size for size in (10, 20, 50) if case.n % size == 0):
            name = f"neural-tangents, jitted, blocks of {batch}"
            runs[name] = lambda batch=batch: peer.run("kernel", case, batch=batch)
    for run in runs.values():
        run()
    found = interleaved(runs, repeats)
    ours, K = found.pop("nfa")
    exact = case.kernel.matrix(X.double())
    print_header()
    print_row("nfa", ours, note=f"{unevenness(K, exact):.0e} from nfa in float64")
    for name, (spent, L) in found.items():
        apart = unevenness(L, K)
        print_row(name, spent, ours, f"{apart:.0e} from a constant ratio (required ≤ {SAME_KERNEL:.0e})")
        if not apart <= SAME_KERNEL:
            failures.append(f"kernel: {apart:.1e} from a constant ratio to {name}")
    if found and speed_required:
        ratio = min(spent.cpu for spent, _ in found.values()) / ours.cpu
        print(f"  fastest neural-tangents / nfa: {ratio:.2f} (required ≥ {KERNEL_FASTER:g})")
        if not ratio >= KERNEL_FASTER:
            failures.append(f"kernel: {ratio:.2f} times as fast as neural-tangents, not {KERNEL_FASTER:g}")
    return failures


def compare_agops(case: Case, peer: Peer | None, repeats: int, speed_required: bool = True) -> list[str]:
    """The patch AGOP against automatic differentiation class by class; what was not met."""
    few = replace(case, points=min(FEW, case.points))
    fewer = replace(case, classes=min(FEW_CLASSES, case.classes))
    exact, published = "nfa (float64)", "published route (vmap of grad, not jitted)"
    work: dict[str, tuple[Run, Case]] = {
        exact: (timed(lambda: nfa_agop(case)), case),
        "nfa, float32": (timed(lambda: nfa_agop(case, torch.float32)), case),
        "autograd, class by class (float64)": (timed(lambda: autograd_agop(few)), few),
        "autograd, one forward for all classes": (timed(lambda: autograd_agop(few, "shared")), few),
    }
    if peer is not None:
        work[published] = (lambda: peer.run("published", fewer), fewer)
        work["neural-tangents, jitted, class by class"] = (lambda: peer.run("agop", few), few)
        peer.run("published", replace(fewer, classes=1))  # both compile what they will
        peer.run("agop", replace(few, points=1))
    print(
        f"\nPatch AGOP of {case.points} images and {case.classes} classes; centers: {case}\n"
        f"Slow routes: seconds of {few.points} images, or (published) {fewer.classes} classes, in proportion"
    )
    nfa_agop(case)
    found = interleaved({name: run for name, (run, _) in work.items()}, repeats)
    ours, failures, ratios = found[exact][0], [], {}
    truth = {part: nfa_agop(part) for part in (case, few, fewer)}
    print_header()
    for name, (spent, G) in found.items():
        part = work[name][1]
        times = case.points * case.classes / (part.points * part.classes)
        whole = Spent(spent.wall * times, spent.cpu * times)
        ratios[name], apart = whole.cpu / ours.cpu, difference(G, truth[part])
        bound = f" (required ≤ {SAME_AGOP:.0e})" if name.startswith("autograd") else " (float32)"
        if name == exact:
            print_row(name, whole)
            continue
        print_row(name, whole, ours, f"{apart:.0e} apart{bound}")
        if name.startswith("autograd") and not apart <= SAME_AGOP:
            failures.append(f"AGOP: {apart:.1e} from {name}")
    if speed_required and published in ratios:
        print(f"  published route / nfa: {ratios[published]:.1f} (required ≥ {AGOP_FASTER:g})")
        if not ratios[published] >= AGOP_FASTER:
            failures.append(f"AGOP: {ratios[published]:.1f} times as fast as published, not {AGOP_FASTER:g}")
    return failures + ([] if peer is None else _agree_exactly(EXACT, peer))


def _agree_exactly(case: Case, peer: Peer) -> list[str]:
    _, G = peer.run("agop", case, x64=True)
    apart = difference(G, nfa_agop(case))
    print(
        f"  neural-tangents in float64, {case.points} points, {case.classes} classes, {case}: "
        f"{apart:.0e} apart (required ≤ {SAME_AGOP:.0e})"
    )
    return [] if apart <= SAME_AGOP else [f"AGOP: {apart:.1e} from neural-tangents in float64"]


def measure_memory(cases: tuple[Case, ...], threads: int = 1, required: bool = True) -> list[str]:
    """Peak memory of the kernel matrix against what it cannot do without."""
    print(
        "\nPeak memory of a kernel matrix beyond the images, float32: growth of the peak resident set of a "
        "fresh process\n(VmHWM, reset when the images were made and a tiny matrix had started the thread "
        f"pools), over matrix and patches; threads: {threads}"
    )
    failures = []
    for case in cases:
        found = in_fresh_process(case, threads)
        grown = found["bytes"]
        h, w = case.kernel.shape(torch.empty(1, case.channels, case.side, case.side)).maps[0]
        least = 4 * case.n * (case.n + h * w * 9 * case.channels)
        bound = f"   (required ≤ {MOST_MEMORY:g})" if required else ""
        print(
            f"  {case!s:<34}{grown / 2**20:7.0f} MiB / {least / 2**20:4.0f} MiB = {grown / least:.2f}{bound}",
            flush=True,
        )
        if required and not grown <= MOST_MEMORY * least:
            failures.append(f"memory: {grown / least:.2f} times matrix and patches of {case}")
    return failures


def split_fit(n: int, rounds: int = 2, side: int = 32) -> list[str]:
    """Where the time of one fit goes; nothing is required."""
    X, y = smooth_images(n, side)
    few = max(n // 10, 1)
    machine = ConvRFM(rounds=rounds)
    spent, _ = timed(lambda: machine.fit(X, y, *smooth_images(few, side)))()
    print(
        f"\nA fit of ConvRFM: {n} images 3 × {side} × {side}, 10 classes, {few} validation images, patch 3, "
        f"depth 3, {rounds} updates of M, AGOP of 20 images\n"
        f"  {spent.cpu:.2f} CPU s, {spent.wall:.2f} wall s; wall s by phase: "
        + "  ".join(f"{phase} {seconds:.2f}" for phase, seconds in phases(machine.history).items())
    )
    return []


def phases(history: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of all rounds by phase."""
    return {phase: sum(row.get(f"{phase}_seconds", 0.0) for row in history) for phase in PHASES}


# ---- in a fresh process -----------------------------------------------------------------------------------


def in_fresh_process(case: Case, threads: int) -> dict[str, Any]:
    """What `print_growth` prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--threads", str(threads), "--job", json.dumps(asdict(case))],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the process that measures memory failed:\n{done.stderr}")
    return json.loads(done.stdout)


def print_growth(case: Case) -> None:
    """Compute one matrix after a tiny one, and print by how many bytes the peak grew."""
    case.kernel.matrix(images(Case(8, side=16)))
    X = images(case)
    before = resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    case.kernel.matrix(X)
    print(json.dumps({"bytes": resident_bytes(peak=True) - before}))


# ---- command line -----------------------------------------------------------------------------------------


def compare_all(python: str | None, quick: bool, repeats: int) -> list[str]:
    """Every claim; what was not met."""
    peer = open_peer(python)
    (kernel, agop), memory = (QUICK, MEMORY_QUICK) if quick else (CASE, MEMORY)
    try:
        if peer is not None:
            print(peer.versions)
        failures = compare_kernels(kernel, peer, repeats, not quick)
        failures += compare_agops(agop, peer, repeats, not quick)
    finally:
        if peer is not None:
            peer.close()
    failures += measure_memory(memory, torch.get_num_threads(), required=not quick)
    measure_memory(memory[:1], 2, required=False)
    return failures + split_fit(*((60, 1, 16) if quick else (300, 2, 32)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes; agreement alone is required")
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter of an environment with neural-tangents")
    parser.add_argument("--repeats", type=int, default=3, help="of each contender; the median counts")
    parser.add_argument("--threads", type=int, default=1, help="of every contender")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.job:
        print_growth(Case(**json.loads(arguments.job)))
        return
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads, "
        f"{platform.machine()}, load {os.getloadavg()[0]:.1f} before"
    )
    failures = compare_all(arguments.peer, arguments.quick, arguments.repeats)
    print("".join(f"\nnot met: {failure}" for failure in failures) or "\nall requirements met")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
