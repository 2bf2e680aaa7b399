"""The cosine of N with ``G^α`` for random eigenvectors of C, in wide layers: from two spectra alone.

A rotation of r directions costs several r³. But the more directions there are, the less chance is left: with
``A = diag(σ²)`` and B of the spectrum of C, rotated, free probability knows what ``M = A^½ B A^½`` is on
average, up to terms of order 1/r (Voiculescu's subordination). For every t > 0

    M (t + M)⁻¹  →  diag(w aᵢ / (1 + w aᵢ))      with      φ_A(w) = φ_B(v) = φ,   t w v = φ / (1 - φ),

where ``φ_A(w)`` is the mean of ``w a / (1 + w a)``, and powers follow from
``M^α = sin(πα)/π ∫ t^(α-1) M (t + M)⁻¹ dt``. What is left, and how much the cosine varies, is seen in two
small models: quantiles of both spectra, few enough to be rotated as they are, where a term of order 1/r is a
known multiple of what it is; and the leading eigenvectors of B, drawn as they are with the rest on average,
which is where a heavy spectrum leaves most to chance. Each sees part of the spread, and the greater is taken.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.ansatz.forms import haar

GREATEST_POWER = 0.5  # beyond, the norm of G^α is not that of a trace of M^p with p ≤ 1
WIDE = 256  # directions, beyond which this takes the place of rotations
DRAWS = 16
_FEW = 64  # directions of the small model
_LEADING = 8  # eigenvectors of C that are drawn as they are
_STEP = 0.5  # of log v: the integrand is analytic in a strip, and the trapezoid rule exponentially exact
_BEYOND = 1e6  # times the largest and the smallest eigenvalue: from where to where t goes
_ITERATIONS = 4  # from a table of that step: to 1e-12 and better
_NONE = 1e-14  # of the largest: no eigenvalue


def wide_null(sigma2: Tensor, values: Tensor, power: float, draws: int, generator: torch.Generator) -> Tensor:
    """Cosines for random eigenvectors of C, (draws,) float64 on the CPU; their mean is that of all rotations.

    Args:
        sigma2: (r,) squared singular values of W, none of them zero.
        values: (k,) eigenvalues of C on the range of W, descending; up to r of them are not zero.
        power: exponent α, up to `GREATEST_POWER`.
        draws: see above.
        generator: of what is drawn, on the CPU.
    """
    a, b = _scaled(sigma2, values)
    few = _quantiles(a), _quantiles(b)
    scale = len(few[0]) / len(a)
    rotated = scale * (_rotated(*few, power, draws, generator) - expected_cosine(*few, power))
    leading = _with_leading(a, b, power, draws, generator)
    varied = max(rotated - rotated.mean(), leading - leading.mean(), key=torch.Tensor.norm)
    return (expected_cosine(a, b, power) + rotated.mean() + varied).clamp(-1, 1)


def wide_mean(sigma2: Tensor, values: Tensor, power: float) -> float:
    """Their mean, up to terms of order 1/r."""
    return expected_cosine(*_scaled(sigma2, values), power)


def expected_cosine(a: Tensor, b: Tensor, power: float) -> float:
    """The cosine on average over the rotations of B, up to terms of order 1/r; (r,) spectra of A and of B."""
    mean = _Mean.of(a, b)
    product = mean.trace(a, power, float(a.square().sum() * b.mean()))
    square = mean.trace(torch.ones_like(a), 2 * power, float(a.sum() * b.mean()))
    return float(product / (a.norm() * square.clamp_min(0).sqrt()))


@dataclass(frozen=True)
class _Mean:
    """What M is on average, at n values of t.

    Attributes:
        a: (r,) spectrum of A.
        t: (n,) descending.
        w: (n,) such that ``t (t + M)⁻¹`` is ``1 / (1 + w a)`` on average.
        pace: (n,) change of ``-log t`` from one to the next.
    """

    a: Tensor
    t: Tensor
    w: Tensor
    pace: Tensor

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> "_Mean":
        """For the spectra (r,) of A and of B."""
        some = b[b > _NONE * b.max()]
        ends = 1 / (_BEYOND * float(b.max())), _BEYOND / float(some.min())
        v = torch.arange(math.log(ends[0]), math.log(ends[1]), _STEP, dtype=torch.float64).exp()
        phi, rise = _share(v, b)
        w = _argument(phi, a)
        pace = 1 + rise / _share(w, a)[1] - rise
        return cls(a, phi / ((1 - phi) * w * v), w, _STEP * pace)

    def trace(self, weight: Tensor, power: float, linear: float) -> Tensor:
        """``tr(diag(weight) M^power)`` for a power in (0, 1]; ``linear`` is that for 1."""
        if power == 1.0:
            return torch.tensor(linear, dtype=torch.float64)
        rest = 1 / (1 + self.w[:, None] * self.a)
        return self.integral(((1 - rest) * weight).sum(-1), power)

    def integral(self, shares: Tensor, power: float) -> Tensor:
        """``tr(X M^power)`` from ``tr(X M (t + M)⁻¹)`` (…, n) for a power in (0, 1).

        The trapezoid rule over log v, continued where the shares go as 1/t and where they are constant.
        """
        y, up, down = shares * self.t**power, (1 - power) * _STEP, power * _STEP
        ends = y[..., 0] / math.expm1(up) + y[..., -1] / math.expm1(down)
        return math.sin(math.pi * power) / math.pi * ((y * self.pace).sum(-1) + _STEP * ends)


def _share(v: Tensor, spectrum: Tensor) -> tuple[Tensor, Tensor]:
    """φ(v), (n,), and by how much its log-odds rise with log v."""
    x = v[:, None] * spectrum
    share = (x / (1 + x)).mean(-1)
    return share, (x / (1 + x).square()).mean(-1) / (share * (1 - share))


def _argument(phi: Tensor, spectrum: Tensor) -> Tensor:
    """The w with ``φ(w) = phi``, (n,) ascending: from a table, and Newton's method on the log-odds."""
    goal = torch.logit(phi)
    ends = (
        phi[0] / spectrum.mean(),
        (1 / spectrum).mean() / (1 - phi[-1]),
    )  # φ(w) ≤ w ⟨a⟩, 1 - φ(w) ≤ ⟨1/a⟩ / w
    table = torch.arange(math.log(ends[0]) - _STEP, math.log(ends[1]) + _STEP, _STEP, dtype=torch.float64)
    values = torch.logit(_share(table.exp(), spectrum)[0])
    after = torch.searchsorted(values, goal).clamp(1, len(table) - 1)
    low, high = table[after - 1], table[after]
    log_w = low + _STEP * ((goal - values[after - 1]) / (values[after] - values[after - 1])).nan_to_num(0.5)
    for _ in range(_ITERATIONS):
        share, rise = _share(log_w.exp(), spectrum)
        log_w = (log_w - (torch.logit(share) - goal) / rise).clamp(low, high)
    return log_w.exp()


def _scaled(sigma2: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Both spectra (r,) on the CPU, of order one."""
    a, b = sigma2.cpu(), torch.zeros(len(sigma2), dtype=torch.float64)
    b[: len(values)] = values[: len(a)].cpu()
    return a / a.max(), b / b.max()


def _quantiles(spectrum: Tensor) -> Tensor:
    return torch.stack([part.mean() for part in spectrum.tensor_split(min(_FEW, len(spectrum)))])


def _rotated(a: Tensor, b: Tensor, power: float, draws: int, generator: torch.Generator) -> Tensor:
    """Cosines for rotations as they are, (draws,)."""
    half = a.sqrt()[:, None] * haar(draws, len(a), generator) * b.sqrt()
    values, vectors = torch.linalg.eigh(half @ half.mT)
    values = values.clamp_min(0) ** power
    return ((a @ vectors.square()) * values).sum(-1) / (a.norm() * values.norm(dim=-1))


def _with_leading(a: Tensor, b: Tensor, power: float, draws: int, generator: torch.Generator) -> Tensor:
    """Cosines for random leading eigenvectors Y of B, and the rest of it on average, (draws,)."""
    r, k = len(a), min(_LEADING, int((b > _NONE * b.max()).sum()) - 1)
    if k < 1:
        return torch.zeros(draws, dtype=torch.float64)
    bulk, rest = b[k:].mean(), b.clone()
    lead, rest[:k] = (b[:k] - bulk).clamp_min(_NONE), bulk
    Y = torch.linalg.qr(torch.randn(draws, r, k, dtype=torch.float64, generator=generator))[0]
    diagonal = Y.square() @ lead + rest.mean()
    along = (a * a * diagonal).sum(-1)  # tr(AM)
    mean = _Mean.of(a, rest)
    kept = 1 / (1 + mean.w[:, None] * a)
    products = (Y[:, :, :, None] * Y[:, :, None, :]).movedim(1, 0).reshape(r, -1)

    def within(weight: Tensor) -> Tensor:
        """``Yᵀ diag(weight) Y``, (n, draws, k, k)."""
        return (weight @ products).view(-1, draws, k, k)

    # Woodbury: what the leading part takes from t (t + M)⁻¹
    core = within(a * kept) + torch.diag_embed(mean.t[:, None] / lead)[:, None]

    def trace(weight: Tensor, exponent: float, linear: Tensor) -> Tensor:
        if exponent == 1.0:
            return linear
        taken = torch.linalg.solve(core, within(weight * a * kept * kept))
        more = taken.diagonal(dim1=-2, dim2=-1).sum(-1)
        return mean.integral(((1 - kept) * weight).sum(-1) + more.mT, exponent)

    product = trace(a, power, along)
    square = trace(torch.ones_like(a), 2 * power, (a * diagonal).sum(-1))
    return product / (a.norm() * square.clamp_min(0).sqrt())
