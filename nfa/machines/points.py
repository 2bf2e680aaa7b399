"""What kernels of points share: inputs (n, d), and the metric as a linear map of them."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nfa.checks import choice, floats
from nfa.errors import NfaError
from nfa.kernels import Metric
from nfa.machines.kernel import Kernel
from nfa.machines.kernel_agop import KernelAgop
from nfa.machines.maps import FeatureMap
from nfa.machines.predictor import Predictor, copies
from nfa.machines.saved import expect
from nfa.machines.stages import PointStage, Stage
from nfa.machines.system import Solver

_KINDS = {None: ("identity",), 1: ("diagonal",), 2: ("full", "factored")}  # by the dimensions of a root


class Points(Kernel):
    """A kernel of points (n, d), which has a name."""

    weighs: ClassVar = True

    def checked(self, X: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Points (n, d)."""
        X = floats("points", X, "(n, d)")
        if X.dim() != 2 or not X.numel():
            hint = ": one sample is x[None]" if X.dim() == 1 and len(X) else ""
            hint = ": flatten images with X.flatten(1)" if X.dim() > 2 else hint
            raise NfaError(f"expected points (n, d), at least one of them, got shape {tuple(X.shape)}{hint}")
        if shape is not None and X.shape[1:] != tuple(shape):
            raise NfaError(f"expected points with {shape[0]} features, as in the fit, got {X.shape[1]}")
        if not bool(torch.isfinite(X.sum())) and not bool(torch.isfinite(X).all()):
            raise NfaError(
                "the points have values that are not finite (NaN or infinity): remove those points"
            )
        return X

    def width(self, shape: Sequence[int]) -> int:
        """D."""
        return shape[0]

    def input_shape(self, predictor: Predictor) -> tuple[int, ...]:
        """(d,)."""
        root = predictor.metric.root
        return tuple(predictor.centers.shape[1:] if root is None else root.shape[:1])

    @abstractmethod
    def gram(self, U: Tensor) -> Tensor:
        """K (n, n) of points (n, k) in coordinates of the metric, symmetric."""

    def coordinates(self, metric: Metric, X: Tensor) -> Tensor:
        """Points (n, k)."""
        return metric.transform(X)

    def images(self, metric: Metric, X: Tensor) -> Tensor:
        """Points (n, k) by one product; equal points have equal images."""
        if metric.root is None:
            return X
        F = metric.root.to(X)
        if F.dim() == 1:
            return X * F
        U = X @ F
        later, first = copies(X)
        U[later] = U[first]
        return U

    @abstractmethod
    def fact(self, predictor: Predictor, solver: Solver) -> KernelAgop:
        """What `Fact` takes a power of, in coordinates of the centers."""

    def arranged(self, x: Tensor) -> Tensor:
        """Flattened."""
        return x.flatten(1)

    def check_shape(self, shape: Sequence[int], index: int) -> None:
        """Any number will do."""
        if len(shape) != 1:
            raise NfaError(f"points have one size, the number of their features, got {tuple(shape)}")

    def feature_map(self, shape: Sequence[int]) -> FeatureMap:
        """A linear layer."""
        return FeatureMap(self.width(shape))

    def stage(self, shape: Sequence[int], lift: Any, unit_norm: bool, seed: int) -> PointStage:
        """With random features."""
        return PointStage(self.width(shape), lift, unit_norm, seed)

    def expect_held(self, predictor: Predictor, stage: Stage) -> None:
        """Centers in coordinates of the metric, and an offset of the width of the layer."""
        root = predictor.root()
        expect("centers", predictor.centers, None, root.shape[1])
        if predictor.offset is not None:
            expect("offset", predictor.offset, len(root))

    def written(self, predictor: Predictor) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The root of M is absent for the identity."""
        root = predictor.metric.root
        return ({} if root is None else {"root": root}), {"metric": predictor.metric.kind}

    def read(self, tensors: dict[str, Tensor], state: dict[str, Any], outputs: int | None) -> Predictor:
        """In the metric of its root, of the kind that is written."""
        root = tensors.get("root")
        kind = choice("metric", state["metric"], _KINDS.get(None if root is None else root.dim(), ()))
        if root is not None:
            expect("root", root, *[None] * root.dim())
        metric = Metric(root, kind)
        centers = expect("centers", tensors.get("centers"), None, metric.rank)
        a = expect("coefficients", tensors.get("coefficients"), len(centers), outputs)
        return Predictor(self, metric, centers, a)
