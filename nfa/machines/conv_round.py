"""One round of a convolutional recursive feature machine: fit with a T, then learn the next T from the fit.

A round solves kernel ridge regression with a convolutional kernel whose first layer sees ``T u`` for every
patch u, takes the average gradient outer product G of the predictor with respect to patches, and sets T to a
power of G (Beaglehole, Radhakrishnan, Pandit and Belkin, arXiv 2309.00570).
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nfa.checks import choice, memory_of, not_negative, positive, seed_of, settle, whole_or_none
from nfa.errors import NfaError
from nfa.kernels.conv import ConvKernel
from nfa.kernels.operator import wide_product
from nfa.kernels.roots import spectrum
from nfa.machines.conv_predictor import ConvPredictor
from nfa.machines.offset import OFFSETS, with_offset, without_offset
from nfa.machines.recursion import EXACT, NO_GRADIENT, cosine_of_metrics, mse
from nfa.machines.rounds import Clock, one_or_several, several, stream
from nfa.machines.spread import spread_matrix, spread_mean
from nfa.solvers import METHODS, Solution, cholesky_bytes, room, solve

DRAWS = ("random", "first")
CRITERIA = ("mse", "accuracy")


@dataclass(frozen=True)
class ConvFit:
    """A predictor, and how it was found.

    Attributes:
        predictor: the fit; its coefficients are those of the kernel as it is.
        solution: of the system with the kernel matrix divided by ``scale``.
        scale: the largest entry of the kernel matrix, 1 where that is zero.
        train_scores: outputs (n, c) at the training images.
        val_scores: outputs at the validation images, if there are any.
        seconds: by phase: ``kernel``, ``solve``, ``predict``.
    """

    predictor: ConvPredictor
    solution: Solution
    scale: float
    train_scores: Tensor
    val_scores: Tensor | None
    seconds: dict[str, float]

    @property
    def row(self) -> dict[str, Any]:
        """What a history tells of the fit."""
        s = self.solution
        row = {"ridge": s.ridge, "scale": self.scale, "solver": s.method, "residual": s.residual}
        row |= {"jitter": s.jitter, "iterations": s.iterations}
        return row | {f"{phase}_seconds": seconds for phase, seconds in self.seconds.items()}


@dataclass(frozen=True)
class ConvRecursion:
    """The options of a convolutional machine, and its two steps: `fit` and `next_transform`.

    Args:
        kernel: its first layer sees transformed patches.
        ridge: added to the diagonal of the kernel matrix divided by its largest entry; or several, from
            which the validation images choose in each round.
        power: exponent of the AGOP that becomes ``M = TᵀT``: 1 for ``T ∝ G^½``, 2 for ``T ∝ G``, which are
            the published choices.
        agop_images: take the AGOP over so many training images; None takes all.
        agop_draw: ``random``, anew each round without replacement, or the ``first`` ones, as published.
        criterion: by which validation images choose: ``mse``, or ``accuracy``, as published.
        solver: ``auto``, ``cholesky`` or ``cg``; see `nfa.solvers.solve`.
        seed: of these images, and of the solver.
        memory: bytes that a round may take beyond the data; None takes 80 % of what is free.
        distributed: share kernel values and gradients out over the processes of the default group, all of
            which have the same images.
        offset: ``mean`` fits targets less their mean, which becomes the intercept; ``none``, as published.

    Raises:
        NfaError: an option is out of range.
    """

    kernel: ConvKernel = field(default_factory=ConvKernel)
    ridge: float | Sequence[float] = 1e-3
    power: float = 1.0
    agop_images: int | None = 20
    agop_draw: str = "random"
    criterion: str = "mse"
    solver: str = "auto"
    seed: int = 0
    memory: float | None = None
    distributed: bool = False
    offset: str = "mean"

    def __post_init__(self):
        settle(
            self,
            ridge=one_or_several(self.ridge, partial(not_negative, "ridge")),
            power=positive("power", self.power),
            agop_images=whole_or_none("agop_images", self.agop_images, 1),
            agop_draw=choice("agop_draw", self.agop_draw, DRAWS),
            criterion=choice("criterion", self.criterion, CRITERIA),
            solver=choice("solver", self.solver, METHODS),
            seed=seed_of(self.seed),
            memory=memory_of(self.memory),
            offset=choice("offset", self.offset, OFFSETS),
        )
        if not self.ridges:
            raise NfaError("give at least one ridge")

    @property
    def ridges(self) -> tuple[float, ...]:
        """The ridges to choose from."""
        return several(self.ridge)

    @property
    def chooses(self) -> bool:
        """Whether validation data are needed to choose a ridge."""
        return len(self.ridges) > 1

    def error(self, scores: Tensor, Y: Tensor) -> float:
        """What is lowest for the best outputs (n, c): mean squared error, or the share of wrong classes."""
        if self.criterion == "accuracy":
            return float((scores.argmax(1) != Y.argmax(1)).double().mean())
        return mse(scores, Y)

    # ---- fit -----------------------------------------------------------------------------------------------

    def fit(
        self,
        transform: Tensor | None,
        X: Tensor,
        Y: Tensor,
        validation: tuple[Tensor, Tensor] | None = None,
        start: Tensor | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ConvFit:
        """Kernel ridge regression with transformed patches.

        Args:
            transform: T (D, D); None for the identity.
            X: training images (n, c, h, w), float32 or float64.
            Y: targets (n, outputs), of the dtype of X or float64.
            validation: images and targets by which the ridge is chosen.
            start: coefficients (n, outputs) from which conjugate gradients start.
            progress: called with the pairs of training images whose kernel is computed, and their total.

        Raises:
            NfaError: several ridges and no validation data, too little memory, or outputs that are not
                finite.
        """
        if self.chooses and validation is None:
            raise NfaError(
                "choosing among several ridges needs validation data: give X_val and y_val, or one ridge"
            )
        clock = Clock()
        budget = room(X.device, self.memory)
        self._check_memory(X, Y, transform, budget)
        Y, intercept = without_offset(self.offset, Y, X.dtype)
        if self.distributed:
            K = spread_matrix(self.kernel, X, transform, progress)
        else:
            K = self.kernel.matrix(X, transform=transform, progress=progress)
        scale = float(K.max())
        scale = scale if scale > 0 else 1.0
        K /= scale
        clock.lap("kernel")
        found = self._solutions(K, Y, None if start is None else start * scale, budget - K.nbytes)
        clock.lap("solve")
        best, val_scores = 0, None
        if validation is not None:
            best, val_scores = self._chosen(found, scale, X, validation, transform, intercept)
        solution = found[best]
        a = solution.coefficients
        if solution.method == "cholesky" and not solution.jitter and solution.residual <= EXACT:
            train_scores = Y - solution.ridge * a.to(Y)  # as K a = Y - ridge a
        else:
            train_scores = wide_product(K, a.to(K)).to(Y)
        clock.lap("predict")
        if not bool(torch.isfinite(train_scores).all()):
            raise NfaError("the predictions on the training images are not finite: give a larger ridge")
        predictor = ConvPredictor(self.kernel, transform, X, a / scale, intercept)
        train_scores = with_offset(train_scores, intercept)
        return ConvFit(predictor, solution, scale, train_scores, val_scores, clock.seconds)

    def _check_memory(self, X: Tensor, Y: Tensor, transform: Tensor | None, budget: float) -> None:
        need = self.kernel.memory(X, None, transform)
        need += cholesky_bytes(len(X), Y.shape[1], X.dtype, matrix_exists=True)
        if need > budget:
            raise NfaError(
                f"the kernel matrix of {len(X)} images takes about {need / 2**30:.3g} GiB, more than the "
                f"{budget / 2**30:.3g} GiB allowed: give fewer images, or raise the memory"
            )

    def _solutions(self, K: Tensor, Y: Tensor, start: Tensor | None, budget: float) -> list[Solution]:
        """One solution for each ridge; conjugate gradients start from that for the ridge before."""
        options, found = {"method": self.solver, "memory": budget, "seed": self.seed}, []
        for ridge in self.ridges:
            found.append(solve(K, Y, ridge, start=start, **options))
            start = found[-1].coefficients
        return found

    def _chosen(
        self,
        found: list[Solution],
        scale: float,
        X: Tensor,
        validation: tuple[Tensor, Tensor],
        transform: Tensor | None,
        intercept: Tensor | None,
    ) -> tuple[int, Tensor]:
        """The first solution of the lowest validation error, and its outputs."""
        together = torch.cat([s.coefficients for s in found], 1) / scale
        outputs = ConvPredictor(self.kernel, transform, X, together)(validation[0], self.memory)
        parts = [with_offset(part, intercept) for part in outputs.split(validation[1].shape[1], 1)]
        errors = [self.error(part, validation[1]) for part in parts]
        best = errors.index(min(errors))
        return best, parts[best]

    def refit(self, predictor: ConvPredictor, ridge: float, X: Tensor, Y: Tensor) -> ConvFit:
        """The same T and ridge with other images: training and validation data together."""
        return replace(self, ridge=ridge).fit(predictor.transform, X, Y)

    # ---- the next transform --------------------------------------------------------------------------------

    def next_transform(self, predictor: ConvPredictor, index: int) -> tuple[Tensor, dict[str, Any]]:
        """``T ← G^(power/2)`` of Frobenius norm 1, from the AGOP G of a fit; and what a history tells of it.

        Gradients are taken at training images. Each is its own center and counts there with half the
        gradient of its norm, as `nfa.machines.patch_agop` says.

        Args:
            predictor: of the fit.
            index: of the round, which with the seed chooses the images of the AGOP.

        Raises:
            NfaError: an AGOP that is zero or not finite.
        """
        clock = Clock()
        centers = predictor.centers
        chosen = self.images(len(centers), index).to(centers.device)
        if self.distributed:
            G = spread_mean(lambda part: predictor.agop(centers[part], part), chosen, predictor.root())
        else:
            G = predictor.agop(centers[chosen], chosen)
        if not bool(torch.isfinite(G).all()):
            raise NfaError("the AGOP is not finite")
        values, vectors = spectrum(G)
        T = (vectors * values ** (self.power / 2)) @ vectors.mT
        norm = float(T.norm())
        if not norm > 0:
            raise NfaError(NO_GRADIENT)
        T = T / norm
        clock.lap("agop")
        row = {
            "self_consistency": cosine_of_metrics(predictor.transform, T.to(centers)),
            "rank": int((values > 0).sum()),
            "agop_seconds": clock.seconds["agop"],
        }
        return T.to(centers), row

    def images(self, n: int, index: int) -> Tensor:
        """The training images that the AGOP of a round is taken over, ascending."""
        m = n if self.agop_images is None else min(self.agop_images, n)
        if m == n or self.agop_draw == "first":
            return torch.arange(m)
        generator = torch.Generator().manual_seed(stream(self.seed, index))
        return torch.randperm(n, generator=generator)[:m].sort().values


def plain_options(recursion: ConvRecursion) -> dict[str, Any]:
    """The options of a recursion and of its kernel, by name; not where it is computed."""
    options = {f.name: getattr(recursion, f.name) for f in dataclasses.fields(recursion)}
    del options["distributed"]
    return dataclasses.asdict(options.pop("kernel")) | options
