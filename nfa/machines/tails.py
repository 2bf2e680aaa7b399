"""What comes behind the feature map of a machine, as modules: kernel functions around centers.

Their tensors have the sizes of the last fit. Gradients come from autograd, by the skip rule where a center is
hit; those of images from `nfa.kernels.conv_gradient`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from nfa.kernels import Metric, RadialKernel, distances, exact_products
from nfa.kernels.conv import ConvKernel
from nfa.kernels.conv_gradient import each_gradient
from nfa.kernels.operator import wide_product
from nfa.kernels.spans import even_spans
from nfa.machines.first_derivatives import differentiable_once
from nfa.machines.fitted_sizes import SizedOnLoad
from nfa.machines.maps import patch_maps
from nfa.machines.offset import intercept_or_none
from nfa.machines.predictor import Predictor, copies
from nfa.solvers import room

if TYPE_CHECKING:
    from nfa.machines.inner import InnerProduct
    from nfa.machines.kernel import Kernel
    from nfa.machines.patches import Patches
    from nfa.machines.radial import Radial

_HELD = 2**24  # numbers of the transformed patches of the centers at a time


class KernelSum(SizedOnLoad):
    """``f(u) = b + Σ_j a_j k(u, u_j)``; before the first fit there are no centers and f is zero.

    Attributes:
        name: by which networks and their files call it.
        kernel: k.
        centers: (n, …).
        coefficients: (n, c).
        ridge: with which the coefficients were found, a scalar.
        intercept: b (c,), zero where the targets kept their mean.
    """

    centers: Tensor
    coefficients: Tensor
    ridge: Tensor
    intercept: Tensor

    name: ClassVar[str]
    zero_if_absent: ClassVar = ("intercept",)

    def __init__(self, kernel: "Kernel", shape: Sequence[int], outputs: int):
        super().__init__()
        self.kernel = kernel
        self.register_buffer("centers", torch.zeros(0, *shape))
        self.register_buffer("coefficients", torch.zeros(0, outputs))
        self.register_buffer("ridge", torch.zeros((), dtype=torch.float64))
        self.register_buffer("intercept", torch.zeros(outputs, dtype=torch.float64))

    def take_over(self, predictor: Predictor, ridge: float) -> None:
        """Hold a fit."""
        self.kernel = predictor.kernel
        self.set_tensor("centers", predictor.centers)
        self.set_tensor("coefficients", predictor.coefficients)
        self.ridge.fill_(ridge)
        b = predictor.intercept
        self.set_tensor("intercept", torch.zeros_like(self.intercept) if b is None else b)

    def metric(self, weight: Tensor) -> Metric:
        """Of a feature map of this weight W (k, …), ``M = WᵀW``; the identity where W is."""
        W = weight.detach().flatten(1)
        if W.shape[0] == W.shape[1] and bool((W == torch.eye(len(W)).to(W)).all()):
            return Metric.identity()
        return Metric.factored(self._root(W))

    @staticmethod
    def _root(W: Tensor) -> Tensor:
        return W.mT.contiguous()

    def predictor(self, weight: Tensor, offset: Tensor | None = None) -> Predictor | None:
        """The fit that is held, behind a feature map of this weight (k, d); None before the first one."""
        if not len(self.centers):
            return None
        metric, b = self.metric(weight), intercept_or_none(self.intercept)
        return Predictor(self.kernel, metric, self.centers, self.coefficients, offset, intercept=b)


class RadialSum(KernelSum):
    """``f(u) = b + Σ_j a_j k(‖u - u_j‖)`` of points u (n, k).

    Attributes:
        bandwidth: of the kernel, a scalar.
    """

    kernel: "Radial"
    bandwidth: Tensor
    name: ClassVar = "radial"
    fitted_sizes: ClassVar = {"centers": (0, 1), "coefficients": (0,)}

    def __init__(self, kernel: "Radial", shape: Sequence[int], outputs: int):
        super().__init__(kernel, shape, outputs)
        self.register_buffer("bandwidth", torch.ones((), dtype=torch.float64))

    def take_over(self, predictor: Predictor, ridge: float) -> None:
        """Hold a fit, and its bandwidth."""
        super().take_over(predictor, ridge)
        self.bandwidth.fill_(self.kernel.one_bandwidth)

    def predictor(self, weight: Tensor, offset: Tensor | None = None) -> Predictor | None:
        """With the bandwidth that is held, which a checkpoint may have brought."""
        self.kernel = replace(self.kernel, bandwidth=float(self.bandwidth))
        return super().predictor(weight, offset)

    def forward(self, u: Tensor) -> Tensor:
        """(n, k) to (n, c)."""
        function = replace(self.kernel, bandwidth=float(self.bandwidth)).function
        sums = _Radial.apply(u, self.centers, self.coefficients, function)
        return sums + self.intercept.to(sums)


class InnerSum(KernelSum):
    """``f(u) = b + Σ_j a_j φ(uᵀu_j)`` of points u (n, k)."""

    kernel: "InnerProduct"
    name: ClassVar = "inner"
    fitted_sizes: ClassVar = {"centers": (0, 1), "coefficients": (0,)}

    def forward(self, u: Tensor) -> Tensor:
        """(n, k) to (n, c)."""
        sums = self.kernel.function.value(u @ self.centers.to(u).mT) @ self.coefficients.to(u)
        return sums + self.intercept.to(sums)


class PatchSum(KernelSum):
    """``f = b + Σ_j a_j k(u, u_j)`` from maps u (n, D, h, w) of transformed patches.

    Attributes:
        centers: images (n, c, h, w), not transformed: their maps take ``patch_size²`` times as much.
        transform: T (D, D), a copy of what maps u, which maps the centers.
    """

    kernel: "Patches"
    transform: Tensor
    name: ClassVar = "sum"
    fitted_sizes: ClassVar = {"centers": (0, 1, 2, 3), "transform": (0, 1), "coefficients": (0,)}

    def __init__(self, kernel: "Patches", shape: Sequence[int], outputs: int):
        super().__init__(kernel, shape, outputs)
        self.register_buffer("transform", torch.eye(kernel.width(shape)))

    def take_over(self, predictor: Predictor, ridge: float) -> None:
        """Hold a fit, and its transform."""
        super().take_over(predictor, ridge)
        self.set_tensor("transform", predictor.weight)

    def predictor(self, weight: Tensor | None = None, offset: Tensor | None = None) -> Predictor | None:
        """Behind the transform that is held, whatever the weight."""
        return super().predictor(self.transform)

    @staticmethod
    def _root(W: Tensor) -> Tensor:
        return W.mT  # the kernel multiplies by T as it is in memory

    def forward(self, u: Tensor, same: Tensor) -> Tensor:
        """Outputs (n, outputs).

        Args:
            u: maps (n, D, h, w).
            same: (n,), which center each image is, -1 for none: such a pair contributes ½∇k(x, x).
        """
        sums = _OfPatches.apply(
            u, self.transform, self.centers, self.coefficients, same, self.kernel.function
        )
        return sums + self.intercept.to(sums)


def matches(points: Tensor, centers: Tensor) -> Tensor:
    """For each point (m, …) the first center (n, …) that equals it to the last bit, -1 for none: (m,)."""
    n = len(centers)
    later, first = copies(torch.cat([centers, points.to(centers)]).flatten(1))
    found = torch.full((len(points),), -1, device=centers.device)
    known = (later >= n) & (first < n)
    found[later[known] - n] = first[known]
    return found


class _Radial(torch.autograd.Function):
    """``K(u, centers) a``, with the gradient by `RadialKernel.slope`, once."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, centers: Tensor, a: Tensor, kernel: RadialKernel) -> Tensor:
        if not len(centers):
            ctx.save_for_backward(u, centers, a, u.new_zeros(len(u), 0))
            return u.new_zeros(len(u), a.shape[1])
        with exact_products(), torch._C.DisableTorchFunction():  # nothing in here for an audit's watch to see
            r = distances(u, centers)
            slope = torch.where(r == 0, 0.0, kernel.slope(r))  # it stands before u - u there
            ctx.save_for_backward(u, centers, a, slope)
            return wide_product(kernel.value(r), a)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        u, centers, a, slope = ctx.saved_tensors
        pulls = slope * (gradient @ a.mT)
        return pulls.sum(-1, keepdim=True) * u - pulls @ centers, None, None, None


class _OfPatches(torch.autograd.Function):
    """Kernel values times coefficients, with gradients of all outputs from one sweep."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, T: Tensor, centers: Tensor, a: Tensor, same: Tensor, kernel: ConvKernel
    ) -> Tensor:
        with torch._C.DisableTorchFunction():  # an audit's watch on functions has nothing to see in here
            x = beside(u, kernel.patch_size)
            inner = replace(kernel, stride=kernel.patch_size, padding="none")  # every patch apart
            outputs = u.new_zeros(len(u), a.shape[1])
            J = _jacobian_room(u, a.shape[1]) if ctx.needs_input_grad[0] else None
            for part, z in _parts(centers, T, kernel):
                outputs += wide_product(inner.matrix(x, z), a[part].to(u))
                if J is not None:
                    own = torch.where((same >= part.start) & (same < part.stop), same - part.start, -1)

                    def add(rows: slice, classes: slice, gradients: Tensor) -> None:
                        J[rows, classes] += gradients.permute(2, 3, 4, 0, 1)

                    each_gradient(add, inner, x, z, a[part], same=own)
        ctx.save_for_backward(*([] if J is None else [J]))
        return outputs

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (J,) = ctx.saved_tensors
        back = gradient[:, None] @ J.flatten(2)
        return back.view(len(J), *J.shape[2:]), None, None, None, None, None


def beside(u: Tensor, size: int) -> Tensor:
    """Maps (n, c · size², h, w) as images (n, c, h · size, w · size): patches of their own, side by side."""
    n, D, h, w = u.shape
    tiles = u.detach().view(n, D // size**2, size, size, h, w).permute(0, 1, 4, 2, 5, 3)
    return tiles.reshape(n, D // size**2, h * size, w * size)


def _parts(centers: Tensor, T: Tensor, kernel: ConvKernel) -> Iterator[tuple[slice, Tensor]]:
    """Some centers at a time, with their transformed patches side by side."""
    if not len(centers):
        return
    shape, size = kernel.shape(centers), kernel.patch_size
    h, w = shape.maps[0]
    for part in even_spans(len(centers), max(_HELD // (h * w * len(T)), 1)):
        yield part, beside(patch_maps(centers[part], T, size, shape.stride, shape.border), size)


def _jacobian_room(u: Tensor, outputs: int) -> Tensor:
    """Zeros (n, outputs, D, h, w).

    Raises:
        torch.OutOfMemoryError: they do not fit; an audit goes on with fewer images at a time.
    """
    size = u.numel() * outputs * u.itemsize
    if size > room(u.device, None):
        raise torch.OutOfMemoryError(f"gradients of {outputs} outputs at {len(u)} images take {size} bytes")
    return u.new_zeros(len(u), outputs, *u.shape[1:])
