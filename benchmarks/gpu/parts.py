"""Parts of the benchmark: where they run, how large and how long, and the rows they find."""

import contextlib
import gc
import importlib.util
import json
import platform
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

AGAIN = 3.0  # seconds after which an alarm rings once more
PACKAGES = ("torch", "torchvision", "triton", "pytorch-lightning", "hydra-core", "wandb", "xrfm")


class OutOfTime(BaseException):
    """The budget of a part is spent; no handler of errors between here and the part may take it."""


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: by which it is chosen or skipped.
        seconds: it may take on a card; it is cut there.
        run: called with a `Bench`, to which it gives its rows.
        needs: packages it cannot do without.
    """

    name: str
    seconds: float
    run: Callable[["Bench"], None]
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.needs if not installed(name)]


@dataclass
class Bench:
    """Device, scale and clock of a part, and what it found.

    Attributes:
        device: where to run.
        scale: of the sizes, 1 on a card.
        rates: of this device: bytes a second under ``bandwidth``, flops a second under the names of dtypes.
        rows: dictionaries with ``what`` and numbers, in the order they were found.
        found: called after each row.
    """

    device: torch.device
    scale: float = 1.0
    rates: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    found: Callable[[], None] = lambda: None
    ends: float = float("inf")

    def size(self, number: int, least: int = 1, multiple: int = 1) -> int:
        """A number of things, scaled and a multiple of something, at least so many."""
        return max(round(number * self.scale / multiple) * multiple, least)

    def side(self, pixels: int, least: int = 32, multiple: int = 16) -> int:
        """A side of images whose number of pixels is scaled."""
        return max(round(pixels * self.scale**0.5 / multiple) * multiple, least)

    def width(self, channels: int, multiple: int = 8) -> int:
        """Of layers, whose weights are scaled."""
        return max(round(channels * self.scale**0.5 / multiple) * multiple, multiple)

    def left(self) -> float:
        """Seconds left of the budget."""
        return self.ends - time.perf_counter()

    def row(self, what: str, **numbers: Any) -> None:
        """Keep and print what was found."""
        self.rows.append({"what": what, **numbers})
        print("  " + words(self.rows[-1]), flush=True)
        self.found()

    def generator(self, seed: int = 0) -> torch.Generator:
        """Of random numbers made on the device."""
        return torch.Generator(self.device).manual_seed(seed)

    def normal(self, *shape: int, seed: int = 0) -> torch.Tensor:
        """Standard normal float32 on the device."""
        return torch.randn(shape, generator=self.generator(seed), device=self.device)

    def seconds(self, work: Callable[[], Any], repeats: int = 3, warm: bool = True) -> float:
        """Median seconds of some work, the device waited for before and after."""
        if warm:
            work()
        return statistics.median(self.timed(work)[0] for _ in range(repeats))

    def timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds of one call, and what it returns."""
        wait_for(self.device)
        start = time.perf_counter()
        result = work()
        wait_for(self.device)
        return time.perf_counter() - start, result

    @contextlib.contextmanager
    def peak(self) -> Iterator[Callable[[], int | None]]:
        """A function that tells bytes allocated at most since, beyond those before; None without a card."""
        if self.device.type != "cuda":
            yield lambda: None
            return
        wait_for(self.device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        yield lambda: torch.cuda.max_memory_allocated(self.device) - before

    def floor(self, bytes_moved: float = 0.0, **flops: float) -> float | None:
        """Seconds below which no version runs: bytes at the bandwidth, or flops of dtypes at their rates.

        None where `floors` was not measured.
        """
        if not self.rates:
            return None
        arithmetic = sum(count / self.rates[dtype] for dtype, count in flops.items())
        return max(arithmetic, bytes_moved / self.rates["bandwidth"])


def over(seconds: float, floor: float | None) -> float | None:
    """Seconds as a multiple of a floor."""
    return None if not floor else seconds / floor


def wait_for(device: torch.device) -> None:
    """Until all work given to a card is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def words(row: dict[str, Any]) -> str:
    """A row as a line."""
    numbers = (f"{name} {_number(value)}" for name, value in row.items() if name != "what")
    return f"{row['what']:<44} " + "  ".join(numbers)


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ---- a run ------------------------------------------------------------------------------------------------


def environment(device: torch.device) -> dict[str, Any]:
    """Card and versions."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no card: CPU"
    versions = {name: found for name in PACKAGES if (found := _version(name)) is not None}
    versions["torch"] = torch.__version__  # with the CUDA it is built for
    return {
        "card": card,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "versions": {"python": platform.python_version()} | versions,
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises `OutOfTime` inside when so many seconds have passed, and again where something has taken it.

    What a finalizer or a callback raises is lost.
    """
    left = False

    def ring(number: int, frame: Any) -> None:
        if not left:
            raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), AGAIN)
    try:
        yield
    finally:
        left = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(
    parts: list[Part], device: torch.device, scale: float, total_seconds: float, out: Path, timed: bool = True
) -> dict[str, Any]:
    """Run parts one after another, and write what they found as they find it.

    Args:
        parts: in this order.
        device: where.
        scale: of the sizes.
        total_seconds: of the whole run; parts that would begin later are left out.
        out: JSON file, rewritten after every row.
        timed: whether a part is cut when its budget is spent.
    """
    began, rates = time.perf_counter(), {}
    told = {**environment(device), "device": str(device), "scale": scale, "parts": {}}
    for part in parts:
        budget = min(part.seconds, total_seconds - (time.perf_counter() - began)) if timed else float("inf")
        print(f"\n{part.name} (at most {budget:.0f} s)" if timed else f"\n{part.name}", flush=True)
        entry = told["parts"][part.name] = {"rows": [], "seconds": 0.0, "ended": "under way"}

        def keep(entry: dict[str, Any] = entry, start: float = time.perf_counter()) -> None:
            entry["seconds"] = round(time.perf_counter() - start, 3)
            write(out, told)

        start = time.perf_counter()
        bench = Bench(device, scale, rates, entry["rows"], keep, start + budget)
        entry["ended"] = _ended(part, bench, budget)
        keep()
        print(f"  {entry['ended']}, {entry['seconds']:.1f} s", flush=True)
    told["seconds"] = round(time.perf_counter() - began, 1)
    write(out, told)
    return told


def _ended(part: Part, bench: Bench, budget: float) -> str:
    """Run one part; how it ended, in words."""
    if part.missing:
        return f"skipped: {', '.join(part.missing)} not installed"
    if budget <= 1:
        return "skipped: no time left"
    try:
        with alarm(budget) if budget < float("inf") else contextlib.nullcontext():
            part.run(bench)
        return "done"
    except OutOfTime:
        return "cut: its seconds are spent"
    except Exception as error:  # the other parts go on, and the table says what failed here
        return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    finally:
        if bench.device.type == "cuda":
            gc.collect()  # what a part that was cut or failed has left in frames that know each other
            torch.cuda.empty_cache()


def write(out: Path, told: dict[str, Any]) -> None:
    """As JSON, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(out.name + ".new")
    beside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    beside.replace(out)


def table(told: dict[str, Any]) -> str:
    """All rows, under the names of their parts."""
    lines = [
        f"{told['card']}, scale {told['scale']:g}, " + ", ".join(map(" ".join, told["versions"].items()))
    ]
    for name, part in told["parts"].items():
        lines.append(f"{name}: {part['ended']}, {part['seconds']:.1f} s")
        lines += ["  " + words(row) for row in part["rows"]]
    return "\n".join(lines)
