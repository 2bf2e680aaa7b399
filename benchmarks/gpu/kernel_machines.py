"""Recursive feature machines: kernel, solution and AGOP against their floors, errors, and a peer."""

import warnings
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.parts import Bench, installed, over
from nfa.kernels import make_kernel
from nfa.machines.rfm import RFM

POINTS, FEATURES, OUTPUTS = (10_000, 20_000, 50_000), 3072, 10
BANDWIDTH, RIDGE, VALIDATION = 50.0, 1e-3, 1000
PHASES = ("kernel", "solve", "agop")


def measure(bench: Bench) -> None:
    d = bench.size(FEATURES, 64)
    _fit(bench.normal(256, d), bench.normal(256, OUTPUTS, seed=1))  # handles of the libraries, once
    for n in (bench.size(points, 100) for points in POINTS):
        X, Y = _data(bench, n, d)
        if n == bench.size(POINTS[0], 100):
            _errors(bench, X, Y)
        with bench.peak() as peak:
            seconds, machine = bench.timed(lambda X=X, Y=Y, n=n: _fit(X[:n], Y[:n]))
            told = peak()
        _phases(bench, machine, n, d, seconds, told)
        if n < bench.size(POINTS[2], 100) and installed("xrfm"):
            _peer(bench, X, Y, n, seconds, machine)
        del machine, X, Y
    if not installed("xrfm"):
        bench.row("xrfm is not installed: no peer")


def _data(bench: Bench, n: int, d: int) -> tuple[Tensor, Tensor]:
    """Points, those of validation behind them, and smooth targets of some directions."""
    X = bench.normal(n + bench.size(VALIDATION, 50), d)
    H = X @ bench.normal(d, 2 * OUTPUTS, seed=1) / d**0.5
    return X, H[:, :OUTPUTS].tanh() * H[:, OUTPUTS:].cos()


def _fit(X: Tensor, Y: Tensor, rounds: int = 1) -> RFM:
    return RFM("laplace", BANDWIDTH, RIDGE, rounds, solver="cholesky", offset="none").fit(X, Y)


def _phases(bench: Bench, machine: RFM, n: int, d: int, seconds: float, peak: int | None) -> None:
    """Two fits and one AGOP."""
    history: list[dict[str, Any]] = machine.history
    bench.row(
        f"RFM, {n} × {d} → {OUTPUTS}, 2 fits, 1 AGOP",
        seconds=seconds,
        residual=max(row["residual"] for row in history),
        peak_n2=None if peak is None else peak / 4 / n**2,
        route=next((row["agop_route"] for row in history if "agop_route" in row), None),
    )
    floors = {
        "kernel": bench.floor(8.0 * 4 * n * n / 4, float32=2.0 * n * n * d),  # half of 2 n² d, twice
        "solve": bench.floor(0, float32=2 * n**3 / 3, float64=2 * 2.0 * n * n * OUTPUTS),
        "agop": bench.floor(0, float32=_agop_flops(n, d)),
    }
    for phase in PHASES:
        spent = sum(row.get(f"{phase}_seconds", 0.0) for row in history)
        bench.row(f"  {phase}", seconds=spent, floor=floors[phase], over_floor=over(spent, floors[phase]))


def _agop_flops(n: int, d: int) -> float:
    """Of the cheaper way: class by class, or with the sum over classes first; symmetric products by half."""
    by_classes = OUTPUTS * (2.0 * n * n * d + n * d * d)
    summed = 1.0 * n**3 + 2.0 * n * n * d + n * d * d
    return min(by_classes, summed)


def _errors(bench: Bench, X: Tensor, Y: Tensor) -> None:
    """Predictions of round 0 in float32, and with distances by TF32, from those in float64."""
    n = min(len(Y) - bench.size(VALIDATION, 50), 10_000)
    exact = _fit(X.double()[:n], Y.double()[:n], 0).scores(X[n:].double())
    single = _fit(X[:n], Y[:n], 0).scores(X[n:]).double()
    scale = exact.norm()
    bench.row(
        f"predictions of {n} points, from float64",
        float32=float((single - exact).norm() / scale),
        tf32=float((_by_tf32(X[:n], Y[:n], X[n:]).double() - exact).norm() / scale),
    )


def _by_tf32(X: Tensor, Y: Tensor, Z: Tensor) -> Tensor:
    """What a fit would be whose distances come from products in TF32; the rest is in float64."""
    kernel, matmul = make_kernel("laplace", BANDWIDTH), torch.backends.cuda.matmul
    before = matmul.fp32_precision

    def values(A: Tensor, B: Tensor) -> Tensor:
        squares = A.square().sum(1)[:, None] + B.square().sum(1) - 2 * (A @ B.mT)
        return kernel.value(squares.clamp_min_(0).sqrt_()).double()

    try:
        matmul.fp32_precision = "tf32"
        K, K_new = values(X, X), values(Z, X)
    finally:
        matmul.fp32_precision = before
    K.diagonal().add_(RIDGE)
    return K_new @ torch.linalg.solve(K, Y.double())


def _peer(bench: Bench, X: Tensor, Y: Tensor, n: int, ours: float, machine: RFM) -> None:
    """Both with one update of M and one more fit, all points in the AGOP."""
    from xrfm.rfm_src import RFM as Peer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = Peer(
            "l2_high_dim", iters=1, bandwidth=BANDWIDTH, device=str(bench.device), verbose=False,
            solver="cholesky", tuning_metric="mse",
        )  # fmt: skip
        seconds, _ = bench.timed(
            lambda: peer.fit(
                (X[:n], Y[:n]), (X[:1], Y[:1]), reg=RIDGE, M_batch_size=n, total_points_to_sample=n,
                return_best_params=False, early_stop_rfm=False,
            )
        )  # fmt: skip
        theirs = peer.predict(X[n:])
    errors = [float((found - Y[n:]).square().mean()) for found in (machine.scores(X[n:]), theirs)]
    bench.row(
        "  xrfm l2_high_dim", seconds=seconds, over_nfa=seconds / ours, mse=errors[1], mse_nfa=errors[0]
    )
