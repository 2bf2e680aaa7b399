"""Gradients of every output of a network for one sample after the other, and sums of their products."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nfa.reference.linear_rows import Linear, require_linear_map

Inputs = Tensor | tuple[Tensor, ...]
OutputFn = Callable[[object], Tensor]
Forward = Callable[[Tensor], Tensor]


def leaf_gradients(
    model: nn.Module,
    inputs: Inputs,
    name: str,
    output_fn: OutputFn | None,
    leafed: Callable[[Linear, Forward, list[Tensor]], Forward],
    as_rows: Callable[[Linear, Tensor], Tensor],
) -> list[Tensor]:
    """Gradient of every output with respect to the zero leaves that ``leafed`` plants in one module.

    Returns:
        One ``(rows, groups, features)`` float64 per output; rows run over samples, calls and positions.
    """
    module = require_linear_map(model.get_submodule(name))
    rows: dict[int, list[Tensor]] = defaultdict(list)
    leaves: list[Tensor] = []
    replacement = leafed(module, module.forward, leaves)
    with torch.enable_grad(), eval_mode(model), _replaced_forward(module, replacement):
        for i in range(count(inputs)):
            leaves.clear()
            outputs = _outputs(model, _sample(inputs, i), output_fn)
            if not leaves:
                raise ValueError(f"expected the model to call its module {name!r}; it never did")
            for k, f in enumerate(outputs):
                rows[k] += [as_rows(module, r).double() for r in _gradient(f, leaves)]
    return [torch.cat(rows[k]) for k in sorted(rows)]


def _outputs(model: nn.Module, sample: tuple[Tensor, ...], output_fn: OutputFn | None) -> Tensor:
    """All scalar outputs for one sample, ``(outputs,)``."""
    raw = model(*sample)
    f = raw if output_fn is None else output_fn(raw)
    if not isinstance(f, Tensor):
        raise TypeError(f"expected a tensor of outputs, got {type(f).__name__}; pass output_fn")
    return f.reshape(-1)


def _gradient(f: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Gradient of the scalar ``f`` with respect to each leaf, zero where it does not depend on it."""
    if not f.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    gradients = torch.autograd.grad(f, leaves, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if r is None else r for r, p in zip(gradients, leaves, strict=True)]


def outer_sum(rows: list[Tensor]) -> Tensor:
    """``Σ r rᵀ`` over all rows of all outputs; ``(rows, groups, d)`` each to ``(groups, d, d)``."""
    _, groups, d = rows[0].shape
    total = rows[0].new_zeros(groups, d, d)
    for output in rows:
        for row in output:
            for g in range(groups):
                total[g] += torch.outer(row[g], row[g])
    return total


def _sample(inputs: Inputs, i: int) -> tuple[Tensor, ...]:
    return tuple(x[i : i + 1] for x in (inputs if isinstance(inputs, tuple) else (inputs,)))


def count(inputs: Inputs) -> int:
    """Samples in the inputs."""
    return len(inputs[0] if isinstance(inputs, tuple) else inputs)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module of ``model`` in eval mode, and each back as it was."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, flag in training.items():
            module.training = flag


@contextmanager
def _replaced_forward(module: nn.Module, forward: Forward) -> Iterator[None]:
    """Give ``module`` another forward, and its own back afterwards."""
    own = vars(module).get("forward")  # a forward set on the instance, not the class's
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own
