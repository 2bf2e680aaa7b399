"""The alignment of C with the power of WWᵀ that it goes with best, against chance that may choose too.

`nfa.FeaturePair.alignment` is the cosine of the traceless parts of C and ``(WWᵀ)^p`` for p = 1, which the
ansatz with α = ½ brings to 1. For another α it is ``p = 1/α - 1``, so that the best of several exponents
tells how far the ansatz holds with any of them:

    best = max over α of cos(C′, ((WWᵀ)^(1/α - 1))′),   α = 2^(k/8), k = -24 … 24 without 0

(at α = 1 both would be the identity). With so many to choose from chance finds one that fits, too: its null
is the best of the same exponents for a C that is rotated at random.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from nfa.ansatz.blockwise import NAN
from nfa.ansatz.forms import Frame, haar, traceless
from nfa.ansatz.told import Told

ALPHAS = tuple(2 ** (k / 8) for k in range(-24, 25) if k)
SMALL = 64  # directions, below which rotations are drawn; from there on diagonals are as good as normal
_ENTRIES = 2**22  # of rotations or diagonals that are held at a time


def best_alignment(frame: Frame, C: Told, noise: float) -> float:
    """The greatest cosine over the exponents; NaN where the alignment is undefined, too.

    Args:
        frame: of the weight.
        C: the sensitivity in its coordinates.
        noise: relative size below which a difference of entries of WWᵀ is rounding.
    """
    size = C.traceless_norm(frame.keep)
    shapes = _shapes(frame, noise)
    if shapes is None or size <= noise * C.norm():
        return NAN
    best = (shapes @ traceless(C.diagonal(), frame.keep)[frame.keep]).amax()
    return min(1.0, float(best / size))


def best_null(frame: Frame, C: Told, noise: float, draws: int, seed: int) -> Tensor:
    """`best_alignment` of ``draws`` rotations of C, (draws,); none where it is undefined.

    One group of few directions is rotated as it is, and groups of one direction are dealt out anew. Of
    others a matrix is drawn of which only the size is that of C: under rotation the diagonal has the same
    mean and covariance.
    """
    shapes = _shapes(frame, noise)
    if shapes is None or draws < 1 or C.traceless_norm(frame.keep) <= noise * C.norm():
        return torch.zeros(0, dtype=torch.float64)
    rng = torch.Generator().manual_seed(seed)
    found = [
        (x @ shapes.mT.to(x)).amax(-1) / size.clamp_min(torch.finfo(torch.float64).tiny)
        for x, size in drawn_diagonals(frame, C, draws, rng)
    ]
    return torch.cat(found)


def drawn_diagonals(
    frame: Frame, C: Told, draws: int, rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Diagonals of the traceless part of rotated C on the range of W, and the norm of that part.

    Yields:
        (n, directions) and (n,) float64 on the CPU, for ``draws`` in all.
    """
    ranks = frame.keep.sum(-1).tolist()
    directions = sum(ranks)
    alone = len(ranks) == 1 and directions < SMALL
    at_once = max(1, _ENTRIES // (directions**2 if alone else directions))
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        if alone:
            values = torch.zeros(directions, dtype=torch.float64)
            spectrum = C.spectrum()[0, :directions]
            values[: len(spectrum)] = spectrum
            values -= values.mean()
            yield haar(count, directions, rng).square() @ values, values.norm().expand(count)
        elif max(ranks) == 1:
            c = traceless(C.diagonal(), frame.keep)[frame.keep]
            order = torch.rand(count, directions, generator=rng, dtype=torch.float64).argsort(-1)
            yield c[order], c.norm().expand(count)
        else:
            x = torch.randn(count, directions, generator=rng, dtype=torch.float64)
            x -= x.mean(-1, keepdim=True)
            pairs = sum(rank * (rank - 1) // 2 for rank in ranks)
            half = torch.full((count,), pairs / 2, dtype=torch.float64)
            beyond = 2 * torch._standard_gamma(half, generator=rng)  # squares off the diagonal
            yield x, (x.square().sum(-1) + beyond).sqrt()


def _shapes(frame: Frame, noise: float) -> Tensor | None:
    """The traceless parts of the powers of WWᵀ, of length one, (exponents, directions).

    None where WWᵀ is a multiple of the identity on the range of W.
    """
    sigma2 = frame.sigma2[frame.keep]
    if len(sigma2) < 2 or float((sigma2 - sigma2.mean()).norm()) <= noise * float(sigma2.norm()):
        return None
    logs = (sigma2 / sigma2.max()).log()
    exponents = torch.tensor([1 / alpha - 1 for alpha in ALPHAS]).to(logs)
    powers = exponents[:, None] * logs
    powers = (powers - powers.amax(-1, keepdim=True)).exp()  # of order one, however small a singular value is
    powers = powers - powers.mean(-1, keepdim=True)
    return powers / powers.norm(dim=-1, keepdim=True)


def beyond_chance(value: float, null: Tensor) -> float:
    """How many standard deviations of the null a value is above its mean; NaN with fewer than two draws."""
    if len(null) < 2 or math.isnan(value):
        return NAN
    spread = float(null.std())
    return (value - float(null.mean())) / spread if spread > 0 else NAN
