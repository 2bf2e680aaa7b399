"""Taps on the outputs of linear maps: each backward that passes by adds its ``δδᵀ`` to the map's sum."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from nfa.ansatz.sensitivity import Sensitivity
from nfa.errors import NfaError
from nfa.layers.maps import LinearMap
from nfa.sweep.accumulate import Accumulator, channel_axis
from nfa.sweep.functional import FunctionalTaps
from nfa.sweep.under_way import Backward, Call, Forward, Site

_CACHED_BYTES = 2**22
_FIRST_PIECE, _FEWEST = 16, 8

Collect = Callable[[Tensor], None]

_recorded: list[frozenset[nn.Module]] = []  # modules under taps now, one entry for each nested measurement


@dataclass(frozen=True)
class _Member:
    """One map that reads rows of a site's output."""

    accumulator: Accumulator
    rows: tuple[int, int] | None

    def add(self, delta: Tensor, backward: Backward) -> None:
        """Add the gradient of the site's output, unless it was before memory ran out half-way through."""
        accumulator = self.accumulator
        if not backward.is_known(accumulator.name):
            accumulator.compare(delta, backward.seeds)
            if self.rows is not None:
                start, stop = self.rows
                delta = delta.narrow(channel_axis(accumulator.kind, delta), start, stop - start)
            accumulator.add(delta, backward.lines)
        backward.count(accumulator.name)


def _device_of(lmap: LinearMap, device: torch.device) -> torch.device:
    """Where a map acts: a network may lie on several devices."""
    places = (p.device for p in lmap.module.parameters() if p.device.type != "meta")
    return next(places, device)


class Recorder:
    """Hooks where the maps act, and one accumulator a map.

    A *site* is a weight tensor (module, name of the parameter); several maps may be rows of one.

    Attributes:
        accumulators: by the name of the map.
        active: names of the maps to measure in this pass; None stands for all.
        most_samples: a piece may not be larger: memory.
    """

    def __init__(
        self,
        maps: Sequence[LinearMap],
        bases: Mapping[str, Tensor],
        replicates: int,
        centered: bool,
        device: torch.device,
        model: nn.Module,
        most_samples: int | None = None,
    ):
        if not maps:
            raise NfaError(
                "no linear map to measure: no nn.Linear, nn.Conv1d/2d/3d or attention with float32 or "
                "float64 weights among the layers chosen"
            )
        self.accumulators = {
            m.name: Accumulator(m, bases.get(m.name), replicates, centered, _device_of(m, device))
            for m in maps
        }
        self.maps, self.device, self.centered = maps, device, centered
        self._modules = frozenset(model.modules())
        self.widest = 0.0  # bytes a sample of the largest output seen
        self.most_samples = most_samples
        self._forward = Forward()  # the one under way
        self.sites: dict[Site, list[LinearMap]] = {}
        for m in maps:
            self.sites.setdefault((m.module, m.parameter), []).append(m)
        self._functional = FunctionalTaps(self.sites, self.tap, self._seen_elsewhere)
        self._onlookers = self._functional.other_owners(model)
        self.active: frozenset[str] | None = None

    @contextmanager
    def recording(self) -> Iterator[Forward]:
        """Taps in place for one forward and its backwards, removed also when the model raises.

        Raises:
            NfaError: this forward is part of another that is recorded, of a network with the same modules.
        """
        if any(not self._modules.isdisjoint(modules) for modules in _recorded):
            raise NfaError(
                "a measurement began inside the forward pass of a network that is being measured (in a hook "
                "of it?): measure it before or after"
            )
        self._forward = Forward()
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
                yield self._forward
            finally:
                self._forward = Forward()  # nothing of the graph is kept
                self._functional.reset()

    def piece_size(self) -> int | None:
        """Samples to take at a time: on a CPU as many as keep the largest gradient in its cache."""
        size = None
        if self.device.type == "cpu":
            size = max(_FEWEST, int(_CACHED_BYTES // self.widest)) if self.widest else _FIRST_PIECE
        limits = [limit for limit in (size, self.most_samples) if limit is not None]
        return min(limits) if limits else None

    def measure_only(self, layers: frozenset[str]) -> None:
        """Measure some of the maps from now on."""
        self.active = layers

    def halve(self, samples: int) -> int:
        """Carry half as many as these samples at a time; returns how many that is."""
        self.most_samples = samples // 2
        return self.most_samples

    def start(self, forward: Forward, samples: int, replicates: list[int], weight: int) -> None:
        """Announce samples and the replicates they add to: that of their batch, or one for each probe."""
        self.widest = max(self.widest, forward.most_bytes / samples)
        for name, accumulator in self.accumulators.items():
            if self.is_active(name):
                accumulator.start(samples, forward.rows.get(name, 0), replicates, weight)

    def results(self, samples: int) -> dict[str, Sensitivity]:
        """The sensitivities over all ``samples`` seen."""
        return {name: accumulator.result(samples) for name, accumulator in self.accumulators.items()}

    def is_active(self, name: str) -> bool:
        """Whether a map is measured in this pass."""
        return self.active is None or name in self.active

    def tap(self, site: Site, z: Tensor, rows: tuple[int, int] | None = None) -> Tensor:
        """Watch the output ``z`` of a site, or of some of its rows; returns the tensor to go on with."""
        forward = self._forward  # where it is done, a checkpointed part is run again: same tensors, no hooks
        if not torch.is_grad_enabled():
            forward.without_gradients.add(site)
            return z  # cut off from the output by the model itself
        if forward.done and site in forward.without_gradients:
            self.mark_unfollowed(site, "it is run again in the backward pass (reentrant checkpointing)")
        if torch._C._functorch.is_functorch_wrapped_tensor(z):
            self.mark_unfollowed(site, "it is called inside a torch.func transform")
            return z
        if not any(self.is_active(m.name) for m in self.sites[site]):
            return z  # not of interest in this pass
        if not z.requires_grad:  # nothing below needs a gradient: the graph starts here
            z = z.detach().requires_grad_().clone()
        if not forward.done:
            members = self._members(site, rows)
            for member in members:
                forward.note(member.accumulator.name, member.accumulator.note_call(z))
            z.register_hook(self._gradient_hook(members))
            forward.note_output(z, is_end=self.active is not None)
        # An in-place change of a view re-routes the gradient around the hook; a copy keeps it.
        return z.clone() if z._is_view() else z

    def mark_unfollowed(self, site: Site, why: str) -> None:
        """Some use of a site cannot be followed: what is seen of it is not all."""
        for m in self.sites[site]:
            if not self.accumulators[m.name].unfollowed:
                self.accumulators[m.name].leave_out(why)

    def _seen_elsewhere(self, site: Site, why: str) -> None:
        if not self._forward.done:  # else it is nfa itself that reads the weight
            self.mark_unfollowed(site, why)

    def _members(self, site: Site, rows: tuple[int, int] | None) -> list[_Member]:
        """The maps that lie in the rows of the site that z holds, and where in z."""
        start, stop = rows or (0, None)
        members = []
        for m in self.sites[site]:
            if not self.is_active(m.name):
                continue
            accumulator = self.accumulators[m.name]
            if m.rows is None:
                members.append(_Member(accumulator, None))
            elif m.rows[0] >= start and (stop is None or m.rows[1] <= stop):
                inner = (m.rows[0] - start, m.rows[1] - start)
                members.append(_Member(accumulator, inner))
        return members

    def _gradient_hook(self, members: list[_Member]) -> Callable[[Tensor], None]:
        def hook(grad: Tensor) -> None:
            backward = self._forward.backward
            if backward is None:  # a derivative that the model takes inside its own forward
                return

            def collect(delta: Tensor) -> None:
                for member in members:
                    member.add(delta.detach(), backward)

            with torch.no_grad():
                if len(backward.lines) == 1:
                    collect(grad[None])
                else:
                    _Tap.apply(grad, collect)

        return hook

    def _forward_hook(self, parameter: str) -> Callable:
        def forward_hook(module: nn.Module, args: tuple, kwargs: dict[str, object], z: Tensor) -> Tensor:
            if self._functional.replaced(module, parameter):
                self.mark_unfollowed((module, parameter), "it is called with another weight than its own")
            out = self.tap((module, parameter), z)
            maps = self.sites[module, parameter]
            x = args[0] if args else next(iter(kwargs.values()))
            whole = maps[0].kind == "linear" and maps[0].rows is None
            if not self._forward.done and whole and isinstance(x, Tensor) and not x.is_inference():
                self._forward.note_call(Call(maps[0], x, out, (x._version, out._version)))
            return out

        return forward_hook


class _Mapped(Protocol):
    """What is used of what ``torch.func.vmap`` tells a function that it maps."""

    batch_size: int


class _Tap(torch.autograd.Function):
    """Hands a gradient to a function of the physical tensor, also below ``torch.func.vmap``."""

    generate_vmap_rule = False

    @staticmethod
    def forward(grad: Tensor, collect: Collect) -> Tensor:
        collect(grad[None])
        return grad.new_empty(0)

    @staticmethod
    def setup_context(ctx: object, inputs: tuple, output: Tensor) -> None:
        """Nothing to keep: a tap is never differentiated."""

    @staticmethod
    def vmap(info: _Mapped, in_dims: tuple, grad: Tensor, collect: Collect) -> tuple[Tensor, None]:
        if in_dims[0] is None:
            collect(grad.expand(info.batch_size, *grad.shape))
        else:
            collect(grad.movedim(in_dims[0], 0))
        return grad.new_empty(0), None
