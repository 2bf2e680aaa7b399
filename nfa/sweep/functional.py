"""Weights that a function reads without their module being called: attention, Swin, recurrent layers.

``F.multi_head_attention_forward`` takes its packed weights as arguments, and so do others; no module hook
ever fires. While a forward pass is recorded, calls of a few functions are watched, and where a weight among
their arguments is known, the linear map is computed apart and tapped.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nfa.layers.maps import LinearMap, is_shared_out
from nfa.sweep import recurrent
from nfa.sweep.under_way import Site

Tap = Callable[..., Tensor]

_HARMLESS = {F.embedding, torch.embedding, torch.zeros_like, torch.ones_like, torch.empty_like}
_PLAIN = {F.linear, F.conv1d, F.conv2d, F.conv3d}
_ATTENTION = inspect.signature(F.multi_head_attention_forward)


def _has_tensor(result: object) -> bool:
    values = result if isinstance(result, list | tuple) else [result]
    return any(isinstance(value, Tensor) and value.is_floating_point() for value in values)


class FunctionalTaps(TorchFunctionMode):
    """Watch functions that take the weights of sites.

    Args:
        sites: (module, name of its parameter) to the maps that are rows of it.
        tap: called with a site, the output of its map, and the rows of the weight that made it.
        unfollowed: called with a site and words, where its weight goes into something not followed here.
    """

    def __init__(
        self,
        sites: Mapping[Site, Sequence[LinearMap]],
        tap: Tap,
        unfollowed: Callable[[Site, str], None],
    ):
        super().__init__()
        self._tap, self._unfollowed = tap, unfollowed
        self._called = {(module, parameter) for (module, parameter), maps in sites.items() if maps[0].called}
        self._sites: dict[int, list[Site]] = {}
        self._shared_out: list[
            Site
        ] = []  # while their modules run, they have another parameter, the whole one
        self._weights = []  # keeps the identities in use
        for module, parameter in sites:
            weight = module._parameters.get(parameter)
            if weight is not None:
                self._sites.setdefault(id(weight), []).append((module, parameter))
                self._weights.append(weight)
                if is_shared_out(weight):
                    self._shared_out.append((module, parameter))
        self._inside: set[nn.Module] = set()

    def other_owners(self, model: nn.Module) -> list[nn.Module]:
        """Modules that share a watched weight without being a site: embeddings, layers not asked for."""
        called = {module for module, _ in self._called}
        return [
            m
            for m in model.modules()
            if m not in called
            and not any(m is site[0] for sites in self._sites.values() for site in sites)
            and any(id(p) in self._sites for p in m._parameters.values())
        ]

    def replaced(self, module: nn.Module, parameter: str) -> bool:
        """Whether a site that is called now has another weight (``torch.func.functional_call``).

        One that is shared out over processes is put together for the time of the call.
        """
        weight = module._parameters.get(parameter)
        own = [w for w in self._weights if (module, parameter) in self._sites[id(w)]]
        if not own or weight is own[0]:
            return False
        return not is_shared_out(own[0]) or is_shared_out(weight)

    def leaving(self, module: nn.Module, inputs: tuple, output: object) -> None:
        """Forward hook: the module has returned, or raised."""
        self._inside.discard(module)

    def entering(self, module: nn.Module, inputs: tuple) -> None:
        """Forward pre-hook: what the module does with its own weight is seen at its output."""
        self._inside.add(module)

    def reset(self) -> None:
        """Forget modules whose forward raised."""
        self._inside.clear()

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict[str, object] | None = None
    ) -> object:
        kwargs = kwargs or {}
        if func in _PLAIN:
            site = self._site(args[1] if len(args) > 1 else kwargs.get("weight"))
            z = func(*args, **kwargs)
            return z if site is None else self._tap(site, z)
        if func is F.multi_head_attention_forward:
            return self._attention(args, kwargs)
        watched = self._watched(args, kwargs)
        if watched and recurrent.follows(func, args, kwargs):
            return recurrent.unrolled(func, args, self._linear)
        with recurrent.differentiable() if recurrent.is_fused(func) else nullcontext():
            result = func(*args, **kwargs)
        if watched and func not in _HARMLESS and _has_tensor(result):
            for site in watched:
                self._unfollowed(site, f"its weight also goes into {getattr(func, '__name__', func)}")
        return result

    def _site(self, weight: object) -> Site | None:
        """The site of a weight that is used outside of every module that owns it."""
        sites = self._outside(weight)
        if len(sites) > 1:
            for site in sites:
                self._unfollowed(site, "a function uses the weight that it shares with another module")
            return None
        return sites[0] if sites else None

    def _outside(self, weight: object) -> list[Site]:
        sites = self._sites.get(id(weight)) or self._put_together(weight)
        if not sites or any(
            id(weight) == id(p) for module in self._inside for p in module._parameters.values()
        ):
            return []
        return sites

    def _put_together(self, weight: object) -> list[Site]:
        return [site for site in self._shared_out if site[0]._parameters.get(site[1]) is weight]

    def _watched(self, args: tuple, kwargs: dict[str, object]) -> list[Site]:
        """Sites whose weights stand among the arguments, used outside of their modules."""
        flat = [
            a for arg in (*args, *kwargs.values()) for a in (arg if isinstance(arg, list | tuple) else [arg])
        ]
        return [site for a in flat if isinstance(a, nn.Parameter) for site in self._outside(a)]

    def _linear(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, rows: tuple[int, int] | None = None
    ) -> Tensor:
        """``x Wᵀ + b`` with the given rows of W, tapped where W is known."""
        site = self._site(weight)
        part = slice(None) if rows is None else slice(*rows)
        z = F.linear(x, weight[part], None if bias is None else bias[part])
        return z if site is None else self._tap(site, z, rows)

    def _attention(self, args: tuple, kwargs: dict[str, object]) -> object:
        """Project apart, then let the original function attend with identities for projections."""
        bound = _ATTENTION.bind(*args, **kwargs)
        bound.apply_defaults()
        a = bound.arguments
        E = a["embed_dim_to_check"]
        separate, bias = a["use_separate_proj_weight"], a["in_proj_bias"]
        projected = []
        for i, (x, name) in enumerate(zip(("query", "key", "value"), "qkv", strict=True)):
            part = (i * E, (i + 1) * E)
            if separate:
                own = None if bias is None else bias[slice(*part)]
                projected.append(self._linear(a[x], a[f"{name}_proj_weight"], own))
            else:
                projected.append(self._linear(a[x], a["in_proj_weight"], bias, part))
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
