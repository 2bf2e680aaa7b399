"""Radial kernels ``k(r)`` of a distance r, with the slope ``k'(r)/r`` that their gradients need.

``∇_x k(‖x - z‖) = slope(r) (x - z)``. At r = 0 the skip rule holds: a kernel whose slope has no finite
limit there (`cusp`) contributes nothing where r < 1e-10; a smooth one has its limit.

A new kernel is a frozen dataclass with `value`, `slope` and `cusp`; tests/nfa/kernels/test_kernels.py asks
for a case of every entry of `KERNELS`, and CONTRIBUTING.md has the rest.
"""

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.checks import number, positive, settle, told
from nfa.errors import NfaError
from nfa.kernels.distances import distances, fill, tile_entries
from nfa.kernels.metric import Metric
from nfa.kernels.registry import KernelRegistry

SKIP = 1e-10  # the distance below which a kernel with a cusp has slope 0


@dataclass(frozen=True)
class RadialKernel(ABC):
    """A positive definite function of the distance, one at distance zero.

    Attributes:
        bandwidth: L > 0, the length by which distances are divided.
    """

    bandwidth: float

    def __post_init__(self):
        settle(self, bandwidth=positive("the bandwidth", self.bandwidth, "a positive finite number"))

    @property
    @abstractmethod
    def cusp(self) -> bool:
        """Whether ``k'(r)/r`` has no finite limit at 0."""

    @abstractmethod
    def value(self, r: Tensor) -> Tensor:
        """k(r) in the shape of r; differentiable."""

    @abstractmethod
    def slope(self, r: Tensor) -> Tensor:
        """``k'(r)/r`` in the shape of r, by the skip rule at 0."""

    def value_(self, r: Tensor) -> Tensor:
        """`value`, written over the distances r."""
        return _overwrite(r, self.value)

    def slope_(self, r: Tensor) -> Tensor:
        """`slope`, written over the distances r."""
        return _overwrite(r, self.slope)

    def matrix(
        self, X: Tensor, Z: Tensor | None = None, metric: Metric | None = None, *, out: Tensor | None = None
    ) -> Tensor:
        """K (n, m) of points X (n, d) and Z (m, d), None for X, without gradients.

        Nothing of the size of K is held beside it.
        """
        return self._matrix(X, Z, metric, self.value_, out)

    def slope_matrix(
        self, X: Tensor, Z: Tensor | None = None, metric: Metric | None = None, *, out: Tensor | None = None
    ) -> Tensor:
        """`slope` of all distances (n, m), as `matrix`."""
        return self._matrix(X, Z, metric, self.slope_, out)

    def _matrix(
        self,
        X: Tensor,
        Z: Tensor | None,
        metric: Metric | None,
        then: Callable[[Tensor], Tensor],
        out: Tensor | None,
    ) -> Tensor:
        if metric is not None:
            Z = None if Z is None or Z is X else metric.transform(Z.detach())
            X = metric.transform(X.detach())
        return fill(X, Z, out=out, then=then)

    def _skip(self, r: Tensor, slope: Tensor) -> Tensor:
        return torch.where(r < SKIP, 0.0, slope)


@dataclass(frozen=True)
class Laplace(RadialKernel):
    """``exp(-r/L)``. A cusp: its slope is 0 at r < 1e-10."""

    @property
    def cusp(self) -> bool:
        """True."""
        return True

    def value(self, r: Tensor) -> Tensor:
        """``exp(-r/L)``."""
        return (r * (-1 / self.bandwidth)).exp()

    def slope(self, r: Tensor) -> Tensor:
        """``-exp(-r/L) / (L r)``."""
        return self._skip(r, self.value(r) / (r * -self.bandwidth))


@dataclass(frozen=True)
class Gaussian(RadialKernel):
    """``exp(-r²/(2L²))``. Smooth: its slope at 0 is ``-1/L²``."""

    @property
    def cusp(self) -> bool:
        """False."""
        return False

    def value(self, r: Tensor) -> Tensor:
        """``exp(-r²/(2L²))``."""
        return ((r / self.bandwidth).square() * -0.5).exp()

    def slope(self, r: Tensor) -> Tensor:
        """``-exp(-r²/(2L²)) / L²``."""
        return self.value(r) * -(self.bandwidth**-2)


@dataclass(frozen=True)
class Matern(RadialKernel):
    """Matérn kernel of smoothness 1/2, 3/2 or 5/2, with ``a = √(2ν) r/L``.

    ``e⁻ᵃ``, ``(1 + a) e⁻ᵃ`` or ``(1 + a + a²/3) e⁻ᵃ`` (Rasmussen and Williams 2006, eq. 4.17). The first
    is a cusp: its slope is 0 at r < 1e-10. The others are smooth: their slopes at 0 are ``-3/L²`` and
    ``-5/(3L²)``.

    Attributes:
        nu: 0.5, 1.5 or 2.5.
    """

    nu: float = 1.5

    def __post_init__(self):
        super().__post_init__()
        words = "0.5, 1.5 or 2.5, for a closed form"
        settle(self, nu=number("nu", self.nu, lambda nu: nu in (0.5, 1.5, 2.5), words))

    @property
    def cusp(self) -> bool:
        """True for ν = 1/2."""
        return self.nu == 0.5

    def value(self, r: Tensor) -> Tensor:
        """k(r)."""
        a = self._scaled(r)
        if self.nu == 0.5:
            return (-a).exp()
        if self.nu == 1.5:
            return (1 + a) * (-a).exp()
        return (1 + a * (1 + a / 3)) * (-a).exp()

    def slope(self, r: Tensor) -> Tensor:
        """``k'(r)/r``: ``-e⁻ᵃ/(L r)``, ``-3e⁻ᵃ/L²`` or ``-5(1 + a)e⁻ᵃ/(3L²)``."""
        a = self._scaled(r)
        if self.nu == 0.5:
            return self._skip(r, (-a).exp() / (r * -self.bandwidth))
        if self.nu == 1.5:
            return (-a).exp() * (-3 / self.bandwidth**2)
        return (1 + a) * (-a).exp() * (-5 / (3 * self.bandwidth**2))

    def _scaled(self, r: Tensor) -> Tensor:
        return r * (math.sqrt(2 * self.nu) / self.bandwidth)


@dataclass(frozen=True)
class Exponential(RadialKernel):
    """``exp(-(r/L)^q)`` with 0 < q <= 2.

    Without a finite slope at 0 for every q < 2, though for q > 1 the kernel itself has a derivative there:
    its slope is 0 at r < 1e-10. For q = 2 it is smooth and the slope at 0 is ``-2/L²``.

    Attributes:
        q: the exponent; beyond 2 the kernel is not positive definite.
    """

    q: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        words = "in (0, 2], where exp(-(r/L)^q) is positive definite"
        settle(self, q=number("q", self.q, lambda q: 0 < q <= 2, words))

    @property
    def cusp(self) -> bool:
        """True for q < 2."""
        return self.q < 2

    def value(self, r: Tensor) -> Tensor:
        """``exp(-(r/L)^q)``."""
        return (-((r / self.bandwidth) ** self.q)).exp()

    def slope(self, r: Tensor) -> Tensor:
        """``-q (r/L)^(q-2) exp(-(r/L)^q) / L²``."""
        scaled = r / self.bandwidth
        slope = scaled ** (self.q - 2) * (-(scaled**self.q)).exp() * (-self.q / self.bandwidth**2)
        return self._skip(r, slope) if self.cusp else slope


KERNELS = KernelRegistry(
    RadialKernel,
    {
        "laplace": Laplace,
        "gaussian": Gaussian,
        "matern": Matern,
        "exponential": Exponential,
    },
)


def option_names() -> tuple[str, ...]:
    """Names of the options of all kernels in `KERNELS`, beside the bandwidth."""
    return tuple(option for name in KERNELS for option in KERNELS.options_of(name))


def make_kernel(name: str, bandwidth: float, **options: float) -> RadialKernel:
    """A kernel by its name in `KERNELS`.

    Args:
        name: ``laplace``, ``gaussian``, ``matern`` or ``exponential``.
        bandwidth: L > 0.
        **options: ``nu`` of a Matern kernel, ``q`` of an exponential one.

    Raises:
        NfaError: an unknown name or option, or a value out of range.
    """
    if not isinstance(name, str):
        raise NfaError(f"the kernel must be given by its name, one of {', '.join(KERNELS)}, got {told(name)}")
    kind = KERNELS.get(name.lower())
    if kind is None:
        near = difflib.get_close_matches(name.lower(), KERNELS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise NfaError(f"no kernel is called {name!r}: {hint}choose from {', '.join(KERNELS)}")
    known = KERNELS.options_of(name.lower())
    for option in options:
        if option not in known:
            raise NfaError(f"the kernel {name!r} takes {' and '.join(known) or 'no options'}, got {option!r}")
    return kind(bandwidth, **options)


def median_bandwidth(X: Tensor, seed: int = 0, *, metric: Metric | None = None, samples: int = 1000) -> float:
    """Median distance between different rows of X (n, d), or of ``samples`` of them chosen by the seed.

    Where more than half of the pairs are duplicates, the median of the distances that are not zero.

    Raises:
        NfaError: fewer than two rows, or all of them equal.
    """
    if len(X) > samples:
        chosen = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))[:samples]
        X = X[chosen.to(X.device)]
    n = len(X)
    r = distances(X if metric is None else metric.transform(X.detach()))
    above = torch.ones(n, n, dtype=torch.bool, device=X.device).triu_(1)
    r = r[above].double().sort().values
    r = r if len(r) and r[len(r) // 2] > 0 else r[r > 0]
    if len(r) == 0:
        raise NfaError(f"the median distance needs rows that differ, got {n} equal rows: give a bandwidth")
    return float((r[(len(r) - 1) // 2] + r[len(r) // 2]) / 2)


def _overwrite(r: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function(r)`` written over r, some rows at a time, without gradients."""
    with torch.no_grad():
        width = max(r[:1].numel(), 1)
        for part in r.split(max(tile_entries(r.device) // width, 1)) if r.dim() else (r,):
            part.copy_(function(part))
    return r
