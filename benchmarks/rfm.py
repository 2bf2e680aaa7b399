"""What a recursive feature machine costs: against xrfm, against scikit-learn's kernel ridge, and in memory.

    python benchmarks/rfm.py             # about fifteen minutes on two cores
    python benchmarks/rfm.py --quick     # small sizes, about half a minute: agreement alone is required
    python benchmarks/rfm.py --large     # 60 000 points by conjugate gradients in 4 GiB, nothing else

Times are medians of interleaved repeats in one process, errors those of one validation set that no fit sees;
memory is the growth of the peak resident set of a fresh process. Ends with status 1 where a requirement that
is printed in a row is not met. A peer that is not installed is left out, with a line that says so.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import nfa
from nfa.device import resident_bytes
from nfa.kernels import KernelOperator, kernel_product, make_kernel
from nfa.solvers import solve

BANDWIDTH, RIDGE, ROUNDS = 10.0, 1e-3, 3
VALIDATION = 1000  # points
SAME_ERROR = 0.01  # validation errors of the same work, relative
SAME_RIDGE = 1e-4  # predictions of round 0, relative to the largest
SAME_SOLVER = 1e-3  # predictions of the two solvers, relative to the largest
MOST_SCALARS = 2.5  # a point pair, of float32, beyond the data
BUDGET = 4 * 2**30  # bytes
TOLERANCE = 1e-4  # residual of conjugate gradients
ROOT_BY_SVD = 5000  # width from which xrfm's l2 takes a randomised root, which is other work

DIFFERENCES = f"""
Both: {ROUNDS} updates of M and one more fit, Laplace kernel of bandwidth {BANDWIDTH:g}, ridge {RIDGE:g} added
to the diagonal as it is, Cholesky, all points in the AGOP, no centring, M = AGOP over its largest entry,
float32; the last round is kept, without early stopping or selection. Left as they are:
* xrfm sums gradient products where nfa takes their mean: the same, over the largest entry. It multiplies by
  the identity in its first AGOP, and predicts one validation row a round, which its fit cannot do without.
  Its kernel l2 takes the root of M + 1e-8 I by SVD; l2_high_dim takes none, and expands the squares, with
  rounding instead of zeros on the diagonal.
* nfa also tells the training error of every round, asks halves of 600 points where it has risen whether the
  round does harm, and refines each solution in float64. offset="none": no mean is taken off, as in xrfm.
A required ratio is that of l2, the Laplace kernel by the name xrfm documents first, whose M has a root as
nfa's has; and no xrfm may be faster than nfa.
""".strip()


@dataclass(frozen=True)
class Case:
    """Points, features, outputs, and how many times faster than any peer a fit has to be."""

    n: int
    d: int
    outputs: int
    required: float = 1.0

    def __str__(self) -> str:
        return f"{self.n} × {self.d} → {self.outputs}"


CASES = (
    Case(3000, 3072, 10, required=7.0),
    Case(4000, 100, 2, required=1.5),
    Case(1000, 20, 1),
    Case(500, 5000, 10),
    Case(2000, 784, 10),
    Case(5000, 30, 1),
)
QUICK = (Case(600, 300, 10), Case(800, 50, 2), Case(400, 20, 1), Case(100, 600, 4))
MEMORY = (Case(5000, 30, 1), Case(4000, 100, 2), Case(3000, 3072, 10))
MEMORY_QUICK = (Case(1500, 20, 1),)
WIDE = 0.1  # d/n above which (n, d) and (d, d) matrices count beside (n, n): the memory is told only


@dataclass(frozen=True)
class Data:
    """Training points (n, d) and targets (n, outputs), and as much for validation; float32."""

    X: Tensor
    Y: Tensor
    X_val: Tensor
    Y_val: Tensor

    def error(self, scores: Tensor) -> float:
        """Mean squared error of validation scores (n, outputs)."""
        return float((scores - self.Y_val).square().mean())


def make_data(case: Case) -> Data:
    """Features of falling variance; the targets depend on the first eight of them, with a little noise."""
    generator = torch.Generator().manual_seed(0)
    count, relevant = case.n + VALIDATION, min(case.d, 8)
    scale = (1 + torch.arange(case.d) / 10) ** -0.5
    Z = torch.randn(count, case.d, generator=generator)
    H = Z[:, :relevant] @ torch.randn(relevant, 2 * case.outputs, generator=generator) / relevant**0.5
    Y = H[:, : case.outputs].tanh() * H[:, case.outputs :].cos()
    Y += 0.1 * torch.randn(Y.shape, generator=generator)
    X = Z * scale
    return Data(X[: case.n], Y[: case.n], X[case.n :], Y[case.n :])


# ---- contenders -------------------------------------------------------------------------------------------


def fit_nfa(data: Data, rounds: int = ROUNDS, kernel: str = "laplace") -> nfa.RFM:
    machine = nfa.RFM(kernel, BANDWIDTH, RIDGE, rounds, solver="cholesky", offset="none")
    return machine.fit(data.X, data.Y)


def fit_xrfm(data: Data, kernel: str, rounds: int = ROUNDS) -> Any:
    """The machine inside a leaf of xrfm, with all that would make the work another switched off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from xrfm.rfm_src import RFM

        machine = RFM(
            kernel,
            iters=rounds,
            bandwidth=BANDWIDTH,
            device="cpu",
            verbose=False,
            solver="cholesky",
            tuning_metric="mse",
        )
        machine.fit(
            (data.X, data.Y),
            (data.X[:1], data.Y[:1]),
            reg=RIDGE,
            M_batch_size=len(data.X),
            total_points_to_sample=len(data.X),
            return_best_params=False,
            early_stop_rfm=False,
        )
    return machine


class _SklearnRidge:
    """scikit-learn's KernelRidge: its own Gaussian kernel, or our Laplace matrix, with tensors."""

    def __init__(self, kernel: str):
        from sklearn.kernel_ridge import KernelRidge

        self._kernel = None if kernel == "gaussian" else make_kernel(kernel, BANDWIDTH)
        own = {"kernel": "rbf", "gamma": 1 / (2 * BANDWIDTH**2)}
        self._ridge = KernelRidge(alpha=RIDGE, **(own if self._kernel is None else {"kernel": "precomputed"}))

    def fit(self, X: Tensor, Y: Tensor) -> "_SklearnRidge":
        self._X = X
        K = X if self._kernel is None else self._kernel.matrix(X)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of the conditioning in float32
            self._ridge.fit(K.numpy(), Y.numpy())
        return self

    def predict(self, X: Tensor) -> Tensor:
        K = X if self._kernel is None else self._kernel.matrix(X, self._X)
        return torch.from_numpy(self._ridge.predict(K.numpy()))


def fit_sklearn(data: Data, kernel: str) -> _SklearnRidge:
    return _SklearnRidge(kernel).fit(data.X, data.Y)


def contenders(data: Data) -> dict[str, Callable[[], Any]]:
    """What is compared for these data: nfa first."""
    runs: dict[str, Callable[[], Any]] = {"nfa": lambda: fit_nfa(data)}
    if installed("xrfm"):
        runs["xrfm l2_high_dim"] = lambda: fit_xrfm(data, "l2_high_dim")
        if data.X.shape[1] < ROOT_BY_SVD:
            runs["xrfm l2"] = lambda: fit_xrfm(data, "laplace")
    return runs


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


# ---- measuring --------------------------------------------------------------------------------------------


def interleaved(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, Any]]:
    """Median seconds and last result of each, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            results.pop(name, None)
            start = time.perf_counter()
            results[name] = run()
            times[name].append(time.perf_counter() - start)
    return {name: (statistics.median(values), results[name]) for name, values in times.items()}


def warm_up() -> None:
    """Thread pools, kernels of the libraries and their buffers, once in a process."""
    data = make_data(Case(128, 16, 2))
    for run in contenders(data).values():
        run()


def relative_difference(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def phases(history: list[dict[str, Any]]) -> dict[str, float | None]:
    """Seconds of a fit by phase, summed over the rounds; None for one that the history does not tell."""
    found = {}
    for phase in ("kernel", "solve", "agop"):
        values = [row[f"{phase}_seconds"] for row in history if f"{phase}_seconds" in row]
        found[phase] = sum(values) if values else None
    return found


# ---- claims -----------------------------------------------------------------------------------------------


def compare_fits(cases: tuple[Case, ...], repeats: int, speed_required: bool = True) -> list[str]:
    """Times and errors of nfa and its peers on each case; what was not met."""
    if not installed("xrfm"):
        print("\nxrfm is not installed (pip install xrfm): nfa alone")
    print(f"\n{DIFFERENCES}\n")
    header = f"{'n × d → outputs':<18}{'':<18}{'seconds':>9}{'× nfa':>8}{'val. MSE':>11}{'differs':>9}   "
    print(header + "nfa by phase")
    warm_up()
    return [failure for case in cases for failure in _compare(case, repeats, speed_required)]


def _compare(case: Case, repeats: int, speed_required: bool) -> list[str]:
    data = make_data(case)
    found = interleaved(contenders(data), repeats)
    seconds, machine = found.pop("nfa")
    error, failures = data.error(machine.scores(data.X_val)), []
    split = "  ".join(
        f"{phase} {'–' if value is None else f'{value:.2f}'}"
        for phase, value in phases(machine.history).items()
    )
    print(f"{case!s:<18}{'nfa':<18}{seconds:>9.2f}{'':>8}{error:>11.5f}{'':>9}   {split}")
    ratios = []
    for name, (peer_seconds, peer) in found.items():
        peer_error = data.error(peer.predict(data.X_val))
        difference = abs(error / peer_error - 1)
        ratios.append(peer_seconds / seconds)
        print(
            f"{'':<18}{name:<18}{peer_seconds:>9.2f}{ratios[-1]:>8.2f}{peer_error:>11.5f}{difference:>9.1e}"
        )
        if not difference <= SAME_ERROR:
            failures.append(f"{case}: validation error {error:.5f}, of {name} {peer_error:.5f}")
    if ratios:
        rooted, fastest = ratios[-1], min(ratios)  # l2 stands last
        required = f" (required ≥ {case.required:g}, of the fastest ≥ 1)" if speed_required else ""
        print(f"{'':<18}{list(found)[-1] + ' / nfa':<27}{rooted:>8.2f}{required}", flush=True)
        if speed_required and not (rooted >= case.required and fastest >= 1):
            failures.append(
                f"{case}: {rooted:.2f} × {list(found)[-1]}, {fastest:.2f} × the fastest xrfm; "
                f"required {case.required:g} and 1"
            )
    return failures


def compare_kernel_ridge(case: Case, repeats: int) -> list[str]:
    """Round 0 against scikit-learn: its Gaussian kernel, and our Laplace matrix given to it."""
    print(f"\nRound 0 against scikit-learn's KernelRidge, {case}")
    if not installed("sklearn"):
        print("  skipped: scikit-learn is not installed (pip install scikit-learn)")
        return []
    data = make_data(case)
    exact = Data(*(A.double() for A in vars(data).values()))
    failures = []
    for kernel in ("gaussian", "laplace"):
        runs = {
            "nfa": lambda kernel=kernel: fit_nfa(data, 0, kernel),
            "sklearn": lambda kernel=kernel: fit_sklearn(data, kernel),
        }
        found = interleaved(runs, repeats)
        (seconds, machine), (peer_seconds, peer) = found["nfa"], found["sklearn"]
        truth = fit_sklearn(exact, kernel).predict(exact.X_val)
        difference = relative_difference(fit_nfa(exact, 0, kernel).scores(exact.X_val), truth)
        single = [
            relative_difference(scores, truth)
            for scores in (machine.scores(data.X_val), peer.predict(data.X_val))
        ]
        print(
            f"  {kernel:<9} float32: nfa {seconds:.2f} s, scikit-learn {peer_seconds:.2f} s, ratio "
            f"{peer_seconds / seconds:.2f}\n"
            f"  {'':<9} predictions: float64 {difference:.0e} apart (required ≤ {SAME_RIDGE:.0e}); "
            f"from these, float32 nfa {single[0]:.0e}, scikit-learn {single[1]:.0e}"
        )
        if not difference <= SAME_RIDGE:
            failures.append(f"round 0, {kernel}: predictions differ by {difference:.1e} from scikit-learn's")
    return failures


def measure_memory(cases: tuple[Case, ...], required: bool = True) -> list[str]:
    """Peak memory of a fit in scalars a point pair."""
    print(
        "\nPeak memory of a fit beyond the data: growth of the peak resident set of a fresh process (VmHWM, "
        "reset when\nthe data were made and a tiny fit had started the thread pools), in scalars of float32"
    )
    failures = []
    for case in cases:
        grown = in_fresh_process("memory", case)["bytes"]
        scalars = grown / 4 / case.n**2
        held = required and case.d <= WIDE * case.n
        sizes = "" if case.d <= WIDE * case.n else f", {grown / 4 / (case.n * case.d):.2f} n d"
        bound = f"   (required ≤ {MOST_SCALARS})" if held else ""
        print(f"  {case!s:<16}{grown / 2**20:7.0f} MiB = {scalars:.2f} n²{sizes}{bound}", flush=True)
        if held and not scalars <= MOST_SCALARS:
            failures.append(f"{case}: {scalars:.2f} n² scalars beyond the data, at most {MOST_SCALARS}")
    return failures


def solve_large(
    case: Case, agreement: Case, budget: float = BUDGET, memory_required: bool = True
) -> list[str]:
    """Conjugate gradients where K does not fit, and against Cholesky where it does."""
    allowed, whole = (f"{size / 2**30:.3g} GiB" for size in (budget, 4 * case.n**2))
    print(f"\nConjugate gradients within {allowed}, where K would be {whole}, {case}")
    found = in_fresh_process("large", case, budget)
    grown = found["bytes"]
    print(
        f"  {found['seconds']:.0f} s, {found['iterations']} iterations, "
        f"preconditioner of rank {found['rank']}\n"
        f"  residual {found['residual']:.1e} (required ≤ {TOLERANCE:.0e})"
    )
    bound = f" (required ≤ {allowed})" if memory_required else ""
    print(f"  peak memory beyond the data {grown / 2**30:.2f} GiB{bound}", flush=True)
    failures = []
    if not found["residual"] <= TOLERANCE:
        failures.append(f"conjugate gradients: residual {found['residual']:.1e}")
    if memory_required and not grown <= budget:
        failures.append(f"conjugate gradients: {grown / 2**30:.2f} GiB, more than the budget")
    data = make_data(agreement)
    by_cg, by_cholesky = (predictions(data, method, budget) for method in ("cg", "cholesky"))
    difference = relative_difference(by_cg, by_cholesky)
    print(
        f"  {agreement.n} points: predictions {difference:.0e} from those of Cholesky "
        f"(required ≤ {SAME_SOLVER:.0e})"
    )
    if not difference <= SAME_SOLVER:
        failures.append(f"conjugate gradients: predictions differ by {difference:.1e} from Cholesky's")
    return failures


def predictions(data: Data, method: str, budget: float) -> Tensor:
    """Of the validation points, by one solver."""
    kernel = make_kernel("laplace", BANDWIDTH)
    operator = KernelOperator(kernel, data.X)
    found = solve(operator, data.Y, RIDGE, memory=budget, method=method, tol=TOLERANCE)
    return kernel_product(kernel, data.X_val, data.X, found.coefficients)


# ---- in a fresh process -----------------------------------------------------------------------------------


def in_fresh_process(task: str, case: Case, budget: float = BUDGET) -> dict[str, Any]:
    """What `print_growth` prints in a process of its own."""
    job = json.dumps({"task": task, "n": case.n, "d": case.d, "outputs": case.outputs, "budget": budget})
    done = subprocess.run([sys.executable, __file__, "--job", job], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the process that measures {task} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def print_growth(job: dict[str, Any]) -> None:
    """Run one task after a tiny one, and print by how many bytes the peak grew."""
    fit_nfa(make_data(Case(128, 16, 2)))
    data = make_data(Case(job["n"], job["d"], job["outputs"]))
    found: dict[str, Any] = {}
    before = resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    if job["task"] == "memory":
        fit_nfa(data)
    else:
        operator = KernelOperator(make_kernel("laplace", BANDWIDTH), data.X)
        found = vars(solve(operator, data.Y, RIDGE, memory=job["budget"], method="cg", tol=TOLERANCE))
    peak = resident_bytes(peak=True)
    told = {key: found[key] for key in ("residual", "iterations", "rank", "seconds") if key in found}
    print(json.dumps({"bytes": peak - before} | told))


# ---- command line -----------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes; agreement alone is required")
    parser.add_argument("--large", action="store_true", help="more points than a kernel matrix has room for")
    parser.add_argument("--repeats", type=int, default=3, help="of each fit; the median counts")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print_growth(json.loads(arguments.job))
        return
    found = {"xrfm": "xrfm", "sklearn": "scikit-learn"}
    peers = ", ".join(f"{name} {version(name)}" for package, name in found.items() if installed(package))
    print(
        f"torch {torch.__version__}, {peers or 'no peers'}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}, load {os.getloadavg()[0]:.1f} before"
    )
    if arguments.large:
        if arguments.quick:
            failures = solve_large(Case(6000, 64, 1), Case(1500, 64, 1), 2**26, memory_required=False)
        else:
            failures = solve_large(Case(60_000, 64, 1), Case(6000, 64, 1))
    elif arguments.quick:
        failures = compare_fits(QUICK, min(arguments.repeats, 3), speed_required=False)
        failures += compare_kernel_ridge(Case(1000, 50, 2), 3)
        failures += measure_memory(MEMORY_QUICK, required=False)
    else:
        failures = compare_fits(CASES, arguments.repeats)
        failures += compare_kernel_ridge(Case(4000, 100, 2), arguments.repeats)
        failures += measure_memory(MEMORY)
    print("".join(f"\nnot met: {failure}" for failure in failures) or "\nall requirements met")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
