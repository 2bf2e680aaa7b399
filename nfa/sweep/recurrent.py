"""Recurrent layers step by step, so that the products with their weights can be seen.

Each step applies an input matrix ``W_ih`` and a recurrent matrix ``W_hh``; PyTorch does all steps in one
call. The same numbers come out here, with one visible product for each step and matrix.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]
State = tuple[Tensor, ...]

_LAYERS = {"lstm": "lstm", "gru": "gru", "rnn_tanh": "tanh", "rnn_relu": "relu"}
_CELLS = {"lstm_cell": "lstm", "gru_cell": "gru", "rnn_tanh_cell": "tanh", "rnn_relu_cell": "relu"}


def follows(func: Callable, args: tuple, kwargs: dict[str, object]) -> bool:
    """Whether a torch function is a fused recurrent layer or cell that `unrolled` can do.

    Packed sequences, (data, batch_sizes, hx, weights, …), are not among them.
    """
    name = getattr(func, "__name__", "")
    layers = name in _LAYERS and len(args) == 9 and not isinstance(args[3], Sequence)
    return not kwargs and (layers or name in _CELLS)


def is_fused(func: Callable) -> bool:
    """Whether a torch function is a recurrent layer in one call."""
    return getattr(func, "__name__", "") in _LAYERS


@contextmanager
def differentiable() -> Iterator[None]:
    """Context in which fused recurrent layers have gradients in eval mode: those of cuDNN have none."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


def unrolled(func: Callable, args: tuple, linear: Linear) -> object:
    """Do what ``func(*args)`` does, with ``linear(x, W, b)`` for every product."""
    name = func.__name__
    if name in _CELLS:
        return _cell_call(_CELLS[name], *args, linear=linear)
    return _layers(_LAYERS[name], *args, linear=linear)


def _cell_call(
    kind: str, x: Tensor, state: Tensor | Sequence[Tensor], W_ih: Tensor, W_hh: Tensor,
    b_ih: Tensor | None = None, b_hh: Tensor | None = None, *, linear: Linear,
) -> Tensor | State:  # fmt: skip
    states = (state,) if isinstance(state, Tensor) else tuple(state)
    new = _step(kind, linear(x, W_ih, b_ih), states, W_hh, b_hh, linear)
    return new if kind == "lstm" else new[0]


def _layers(
    kind: str, x: Tensor, hx: Tensor | Sequence[Tensor], weights: Sequence[Tensor], biases: bool, layers: int,
    dropout: float, training: bool, bidirectional: bool, batch_first: bool, *, linear: Linear,
) -> tuple[Tensor, ...]:  # fmt: skip
    states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    directions = 2 if bidirectional else 1
    count = len(weights) // (layers * directions)
    h = x.transpose(0, 1) if batch_first else x
    final: list[State] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            own = weights[index * count : (index + 1) * count]
            start = tuple(state[index] for state in states)
            steps, last = _direction(kind, h, start, own, biases, direction == 1, linear)
            outputs.append(steps)
            final.append(last)
        h = torch.cat(outputs, -1) if bidirectional else outputs[0]
        if dropout and training and layer < layers - 1:
            h = torch.dropout(h, dropout, True)
    out = h.transpose(0, 1) if batch_first else h
    return (out, *(torch.stack(parts) for parts in zip(*final, strict=True)))


def _direction(
    kind: str,
    x: Tensor,
    state: State,
    weights: Sequence[Tensor],
    biases: bool,
    backwards: bool,
    linear: Linear,
) -> tuple[Tensor, State]:
    """One layer in one direction over x (steps, batch, in); outputs (steps, batch, hidden) and last state."""
    W_ih, W_hh = weights[:2]
    b_ih, b_hh = weights[2:4] if biases else (None, None)
    W_hr = weights[-1] if len(weights) % 2 else None  # projection of an LSTM's output
    gates = linear(x, W_ih, b_ih)  # all steps at once: the inputs are known
    outputs = []
    order = range(len(x) - 1, -1, -1) if backwards else range(len(x))
    for t in order:
        state = _step(kind, gates[t], state, W_hh, b_hh, linear)
        if W_hr is not None:
            state = (linear(state[0], W_hr, None), *state[1:])
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backwards else outputs), state


def _step(
    kind: str, from_input: Tensor, state: State, W_hh: Tensor, b_hh: Tensor | None, linear: Linear
) -> State:
    h = state[0]
    from_state = linear(h, W_hh, b_hh)
    if kind == "lstm":
        i, f, g, o = (from_input + from_state).chunk(4, -1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    if kind == "gru":
        r_x, z_x, n_x = from_input.chunk(3, -1)
        r_h, z_h, n_h = from_state.chunk(3, -1)
        z = (z_x + z_h).sigmoid()
        n = (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
        return ((1 - z) * n + z * h,)
    total = from_input + from_state
    return (total.tanh() if kind == "tanh" else total.relu(),)
