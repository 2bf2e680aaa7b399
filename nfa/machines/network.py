"""A kernel predictor as a module: a linear feature map ``Fᵀx`` and radial kernels around centers.

So an audit measures it as it measures a network: the weight of the feature map is ``W = Fᵀ`` with
``WᵀW = M``, and gradients come from autograd, by the skip rule where a center is hit.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nfa.errors import NfaError
from nfa.kernels import KERNELS, Metric, RadialKernel, distances, exact_products, make_kernel
from nfa.kernels.operator import wide_product
from nfa.machines.offset import intercept_or_none
from nfa.machines.once import differentiable_once
from nfa.machines.predictor import Predictor
from nfa.machines.sized import SizedOnLoad


class FeatureMap(SizedOnLoad, nn.Linear):
    """``Fᵀx`` without bias, its weight (k, d) not trained by gradients.

    Equal points have equal images whatever the batch (`Metric.transform`), so that a point which is a center
    is recognised as one.
    """

    computes_linear_map = True  # for `nfa.maps`: the forward is another, what it computes is not
    free_rows = True  # only M = WᵀW has a meaning
    fitted_sizes: ClassVar = {"weight": (0,)}

    def __init__(self, in_features: int):
        super().__init__(in_features, in_features, bias=False)
        self.weight = nn.Parameter(torch.eye(in_features), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) to (n, k)."""
        return _Transformed.apply(x, self.weight)


class RadialSum(SizedOnLoad):
    """``f(u) = b + Σ_j a_j k(‖u - u_j‖)``; before the first fit there are no centers and f is zero.

    Attributes:
        centers: (n, k).
        coefficients: (n, c).
        bandwidth: of the kernel, a scalar.
        ridge: with which the coefficients were found, a scalar.
        intercept: b (c,), zero where the targets kept their mean.
    """

    fitted_sizes: ClassVar = {"centers": (0, 1), "coefficients": (0,)}
    zero_if_absent: ClassVar = ("intercept",)

    def __init__(self, kernel: str, options: dict[str, Any], width: int, outputs: int):
        super().__init__()
        self._name, self._options = kernel, options
        self.register_buffer("centers", torch.zeros(0, width))
        self.register_buffer("bandwidth", torch.ones((), dtype=torch.float64))
        self.register_buffer("ridge", torch.zeros((), dtype=torch.float64))
        self.register_buffer("coefficients", torch.zeros(0, outputs))
        self.register_buffer("intercept", torch.zeros(outputs, dtype=torch.float64))

    @property
    def kernel(self) -> RadialKernel:
        """The kernel, with its bandwidth."""
        return make_kernel(self._name, float(self.bandwidth), **self._options)

    def hold(self, predictor: Predictor, ridge: float) -> None:
        """Take over a fit."""
        self.put("centers", predictor.centers)
        self.put("coefficients", predictor.coefficients)
        self.bandwidth.fill_(predictor.kernel.bandwidth)
        self.ridge.fill_(ridge)
        b = predictor.intercept
        self.put("intercept", torch.zeros_like(self.intercept) if b is None else b)

    def forward(self, u: Tensor) -> Tensor:
        """(n, k) to (n, c)."""
        sums = _Radial.apply(u, self.centers, self.coefficients, self.kernel)
        return sums + self.intercept.to(sums)

    def predictor(self, metric: Metric, offset: Tensor) -> Predictor:
        """The predictor behind a feature map, of the points that come into it."""
        b = intercept_or_none(self.intercept)
        return Predictor(self.kernel, metric, offset, self.centers, self.coefficients, intercept=b)


class KernelNetwork(SizedOnLoad):
    """``radial(feature_map(x - offset))``; inputs of any shape (n, …) are flattened.

    Args:
        kernel: name, see `nfa.kernels.make_kernel`.
        in_features: d.
        outputs: c.
        **kernel_options: ``nu`` of matern, ``q`` of exponential.
    """

    fitted_sizes: ClassVar = {"offset": ()}

    def __init__(self, kernel: str, in_features: int, outputs: int, **kernel_options: Any):
        super().__init__()
        self.register_buffer("offset", torch.zeros(in_features))
        self.feature_map = FeatureMap(in_features)
        self.radial = RadialSum(kernel, kernel_options, in_features, outputs)

    @classmethod
    def of(cls, predictor: Predictor) -> "KernelNetwork":
        """The network of a predictor."""
        name, options = kernel_name(predictor.kernel)
        network = cls(name, len(predictor.offset), predictor.coefficients.shape[1], **options)
        network.hold(predictor)
        return network

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, c)."""
        return self.radial(self.feature_map(x.flatten(1) - self.offset))

    @property
    def ridge(self) -> Tensor:
        """With which the coefficients were found, a scalar."""
        return self.radial.ridge

    def hold(self, predictor: Predictor, ridge: float = 0.0) -> None:
        """Take over a fit, found with a ridge."""
        predictor = predictor.settled()
        self.put("offset", predictor.offset)
        self.feature_map.put("weight", predictor.root().mT.contiguous())
        self.radial.hold(predictor, ridge)

    def predictor(self) -> Predictor | None:
        """The fit that is held; None before the first one."""
        weight, radial = self.feature_map.weight.detach(), self.radial
        if not len(radial.centers):
            return None
        metric = Metric.factored(weight.mT.contiguous())
        if weight.shape[0] == weight.shape[1] and bool((weight == torch.eye(len(weight)).to(weight)).all()):
            metric = Metric.identity()
        return radial.predictor(metric, self.offset)


def kernel_name(kernel: RadialKernel) -> tuple[str, dict[str, Any]]:
    """The name of a kernel in `nfa.kernels.KERNELS`, and its options beside the bandwidth."""
    name = next((name for name, known in KERNELS.items() if known is type(kernel)), None)
    if name is None:
        raise NfaError(f"{type(kernel).__name__} is not in nfa.kernels.KERNELS: register it under a name")
    return name, {key: value for key, value in vars(kernel).items() if key != "bandwidth"}


class _Transformed(torch.autograd.Function):
    """`Metric.transform`, with the gradient of a linear map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return Metric.factored(weight.mT).transform(x)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradient @ weight, None


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
