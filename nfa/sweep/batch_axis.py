"""Networks whose samples do not lie along the first axis, such as PyTorch's time-first sequences.

Everything here measures batch-first networks. Such a network is one meanwhile: what goes in is turned back
by a hook just before its forward, and its outputs are turned round as they are picked.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from nfa.checks import told, whole
from nfa.errors import NfaError
from nfa.layers.turns import turn
from nfa.sweep.arguments import batches_of, checked, measurable
from nfa.sweep.batches import Batch, OutputFn, picked, split

Path = tuple[object, ...]
OnTensor = Callable[[Path, torch.Tensor], torch.Tensor]
Named = dict[str, object]
R = TypeVar("R")


class BatchAxis:
    """The axis along which a network has its samples, in its inputs and in its outputs.

    What has the number of samples as its length there is turned, so also the states (layers, samples, …) of
    a recurrent network; other tensors, such as masks (samples, time), stay as they are.
    """

    def __init__(self, dim: int):
        self.dim = dim
        self._turned: set[Path] = set()  # places of the inputs, known from the first batch
        self._samples = 0  # in the call under way
        self._of_outputs: int | None = None  # their axis of samples, once it is plain

    def batches(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        """The same batches with samples first; an iterator gives an iterator."""
        return map(self.first, batches) if isinstance(batches, Iterator) else _Turned(self, batches)

    def first(self, batch: Batch) -> Batch:
        """One batch, with samples first.

        Raises:
            NfaError: the inputs have no such axis.
        """
        inputs, target = split(batch)
        found = list(_tensors(inputs))
        if not found or found[0][1].dim() <= self.dim:
            shape = tuple(found[0][1].shape) if found else told(inputs)
            raise NfaError(f"batch_dim={self.dim} is no axis of the inputs, got {shape}")
        n = found[0][1].shape[self.dim]
        if not self._turned:
            self._turned = {place for place, t in found if self._along(t, n)}
        if not isinstance(inputs, Mapping):
            return _mapped(inputs, self._forth), self._target(target, n)
        named = {name: _mapped(value, self._forth, (name,)) for name, value in inputs.items()}
        return named if target is None else {**named, "labels": self._target(target, n)}

    def outputs(self, output_fn: OutputFn | None) -> OutputFn:
        """Picks the outputs of a network as ``output_fn`` does, with samples first."""

        def pick(raw: object) -> torch.Tensor:
            out = picked(raw, output_fn)
            axes = [axis for axis in (0, self.dim) if out.dim() > axis and out.shape[axis] == self._samples]
            if len(axes) == 1:
                self._of_outputs = axes[0]
            axis = axes[0] if len(axes) == 1 else self.dim if self._of_outputs is None else self._of_outputs
            return out.movedim(axis, 0) if axes else out

        return pick

    @contextmanager
    def turning(self, model: nn.Module) -> Iterator[None]:
        """Context in which a network takes its samples first."""

        def back(
            module: nn.Module, args: tuple, kwargs: dict[str, object]
        ) -> tuple[tuple, dict[str, object]]:
            found = [t for place, t in (*_tensors(args), *_tensors(kwargs)) if place in self._turned]
            self._samples = len(found[0])
            turned = tuple(_mapped(value, self._back, (i,)) for i, value in enumerate(args))
            return turned, {name: _mapped(value, self._back, (name,)) for name, value in kwargs.items()}

        with turn():
            hook = model.register_forward_pre_hook(back, prepend=True, with_kwargs=True)
            try:
                yield
            finally:
                hook.remove()

    def _along(self, t: torch.Tensor, samples: int) -> bool:
        return t.dim() > self.dim and t.shape[self.dim] == samples

    def _front(self, t: torch.Tensor) -> torch.Tensor:
        return t.movedim(self.dim, 0)

    def _forth(self, place: Path, t: torch.Tensor) -> torch.Tensor:
        return self._front(t) if place in self._turned else t

    def _back(self, place: Path, t: torch.Tensor) -> torch.Tensor:
        return t.movedim(0, self.dim) if place in self._turned else t

    def _target(self, target: object, samples: int) -> object:
        return (
            self._front(target)
            if isinstance(target, torch.Tensor) and self._along(target, samples)
            else target
        )


class _Turned:
    """Batches that can be read again."""

    def __init__(self, axis: BatchAxis, batches: Iterable[Batch]):
        self.axis, self.source = axis, batches

    def __iter__(self) -> Iterator[Batch]:
        return map(self.axis.first, self.source)


def with_batch_dim(measure: Callable[..., R]) -> Callable[..., R]:
    """Give a function of (model, batches, …) that measures batch-first networks the option ``batch_dim``."""

    @functools.wraps(measure)
    def along(model: object, batches: object, *args: Any, batch_dim: int = 0, **options: Any) -> R:
        if whole("batch_dim", batch_dim) == 0:
            return measure(model, batches, *args, **options)
        network, axis = measurable(model), BatchAxis(int(batch_dim))
        turned = axis.batches(batches_of(batches))
        output_fn = checked({"output_fn": options.pop("output_fn", None)}).get("output_fn")
        with axis.turning(network):
            return measure(network, turned, *args, output_fn=axis.outputs(output_fn), **options)

    shown = inspect.signature(measure)
    option = inspect.Parameter("batch_dim", inspect.Parameter.KEYWORD_ONLY, default=0, annotation=int)
    *others, rest = shown.parameters.values()
    vars(along)["__signature__"] = shown.replace(parameters=[*others, option, rest])
    return along


def _tensors(inputs: object, place: Path = ()) -> Iterator[tuple[Path, torch.Tensor]]:
    """Places and tensors; one tensor alone is the first argument."""
    if isinstance(inputs, torch.Tensor):
        yield place or (0,), inputs
    elif isinstance(inputs, Mapping):
        for name, value in inputs.items():
            yield from _tensors(value, (*place, name))
    elif isinstance(inputs, tuple):
        for i, value in enumerate(inputs):
            yield from _tensors(value, (*place, i))


def _mapped(
    inputs: object, function: Callable[[Path, torch.Tensor], torch.Tensor], place: Path = ()
) -> object:
    if isinstance(inputs, torch.Tensor):
        return function(place or (0,), inputs)
    if isinstance(inputs, Mapping):
        return {name: _mapped(value, function, (*place, name)) for name, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(_mapped(value, function, (*place, i)) for i, value in enumerate(inputs))
    return inputs
