"""Machines on images: convolutional kernels that see every patch through a metric."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from nfa.checks import floats
from nfa.errors import NfaError
from nfa.kernels import Metric
from nfa.kernels.conv import ConvKernel, check_images
from nfa.kernels.halving import Halving, needs
from nfa.kernels.operator import wide_product
from nfa.machines.kernel import Kernel
from nfa.machines.kernel_agop import KernelAgop
from nfa.machines.maps import PatchMap
from nfa.machines.normalization import symmetric_root
from nfa.machines.patch_agop import patch_agop
from nfa.machines.predictor import Predictor
from nfa.machines.saved import expect
from nfa.machines.shared_out import shared_matrix, shared_mean
from nfa.machines.stages import PatchStage, Stage
from nfa.machines.system import DenseSystem, Solver, expect_matrix_room
from nfa.machines.tails import KernelSum, PatchSum, matches
from nfa.solvers import room


@dataclass(frozen=True)
class Patches(Kernel):
    """``k_T(x, z)`` of images (n, c, h, w), whose first layer sees ``T u`` for every patch u; ``F = Tᵀ``.

    Systems are those of the kernel matrix divided by its largest entry. Roots of M are symmetric, and keep
    the shape of patches.
    """

    function: ConvKernel = field(default_factory=ConvKernel)

    noun: ClassVar = "images"
    tail: ClassVar = PatchSum
    tells: ClassVar = "kernel"

    @property
    def options(self) -> dict[str, Any]:
        """Those of the function."""
        return asdict(self.function)

    # ---- inputs --------------------------------------------------------------------------------------------

    def checked(self, X: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Images (n, c, h, w)."""
        X = floats("images", X, "(n, channels, height, width)")
        check_images("X", X)
        if shape is not None and X.shape[1:] != tuple(shape):
            raise NfaError(
                f"expected images of shape {tuple(shape)}, as in the fit, got {tuple(X.shape[1:])}"
            )
        return X

    def width(self, shape: Sequence[int]) -> int:
        """``D = c · patch_size²``."""
        return shape[0] * self.function.patch_size**2

    def input_shape(self, predictor: Predictor) -> tuple[int, ...]:
        """(c, h, w)."""
        return tuple(predictor.centers.shape[1:])

    def coordinates(self, metric: Metric, X: Tensor) -> Tensor:
        """The images themselves: their patches take ``patch_size²`` times as much."""
        return X

    # ---- fits ----------------------------------------------------------------------------------------------

    def systems(
        self,
        metric: Metric,
        U: Tensor,
        outputs: int,
        solver: Solver,
        lap: Callable[[str], None],
        progress: Callable[[int, int], None] | None,
    ) -> Iterator[DenseSystem]:
        """One, with the whole kernel matrix."""
        T, budget = transform_of(metric), solver.budget(U.device)
        need = self.function.memory(U, None, T)
        expect_matrix_room("images", U, outputs, need, budget)
        with needs(need, f"the kernel matrix of {len(U)} images", "give fewer, or another device", U.device):
            if solver.distributed:
                K = shared_matrix(self.function, U, T, progress)
            else:
                K = self.function.matrix(U, transform=T, progress=progress)
        scale = float(K.max())
        scale = scale if scale > 0 else 1.0
        K /= scale
        lap("kernel")
        yield DenseSystem(self, solver, scale, {"scale": scale}, K=K, budget=budget - K.nbytes)

    def product(self, predictor: Predictor, U: Tensor, memory: float | None) -> Tensor:
        """Some images at a time."""
        centers, T = predictor.centers, transform_of(predictor.metric)
        X = self.checked(U, centers.shape[1:]).to(centers)
        rows = int(min(max(room(X.device, memory) / 2 / (len(centers) * X.itemsize), 1), len(X)))
        a = predictor.coefficients.to(X)
        product = a.new_empty(len(X), a.shape[1])

        def work(part: slice) -> None:
            product[part] = wide_product(self.function.matrix(X[part], centers, T), a)

        Halving(X.device).rows(work, len(X), rows)
        return product

    def agop(
        self,
        predictor: Predictor,
        points: Tensor | None,
        centering: str,
        solver: Solver,
        distances: Tensor | None = None,
    ) -> KernelAgop:
        """With respect to patches; each image counts at itself with half the gradient of its norm."""
        centers = predictor.centers
        chosen = torch.arange(len(centers), device=centers.device) if points is None else points

        def mean(part: Tensor) -> Tensor:
            return gradients_at(predictor, centers[part], part)

        if solver.distributed:
            return KernelAgop("patches", shared_mean(mean, chosen, predictor.root()))
        return KernelAgop("patches", mean(chosen))

    def root(self, agop: KernelAgop, old: Metric, power: float, normalization: str) -> tuple[Tensor, int]:
        """The symmetric one, of Frobenius norm 1: ``M = TᵀT`` has the trace 1, whatever the option."""
        T, rank = symmetric_root(agop.dense(), power)
        return T.mT, rank

    # ---- modules and files ---------------------------------------------------------------------------------

    def feature_map(self, shape: Sequence[int]) -> PatchMap:
        """A convolution."""
        border = self.function.shape(torch.empty(1, *shape)).border
        return PatchMap(shape[0], self.function.patch_size, self.function.stride, border)

    def run(self, maps: Callable[[Tensor], Tensor], tail: KernelSum, x: Tensor) -> Tensor:
        """By way of the maps where gradients are on; else the kernel is computed from images, faster."""
        held = tail.predictor() if isinstance(tail, PatchSum) and not torch.is_grad_enabled() else None
        return tail(maps(x), matches(x.detach(), tail.centers)) if held is None else held(x)

    def stage(self, shape: Sequence[int], lift: Any, unit_norm: bool, seed: int) -> PatchStage:
        """With random filters."""
        return PatchStage(self.function, shape, lift, seed)

    def shape_behind(self, shape: Sequence[int], lift: Any) -> tuple[int, ...]:
        """Of what the filters hand on."""
        return lift.shape(shape, self.function.patch_size)

    def check_shape(self, shape: Sequence[int], index: int) -> None:
        """Refuse images of which nothing is left."""
        if min(shape) < 1:
            raise NfaError(
                f"nothing is left of the images before layer {index}: give fewer layers, a smaller "
                "patch_size, stride or pool, or conv_padding='zero'"
            )
        try:
            self.function.shape(torch.empty(1, *shape))
        except NfaError as error:
            raise NfaError(f"layer {index}: {error}") from None

    def arranged(self, x: Tensor) -> Tensor:
        """As they are."""
        return x

    def written(self, predictor: Predictor) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """T is absent for the identity."""
        T = transform_of(predictor.metric)
        return ({} if T is None else {"transform": T}), {}

    def expect_held(self, predictor: Predictor, stage: Stage) -> None:
        """Images of the layer, and a square transform."""
        assert isinstance(stage, PatchStage)  # see `stage`
        expect("centers", predictor.centers, None, *stage.shape)
        D = self.width(stage.shape)
        expect("transform", predictor.weight, D, D)

    def read(self, tensors: dict[str, Tensor], state: dict[str, Any], outputs: int | None) -> Predictor:
        """Of images that are as large as the kernel needs."""
        centers = self.checked(expect("centers", tensors.get("centers"), *[None] * 4))
        self.function.shape(centers)
        D, T = self.width(centers.shape[1:]), tensors.get("transform")
        T = None if T is None else expect("transform", T, D, D)
        a = expect("coefficients", tensors.get("coefficients"), len(centers), outputs)
        return Predictor(self, metric_of(T), centers, a)

    def below(self, layers: int) -> "Patches":
        """The kernel of a layer further on: with one convolution less for each, but at least one."""
        function = replace(self.function, depth=max(self.function.depth - layers, 1))
        return replace(self, function=function)


def transform_of(metric: Metric) -> Tensor | None:
    """T (D, D) of a metric; None for the identity."""
    return None if metric.root is None else metric.root.mT


def metric_of(T: Tensor | None) -> Metric:
    """The metric of T (D, D), ``M = TᵀT``; None for the identity."""
    return Metric.identity() if T is None else Metric(T.detach().mT, "factored")


def gradients_at(predictor: Predictor, X: Tensor, same: Tensor | None = None) -> Tensor:
    """AGOP (D, D) float64 with respect to patches: mean over images, sum over positions and outputs.

    Args:
        predictor: of `Patches`.
        X: images (m, c, h, w).
        same: (m,), which center each image is, -1 for none; None looks for them.
    """
    p, kernel, centers = predictor, predictor.kernel, predictor.centers
    assert isinstance(kernel, Patches)  # the kernels of images
    X = kernel.checked(X, centers.shape[1:]).to(centers)
    same = matches(X, centers) if same is None else same
    return patch_agop(kernel.function, X, centers, p.coefficients, transform_of(p.metric), same=same)
