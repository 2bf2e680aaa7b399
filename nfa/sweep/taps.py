"""Taps on the outputs of linear maps: each backward that passes by adds its ``δδᵀ`` to the map's sum."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nfa.ansatz.sensitivity import Sensitivity
from nfa.errors import NfaError
from nfa.layers.maps import LinearMap
from nfa.sweep.accumulate import Accumulator, channel_axis
from nfa.sweep.functional import FunctionalTaps, Site

_CACHED_BYTES = 2**22
_FIRST_PIECE, _FEWEST = 16, 8
_SAME = 1e-6

Collect = Callable[[Tensor], None]

_recorded: list[frozenset[nn.Module]] = []  # modules under taps now, one entry for each nested measurement


@dataclass(frozen=True)
class _Member:
    """One map that reads rows of a site's output."""

    accumulator: Accumulator
    rows: tuple[int, int] | None


@dataclass(frozen=True)
class Call:
    """The last call of a whole linear layer: what went in, the very tensor that came out, their versions."""

    lmap: LinearMap
    inputs: Tensor
    output: Tensor
    versions: tuple[int, int]

    @property
    def unchanged(self) -> bool:
        """Whether neither was changed in place since."""
        return self.versions == (self.inputs._version, self.output._version)


class Recorder:
    """Hooks where the maps act, and one accumulator a map.

    A *site* is a weight tensor (module, name of the parameter); several maps may be rows of one.

    Attributes:
        lines: the outputs or probes that the backward under way carries, none outside of one.
        seeds: what that backward starts from, (lines, batch, outputs); None where it starts elsewhere.
        last_call: of a whole linear layer, in the forward pass under way.
    """

    def __init__(
        self,
        maps: Sequence[LinearMap],
        bases: Mapping[str, Tensor],
        replicates: int,
        centered: bool,
        device: torch.device,
        model: nn.Module,
    ):
        if not maps:
            raise NfaError(
                "no linear map to measure: no nn.Linear, nn.Conv1d/2d/3d or attention with float32 or "
                "float64 weights among the layers chosen"
            )
        self.accumulators = {
            m.name: Accumulator(m, bases.get(m.name), replicates, centered, device) for m in maps
        }
        self.maps, self.device, self.centered = maps, device, centered
        self._modules = frozenset(model.modules())
        self.widest = 0.0  # bytes a sample of the largest output seen
        self.most_samples: int | None = None  # a piece may not be larger: memory
        self.most_bytes = 0
        self.lines: list[int] = []
        self.seeds: Tensor | None = None
        self.last_call: Call | None = None
        self._without_gradients: set[Site] = set()  # called so in the forward pass under way
        self.forwarding = False  # not so when a checkpointed part is run again during a backward
        self.sites: dict[Site, list[LinearMap]] = {}
        for m in maps:
            self.sites.setdefault((m.module, m.parameter), []).append(m)
        self._functional = FunctionalTaps(self.sites, self.tap, self._seen_elsewhere)
        self._onlookers = self._functional.other_owners(model)
        self.active: frozenset[str] | None = None  # maps to measure in this pass; None stands for all
        self.ends: list[Tensor] = []  # outputs of the active maps: no backward needs to go further

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Taps in place for one forward and its backwards, removed also when the model raises.

        Raises:
            NfaError: this forward is part of another that is recorded, of a network with the same modules.
        """
        if any(not self._modules.isdisjoint(modules) for modules in _recorded):
            raise NfaError(
                "a measurement began inside the forward pass of a network that is being measured (in a hook "
                "of it?): measure it before or after"
            )
        self.lines, self.most_bytes, self.forwarding = [], 0, True
        self._without_gradients = set()
        self.last_call, self.seeds, self.ends = None, None, []
        for accumulator in self.accumulators.values():
            accumulator.pending_rows = 0
        with ExitStack() as stack:
            called = {module: parameter for (module, parameter), maps in self.sites.items() if maps[0].called}
            for module, parameter in called.items():
                hook = self._forward_hook(parameter)
                handle = module.register_forward_hook(hook, prepend=True, with_kwargs=True)
                stack.callback(handle.remove)
            for module in (*called, *self._onlookers):  # before any hook that uses the weight once more
                enter = module.register_forward_pre_hook(self._functional.entering)
                leave = module.register_forward_hook(self._functional.leaving, prepend=True, always_call=True)
                stack.callback(enter.remove)
                stack.callback(leave.remove)
            stack.enter_context(self._functional)
            _recorded.append(self._modules)
            stack.callback(_recorded.remove, self._modules)
            try:
                yield
            finally:
                self.lines, self.last_call, self.seeds, self.ends = [], None, None, []
                self._functional.reset()

    def piece_size(self) -> int | None:
        """Samples to take at a time: on a CPU as many as keep the largest gradient in its cache."""
        size = None
        if self.device.type == "cpu":
            size = max(_FEWEST, int(_CACHED_BYTES // self.widest)) if self.widest else _FIRST_PIECE
        limits = [limit for limit in (size, self.most_samples) if limit is not None]
        return min(limits) if limits else None

    def start(self, samples: int, replicates: list[int], weight: int) -> None:
        """Announce samples and the replicates they add to: that of their batch, or one for each probe."""
        self.widest = max(self.widest, self.most_bytes / samples)
        for name, accumulator in self.accumulators.items():
            if self.active is None or name in self.active:
                accumulator.start(samples, replicates, weight)

    def results(self, samples: int) -> dict[str, Sensitivity]:
        """The sensitivities over all ``samples`` seen."""
        return {name: accumulator.result(samples) for name, accumulator in self.accumulators.items()}

    def tap(self, site: Site, z: Tensor, rows: tuple[int, int] | None = None) -> Tensor:
        """Watch the output ``z`` of a site, or of some of its rows; returns the tensor to go on with."""
        first_time = self.forwarding  # else a checkpointed part is run again: same tensors, no hooks
        if not torch.is_grad_enabled():
            self._without_gradients.add(site)
            return z  # cut off from the output by the model itself
        if not first_time and site in self._without_gradients:
            self.mark_unfollowed(site, "it is run again in the backward pass (reentrant checkpointing)")
        if torch._C._functorch.is_functorch_wrapped_tensor(z):
            self.mark_unfollowed(site, "it is called inside a torch.func transform")
            return z
        if self.active is not None and not any(m.name in self.active for m in self.sites[site]):
            return z  # not of interest in this pass
        if not z.requires_grad:  # nothing below needs a gradient: the graph starts here
            z = z.detach().requires_grad_().clone()
        if first_time:
            members = self._members(site, rows)
            for member in members:
                member.accumulator.note_call(z)
            self.most_bytes = max(self.most_bytes, z.nbytes)
            z.register_hook(self._gradient_hook(members))
            if self.active is not None:
                self.ends.append(z)
        # An in-place change of a view re-routes the gradient around the hook; a copy keeps it.
        return z.clone() if z._is_view() else z

    def mark_unfollowed(self, site: Site, why: str) -> None:
        """Some use of a site cannot be followed: what is seen of it is not all."""
        for m in self.sites[site]:
            self.accumulators[m.name].unfollowed = self.accumulators[m.name].unfollowed or why

    def _seen_elsewhere(self, site: Site, why: str) -> None:
        if self.forwarding:  # else it is nfa itself that reads the weight
            self.mark_unfollowed(site, why)

    def _members(self, site: Site, rows: tuple[int, int] | None) -> list[_Member]:
        """The maps that lie in the rows of the site that z holds, and where in z."""
        start, stop = rows or (0, None)
        members = []
        for m in self.sites[site]:
            if self.active is not None and m.name not in self.active:
                continue
            accumulator = self.accumulators[m.name]
            if m.rows is None:
                members.append(_Member(accumulator, None))
            elif m.rows[0] >= start and (stop is None or m.rows[1] <= stop):
                inner = (m.rows[0] - start, m.rows[1] - start)
                members.append(_Member(accumulator, inner))
        return members

    def _gradient_hook(self, members: list[_Member]) -> Callable[[Tensor], None]:
        def collect(delta: Tensor) -> None:
            for member in members:
                self._add(member, delta.detach())

        def hook(grad: Tensor) -> None:
            if not self.lines:  # a derivative that the model takes inside its own forward
                return
            with torch.no_grad():
                if len(self.lines) == 1:
                    collect(grad[None])
                else:
                    _Tap.apply(grad, collect)

        return hook

    def _add(self, member: _Member, delta: Tensor) -> None:
        accumulator = member.accumulator
        if accumulator.skip_calls:  # seen before memory ran out half-way through this backward
            accumulator.skip_calls -= 1
            accumulator.calls_of_line += 1
            return
        if accumulator.is_output is not False:
            accumulator.is_output = self._is_seed(delta, accumulator)
        if member.rows is not None:
            start, stop = member.rows
            delta = delta.narrow(channel_axis(accumulator.kind, delta), start, stop - start)
        accumulator.add(delta, self.lines)
        accumulator.calls_of_line += 1

    def _is_seed(self, delta: Tensor, accumulator: Accumulator) -> bool:
        """Whether the gradient is what the backward started from, up to one factor for all outputs."""
        if self.seeds is None or delta.numel() != self.seeds.numel():
            return False
        g, s = delta.reshape(-1), self.seeds.reshape(-1).to(delta.dtype)
        factor = float(g @ s / (s @ s))
        known = accumulator.factor if accumulator.factor is not None else factor
        accumulator.factor = known
        error = float(torch.linalg.vector_norm(g - known * s))
        return known != 0 and error <= _SAME * abs(known) * float(torch.linalg.vector_norm(s))

    def _forward_hook(self, parameter: str) -> Callable:
        def forward_hook(module: nn.Module, args: tuple, kwargs: dict[str, Any], z: Tensor) -> Tensor:
            if self._functional.replaced(module, parameter):
                self.mark_unfollowed((module, parameter), "it is called with another weight than its own")
            out = self.tap((module, parameter), z)
            maps = self.sites[module, parameter]
            x = args[0] if args else next(iter(kwargs.values()))
            whole = maps[0].kind == "linear" and maps[0].rows is None
            if self.forwarding and whole and isinstance(x, Tensor) and not x.is_inference():
                self.last_call = Call(maps[0], x, out, (x._version, out._version))
            return out

        return forward_hook


class _Tap(torch.autograd.Function):
    """Hands a gradient to a function of the physical tensor, also below ``torch.func.vmap``."""

    generate_vmap_rule = False

    @staticmethod
    def forward(grad: Tensor, collect: Collect) -> Tensor:
        collect(grad[None])
        return grad.new_empty(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        """Nothing to keep: a tap is never differentiated."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple, grad: Tensor, collect: Collect) -> tuple[Tensor, None]:
        if in_dims[0] is None:
            collect(grad.expand(info.batch_size, *grad.shape))
        else:
            collect(grad.movedim(in_dims[0], 0))
        return grad.new_empty(0), None
