"""A convolutional kernel predictor as a module: a convolution with the learned T, and the kernel behind it.

So an audit measures it as it measures a network: the weight of the convolution is ``W = T`` with
``WᵀW = M``, every patch is an input of its own, and gradients are those of `nfa.kernels.conv_gradient`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nfa.kernels import Metric
from nfa.kernels.conv import ConvKernel
from nfa.kernels.conv_gradient import each_gradient
from nfa.kernels.conv_recursion import spans
from nfa.kernels.operator import wide_product
from nfa.machines.conv_predictor import ConvPredictor, matches, unless_identity
from nfa.machines.offset import intercept_or_none
from nfa.machines.once import differentiable_once
from nfa.machines.sized import SizedOnLoad
from nfa.solvers import room

_HELD = 2**24  # numbers of the transformed patches of the centers at a time


class PatchMap(SizedOnLoad, nn.Conv2d):
    """``T u`` of every patch u, its weight (D, c, size, size) not trained by gradients; at first T = I.

    Equal patches have equal images whatever the batch and the position (`Metric.transform`), so that patches
    which two images share are recognised as such.
    """

    computes_linear_map = True  # for `nfa.maps`: the forward is another, what it computes is not
    free_rows = True  # only M = WᵀW has a meaning
    fitted_sizes: ClassVar = {"weight": ()}

    def __init__(self, channels: int, patch_size: int, stride: int = 1, padding: int = 0):
        D = channels * patch_size**2
        super().__init__(channels, D, patch_size, stride, padding, bias=False)
        self.put("weight", torch.eye(D))

    def put(self, name: str, value: Tensor) -> None:
        """Replace the weight by a copy of T (k, D), or of a weight of the right shape."""
        weight = value.detach().reshape(len(value), self.in_channels, *self.kernel_size).clone()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.out_channels = len(weight)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, H, W) to (n, k, h, w)."""
        return _Transformed.apply(x, self.weight, self.stride[0], self.padding[0])


class ConvSum(SizedOnLoad):
    """``f = b + Σ_j a_j k(u, u_j)`` from maps u of transformed patches; before the first fit f is zero.

    Attributes:
        kernel: k.
        centers: images (n, c, h, w), not transformed: their maps take ``patch_size²`` times as much.
        transform: T (D, D), a copy of what maps u, which maps the centers.
        coefficients: (n, outputs).
        ridge: with which the coefficients were found, a scalar.
        intercept: b (outputs,), zero where the targets kept their mean.
    """

    zero_if_absent: ClassVar = ("intercept",)
    fitted_sizes: ClassVar = {"centers": (0, 1, 2, 3), "transform": (0, 1), "coefficients": (0,)}

    def __init__(self, kernel: ConvKernel, shape: tuple[int, int, int], outputs: int):
        super().__init__()
        self.kernel = kernel
        self.register_buffer("centers", torch.zeros(0, *shape))
        self.register_buffer("transform", torch.eye(shape[0] * kernel.patch_size**2))
        self.register_buffer("coefficients", torch.zeros(0, outputs))
        self.register_buffer("ridge", torch.zeros((), dtype=torch.float64))
        self.register_buffer("intercept", torch.zeros(outputs, dtype=torch.float64))

    def hold(self, predictor: ConvPredictor, ridge: float) -> None:
        """Take over a fit."""
        self.kernel = predictor.kernel
        self.put("centers", predictor.centers)
        self.put("transform", predictor.root())
        self.put("coefficients", predictor.coefficients)
        self.ridge.fill_(ridge)
        b = predictor.intercept
        self.put("intercept", torch.zeros_like(self.intercept) if b is None else b)

    def forward(self, u: Tensor, same: Tensor) -> Tensor:
        """Outputs (n, outputs).

        Args:
            u: maps (n, D, h, w).
            same: (n,), which center each image is, -1 for none: such a pair contributes ½∇k(x, x).
        """
        sums = _Sum.apply(u, self.transform, self.centers, self.coefficients, same, self.kernel)
        return sums + self.intercept.to(sums)

    def predictor(self) -> ConvPredictor | None:
        """The fit that is held; None before the first one."""
        if not len(self.centers):
            return None
        T, b = unless_identity(self.transform), intercept_or_none(self.intercept)
        return ConvPredictor(self.kernel, T, self.centers, self.coefficients, b)


class ConvKernelNetwork(nn.Module):
    """``sum(feature_map(x))``: outputs (n, outputs) of images (n, c, h, w); zero before the first fit.

    An image that equals a center to the last bit is taken to be that center. Without gradients the kernel is
    computed from the images, which is faster.

    Args:
        kernel: of the predictor, or a dictionary of its options.
        shape: of one image, (c, h, w).
        outputs: number of outputs.

    Raises:
        NfaError: the images are smaller than what the kernel sees.
    """

    def __init__(self, kernel: ConvKernel | dict[str, Any], shape: Sequence[int], outputs: int):
        super().__init__()
        kernel = ConvKernel(**kernel) if isinstance(kernel, Mapping) else kernel
        border = kernel.shape(torch.empty(1, *shape)).border
        self.feature_map = PatchMap(shape[0], kernel.patch_size, kernel.stride, border)
        self.sum = ConvSum(kernel, tuple(shape), outputs)

    @classmethod
    def of(cls, predictor: ConvPredictor) -> "ConvKernelNetwork":
        """The network of a predictor."""
        centers, outputs = predictor.centers, predictor.coefficients.shape[1]
        network = cls(predictor.kernel, tuple(centers.shape[1:]), outputs)
        network.hold(predictor)
        return network

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, outputs)."""
        return outputs_of(self.feature_map, self.sum, x)

    @property
    def ridge(self) -> Tensor:
        """With which the coefficients were found, a scalar."""
        return self.sum.ridge

    def hold(self, predictor: ConvPredictor, ridge: float = 0.0) -> None:
        """Take over a fit, found with a ridge."""
        self.feature_map.put("weight", predictor.root())
        self.sum.hold(predictor, ridge)

    def predictor(self) -> ConvPredictor | None:
        """The fit that is held; None before the first one."""
        return self.sum.predictor()


def outputs_of(feature_map: nn.Module, tail: ConvSum, x: Tensor) -> Tensor:
    """Outputs (n, outputs) of images x, with gradients by way of the maps where gradients are on."""
    if torch.is_grad_enabled() or not len(tail.centers):
        return tail(feature_map(x), matches(x.detach(), tail.centers))
    return tail.predictor()(x)


class _Transformed(torch.autograd.Function):
    """`Metric.transform` of every patch, with the gradient of a convolution."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.geometry = x.shape, stride, padding
        return patch_maps(x, weight.flatten(1), weight.shape[-1], stride, padding)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return nn.grad.conv2d_input(ctx.geometry[0], weight, gradient, *ctx.geometry[1:]), None, None, None


class _Sum(torch.autograd.Function):
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


def patch_maps(x: Tensor, T: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """Maps (n, k, h, w) of images (n, c, H, W), for T (k, D), without gradients."""
    h, w = ((side + 2 * padding - size) // stride + 1 for side in x.shape[2:])
    rows = F.unfold(x.detach(), size, padding=padding, stride=stride).mT  # (n, positions, D)
    U = Metric.factored(T.mT).transform(rows.flatten(0, 1))
    return U.view(len(x), h, w, -1).permute(0, 3, 1, 2).contiguous()


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
    for part in spans(len(centers), max(_HELD // (h * w * len(T)), 1)):
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
