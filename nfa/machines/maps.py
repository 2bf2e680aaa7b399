"""The linear maps of machines as modules, so that an audit measures them as those of a network.

The weight of a feature map is ``W`` with ``WᵀW = M``. Equal inputs have equal images whatever the batch
(`Metric.transform`), so that an input which is a center is recognised as one.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from nfa.kernels import Metric
from nfa.machines.first_derivatives import Context, differentiable_once
from nfa.machines.fitted_sizes import SizedOnLoad


class FeatureMap(SizedOnLoad, nn.Linear):
    """``W x`` without bias, its weight (k, d) not trained by gradients."""

    computes_linear_map = True  # the forward is another, what it computes is not
    arbitrary_rows = True  # only M = WᵀW has a meaning
    fitted_sizes: ClassVar = {"weight": (0,)}

    def __init__(self, in_features: int):
        super().__init__(in_features, in_features, bias=False)
        self.weight = nn.Parameter(torch.eye(in_features), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) to (n, k)."""
        return _Transformed.apply(x, self.weight)


class RandomMap(FeatureMap):
    """``R x + b``, not trained by gradients.

    Args:
        R: (D, d).
        b: (D,) or None.
    """

    fitted_sizes: ClassVar = {"weight": (), "bias": ()}
    arbitrary_rows = False

    def __init__(self, R: Tensor, b: Tensor | None):
        super().__init__(R.shape[1])
        self.set_tensor("weight", R.to(self.weight))
        if b is not None:
            self.bias = nn.Parameter(b.to(self.weight), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) to (n, D)."""
        z = super().forward(x)
        return z if self.bias is None else z + self.bias


class PatchMap(SizedOnLoad, nn.Conv2d):
    """``T u`` of every patch u, its weight (D, c, size, size) not trained by gradients; at first T = I."""

    computes_linear_map = True  # the forward is another, what it computes is not
    arbitrary_rows = True  # only M = WᵀW has a meaning
    fitted_sizes: ClassVar = {"weight": ()}

    def __init__(self, channels: int, patch_size: int, stride: int = 1, padding: int = 0):
        D = channels * patch_size**2
        super().__init__(channels, D, patch_size, stride, padding, bias=False)
        self.set_tensor("weight", torch.eye(D))

    def set_tensor(self, name: str, value: Tensor) -> None:
        """Replace the weight by a copy of T (k, D), or of a weight of the right shape."""
        weight = value.detach().reshape(len(value), self.in_channels, *self.kernel_size).clone()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.out_channels = len(weight)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, H, W) to (n, k, h, w)."""
        return _TransformedPatches.apply(x, self.weight, self.stride[0], self.padding[0])


class RandomFilters(PatchMap):
    """``A z`` at every position, (width, k)."""

    arbitrary_rows = False

    def __init__(self, A: Tensor):
        super().__init__(A.shape[1], 1)
        self.set_tensor("weight", A.to(self.weight))


def patch_maps(x: Tensor, T: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """Maps (n, k, h, w) of images (n, c, H, W), for T (k, D), without gradients."""
    h, w = ((side + 2 * padding - size) // stride + 1 for side in x.shape[2:])
    rows = F.unfold(x.detach(), size, padding=padding, stride=stride).mT  # (n, positions, D)
    U = Metric.factored(T.mT).transform(rows.flatten(0, 1))
    return U.view(len(x), h, w, -1).permute(0, 3, 1, 2).contiguous()


class _Transformed(torch.autograd.Function):
    """`Metric.transform`, with the gradient of a linear map."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return Metric.factored(weight.mT).transform(x)

    @staticmethod
    @differentiable_once
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradient @ weight, None


class _TransformedPatches(torch.autograd.Function):
    """`Metric.transform` of every patch, with the gradient of a convolution."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.geometry = x.shape, stride, padding
        return patch_maps(x, weight.flatten(1), weight.shape[-1], stride, padding)

    @staticmethod
    @differentiable_once
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return conv2d_input(ctx.geometry[0], weight, gradient, *ctx.geometry[1:]), None, None, None
