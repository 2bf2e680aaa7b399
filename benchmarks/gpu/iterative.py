"""Conjugate gradients with a Nyström preconditioner, where the kernel matrix is never held."""

from benchmarks.gpu.parts import Bench, over
from nfa.kernels import KernelOperator, make_kernel
from nfa.solvers import solve

POINTS, FEATURES, OUTPUTS, RIDGE, TOLERANCE = 200_000, 256, 10, 1e-1, 1e-4


def measure(bench: Bench) -> None:
    n, d = bench.size(POINTS, 500), bench.size(FEATURES, 32)
    X = bench.normal(n, d)
    Y = (X @ bench.normal(d, OUTPUTS, seed=1) / d**0.5).tanh()
    operator = KernelOperator(make_kernel("laplace", d**0.5), X)
    one, _ = bench.timed(lambda: operator(Y))
    # both triangles come from one evaluation; the product with Y is in float64
    flops = {"float32": n * n * d, "float64": 2.0 * n * n * OUTPUTS}
    floor = bench.floor(0, **flops)
    bench.row(f"one product, {n} × {d} → {OUTPUTS}", seconds=one, floor=floor, over_floor=over(one, floor))
    limit = max(int(bench.left() / one) // 2, 2) if bench.left() < float("inf") else 1000
    with bench.peak() as peak:
        seconds, found = bench.timed(
            lambda: solve(
                operator,
                Y,
                RIDGE,
                method="cg",
                tol=TOLERANCE,
                max_iterations=min(limit, 1000),
                memory=_room(operator),
            )
        )
        told = peak()
    products = found.iterations + 2  # and those that check the residual
    bench.row(
        "conjugate gradients",
        seconds=seconds,
        iterations=found.iterations,
        residual=found.residual,
        rank=found.rank,
        over_products=over(seconds, None if floor is None else floor * products),
        peak_GB=None if told is None else told / 1e9,
    )


def _room(operator: KernelOperator) -> float:
    """Bytes for a tile, and for a preconditioner of full rank with as much again: little of K can be kept."""
    n = operator.size
    return operator.tile_bytes + 2.5 * 8 * n**0.5 * 2 * 4 * n + 64 * 8 * n * OUTPUTS
