"""The Taylor expansion of a network in its weights, around those it starts with."""

import importlib
import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.parameter import is_lazy

from nfa.checks import choice
from nfa.errors import NfaError
from nfa.nets.forward_twice import forward_twice
from nfa.sweep.returned import pick_tensor

ORDERS = ("linear", "quadratic")


class Expansion(nn.Module):
    """The linear or quadratic model of a network around its initial weights ``w₀`` (arXiv 2205.11787).

    With ``d = w − w₀``: ``f(x; w₀) + ∇f·d``, and ``+ ½ dᵀ ∇²f d`` for the quadratic one; exactly, by nested
    forward differentiation, for any network that PyTorch can differentiate so. For two layers of ReLU the
    quadratic model keeps the gates of the start. Its parameters are those of the network, by the same names
    with ``/`` for ``.``; what they were at the start are buffers. It has no layers whose output is a linear
    map of their input, so there is nothing of it that the ansatz could be measured on; its input has an AGOP.

    Args:
        net: a network with the weights to expand around.
        order: ``linear`` or ``quadratic``.

    Raises:
        NfaError: an unknown order, a network that normalises by statistics of the batch, one without weights
            or with some of unknown shape; in a forward, one that PyTorch cannot differentiate so.
    """

    unmeasured = "an expansion around the initial weights has no layers"

    def __init__(self, net: nn.Module, order: str = "quadratic"):
        super().__init__()
        choice("order", order, ORDERS)
        normalising = batch_statistics(net)
        if normalising is not None:
            raise NfaError(
                f"{normalising} of the network normalises by statistics of the batch, which the expansion in "
                "its weights does not carry: take a network without (model.batch_norm=false)"
            )
        if not any(True for _ in net.parameters()) or any(map(is_lazy, (*net.parameters(), *net.buffers()))):
            raise NfaError(
                "the network has no weights, or some of unknown shape, to expand around: run a lazy one on a "
                "batch first, or leave model.expand out"
            )
        _load_forward_differentiation()
        self.order = order
        self._hidden = (net,)  # in a tuple it is no part: only its structure is used
        self._weights = {name: name.replace(".", "/") for name, _ in net.named_parameters()}
        self._buffers_of_net = {name: name.replace(".", "/") for name, _ in net.named_buffers()}
        for name, weight in net.named_parameters():
            trained = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
            self.register_parameter(self._weights[name], trained)
            self.register_buffer(f"start/{self._weights[name]}", weight.detach().clone())
        for name, buffer in net.named_buffers():
            self.register_buffer(self._buffers_of_net[name], buffer.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of inputs x."""
        if not torch.is_inference_mode_enabled():
            return self._expanded(x)
        with torch.inference_mode(False), torch.no_grad():  # in there PyTorch 2.11 takes all slopes for zero
            return self._expanded(x.clone())

    def _expanded(self, x: Tensor) -> Tensor:
        (net,) = self._hidden
        net.train(self.training)
        start = {name: self.get_buffer(f"start/{key}") for name, key in self._weights.items()}
        moved = {name: self.get_parameter(key) - start[name] for name, key in self._weights.items()}
        fixed = {name: self.get_buffer(key) for name, key in self._buffers_of_net.items()}

        def value(weights: dict[str, Tensor]) -> Tensor:
            return pick_tensor(functional_call(net, (weights, fixed), (x,)))

        def with_slope(weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            at, slope, *_ = jvp(value, (weights,), (moved,))
            return at, slope

        with forward_twice():
            if self.order == "linear":
                at_start, slope = with_slope(start)
                return at_start + slope
            (at_start, slope), (_, curvature), *_ = jvp(with_slope, (start,), (moved,))
            return at_start + slope + curvature / 2


def _load_forward_differentiation() -> None:
    """Import what PyTorch would with the first `jvp`, without its warning of a deprecation within itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def batch_statistics(network: nn.Module) -> str | None:
    """Name of the first module that normalises by statistics of the batch; None where there is none."""
    for name, module in network.named_modules():
        is_norm = isinstance(module, nn.modules.batchnorm._NormBase)
        if is_norm and (module.track_running_stats or isinstance(module, nn.modules.batchnorm._BatchNorm)):
            return name or type(module).__name__
    return None
