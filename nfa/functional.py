"""Weights that a function reads without their module being called: attention, Swin, recurrent layers.

``F.multi_head_attention_forward`` takes its packed weights as arguments, and so do others; no module hook
ever fires. While a forward pass is recorded, calls of a few functions are watched, and where a weight among
their arguments is known, the linear map is computed apart and tapped.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nfa import recurrent
from nfa.maps import LinearMap

Site = tuple[nn.Module, str]
Tap = Callable[..., Tensor]

_PLAIN = {F.linear, F.conv1d, F.conv2d, F.conv3d}
_ATTENTION = inspect.signature(F.multi_head_attention_forward)


class FunctionalTaps(TorchFunctionMode):
    """Watch functions that take the weights of sites.

    Args:
        sites: (module, name of its parameter) to the maps that are rows of it.
        tap: called with a site, the output of its map, and the rows of the weight that made it.
    """

    def __init__(self, sites: Mapping[Site, Sequence[LinearMap]], tap: Tap):
        super().__init__()
        self._tap = tap
        self._sites: dict[int, list[Site]] = {}
        self._weights = []  # keeps the identities in use
        for module, parameter in sites:
            weight = module._parameters.get(parameter)
            if weight is not None:
                self._sites.setdefault(id(weight), []).append((module, parameter))
                self._weights.append(weight)
        self._inside: set[nn.Module] = set()

    def entering(self, module: nn.Module, inputs: tuple) -> None:
        """Forward pre-hook: what the module does with its own weight is seen at its output."""
        self._inside.add(module)

    def leaving(self, module: nn.Module) -> None:
        """The module has returned."""
        self._inside.discard(module)

    def reset(self) -> None:
        """Forget modules whose forward raised."""
        self._inside.clear()

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _PLAIN:
            site = self._site(args[1] if len(args) > 1 else kwargs.get("weight"))
            z = func(*args, **kwargs)
            return z if site is None else self._tap(site, z)
        if func is F.multi_head_attention_forward:
            return self._attention(args, kwargs)
        if recurrent.is_recurrent(func) and self._knows(args):
            return recurrent.unrolled(func, args, kwargs, self._linear)
        return func(*args, **kwargs)

    def _site(self, weight: Any) -> Site | None:
        sites = self._sites.get(id(weight), ())
        return None if not sites or any(module in self._inside for module, _ in sites) else sites[0]

    def _knows(self, args: tuple) -> bool:
        flat = [a for arg in args for a in (arg if isinstance(arg, list | tuple) else [arg])]
        return any(id(a) in self._sites for a in flat)

    def _linear(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, rows: tuple[int, int] | None = None
    ) -> Tensor:
        """``x Wᵀ + b`` with the given rows of W, tapped where W is known."""
        site = self._site(weight)
        part = slice(None) if rows is None else slice(*rows)
        z = F.linear(x, weight[part], None if bias is None else bias[part])
        return z if site is None else self._tap(site, z, rows)

    def _attention(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Project apart, then let the original function attend with identities for projections."""
        bound = _ATTENTION.bind(*args, **kwargs)
        bound.apply_defaults()
        a = bound.arguments
        E = a["embed_dim_to_check"]
        separate, bias = a["use_separate_proj_weight"], a["in_proj_bias"]
        projected = []
        for i, (x, name) in enumerate(zip(("query", "key", "value"), "qkv", strict=True)):
            weight = a[f"{name}_proj_weight"] if separate else a["in_proj_weight"]
            part = (i * E, (i + 1) * E)
            b = None if bias is None else bias[slice(*part)]
            if separate:
                projected.append(self._linear(a[x], weight, b))
            else:
                site = self._site(weight)
                z = F.linear(a[x], weight[slice(*part)], b)
                projected.append(z if site is None else self._tap(site, z, part))
        identity = torch.eye(E, dtype=projected[0].dtype, device=projected[0].device)
        out_weight, out_bias = a["out_proj_weight"], a["out_proj_bias"]
        a.update(
            zip(("query", "key", "value"), projected, strict=True),
            in_proj_weight=None, in_proj_bias=None, use_separate_proj_weight=True,
            q_proj_weight=identity, k_proj_weight=identity, v_proj_weight=identity,
            out_proj_weight=identity, out_proj_bias=None,
        )  # fmt: skip
        attended, weights = F.multi_head_attention_forward(*bound.args, **bound.kwargs)
        return self._linear(attended, out_weight, out_bias), weights
