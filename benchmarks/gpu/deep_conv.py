"""Deep convolutional recursive feature machines at their defaults, on more and more images."""

from benchmarks.gpu.parts import Bench
from benchmarks.gpu.side_by_side import classes_of, pictures
from nfa.machines.deep_conv_rfm import DeepConvRFM

IMAGES, SIDE, VALIDATION = (500, 2000, 5000), 32, 200
PHASES = ("kernel", "solve", "predict", "agop")


def measure(bench: Bench) -> None:
    side, spent = bench.side(SIDE, 12, 4), 0.0
    for n in (bench.size(images, 30) for images in IMAGES):
        if spent * 4 > bench.left():
            bench.row(f"{n} images: not begun, {bench.left():.0f} s are left")
            continue
        X = pictures(bench, n + bench.size(VALIDATION, 20), side)
        y = classes_of(X)
        with bench.peak() as peak:
            spent, machine = bench.timed(lambda X=X, y=y, n=n: DeepConvRFM().fit(X[:n], y[:n], X[n:], y[n:]))
            told = peak()
        rounds = [row for layer in machine.history for row in layer["rounds"]]
        sums = {phase: sum(row.get(f"{phase}_seconds", 0.0) for row in rounds) for phase in PHASES}
        bench.row(
            f"DeepConvRFM, {n} images {side}²",
            seconds=spent,
            **sums,
            accuracy=float((machine.predict(X[n:]) == y[n:]).float().mean()),
            peak_GB=None if told is None else told / 1e9,
        )
