"""Whether the samples of a batch stand alone: what the first give alone, together, and twice.

C is the mean over samples of what each of them gives. Where the outputs of one hang on another, a gradient
belongs to no sample, and the number would be wrong without a word. Rounding must not look like it: a batch
of another size is summed in another order. So where alone and together differ by more than a few units in
the last place, every module's output is moved by one such unit, and what that does to the outputs of the
network is what rounding may do to them.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from nfa.errors import NfaError

_LAST_PLACES = 64
_ROUNDING = 32  # times what one unit in the last place of every layer does
_COARSE = 1e-3

RANDOM = "ok: an average over the noise of the network, whose outputs are random"  # status of a row

Forward = Callable[[object], Tensor]


def noise(
    model: nn.Module, forward: Forward, of: Callable[..., object], first: Tensor, second: Tensor, both: Tensor
) -> float:
    """How much the outputs change from call to call, relative to their size; 0 for most networks.

    Args:
        model: the network that ``forward`` calls.
        forward: inputs to outputs, (samples, …).
        of: the inputs of the first samples (0), of others (1), or of some beside others: ``of(0, 1)``.
        first: outputs of the first, (n, …).
        second: outputs of the others, (n, …).
        both: outputs of both together, (2 n, …).

    Raises:
        NfaError: the samples of a batch interact.
    """
    if first.shape[1:] != both.shape[1:]:
        raise NfaError(
            _interact(model, f"outputs of shape {tuple(both.shape)} together, {tuple(first.shape)} alone")
        )
    alone = torch.cat([first, second])
    close = _LAST_PLACES * torch.finfo(both.dtype).eps
    apart = _gap(alone, both)
    if not apart > close:  # NaN: values that are not finite have a message of their own
        return 0.0

    def seeded(inputs: object, seed: int = 0) -> Tensor:
        torch.manual_seed(seed)
        return forward(inputs)

    reference = seeded(of(0, 1))
    repeated = _gap(seeded(of(0, 1)), reference)
    if repeated > _COARSE:  # a generator of its own
        return repeated
    with _last_place_moved(model):
        moved = _gap(seeded(of(0, 1)), reference)
    close = max(close, _ROUNDING * moved, _ROUNDING * repeated)
    spread = _gap(seeded(of(0, 1), 1), reference)
    if spread > close:  # alone, it is other noise: under the same noise, only the neighbours may change
        n = len(first)
        beside = torch.cat([seeded(of(0, 0))[:n], seeded(of(1, 1))[n:]])
        apart = _gap(beside, reference)
    else:
        spread = 0.0
    if apart > close:
        raise NfaError(_interact(model, f"outputs that differ by {100 * apart:.2g} % together and alone"))
    return spread


def _gap(a: Tensor, b: Tensor) -> float:
    """The largest distance of two rows of the same place, relative to the largest row."""
    a, b = (t.detach().double().reshape(len(t), -1) for t in (a, b))
    scale = float(torch.maximum(a.norm(dim=1), b.norm(dim=1)).max())
    return float((a - b).norm(dim=1).max()) / scale if scale else 0.0


@contextmanager
def _last_place_moved(model: nn.Module) -> Iterator[None]:
    """Every module's output times 1 ± ε, at random."""
    generator = torch.Generator().manual_seed(0)

    def move(module: nn.Module, args: object, out: object) -> object:
        if not isinstance(out, Tensor) or not out.is_floating_point():
            return None
        signs = torch.randint(0, 2, out.shape, generator=generator, dtype=torch.int8).to(out) * 2 - 1
        return out * (1 + torch.finfo(out.dtype).eps * signs)

    with ExitStack() as stack:
        for module in model.modules():
            if not isinstance(module, torch.jit.ScriptModule):
                stack.callback(module.register_forward_hook(move).remove)
        yield


def _interact(model: nn.Module, seen: str) -> str:
    """The message: what was seen, and what it may be."""
    late = next(
        (f"{name or 'it'} ({type(m).__name__})" for name, m in model.named_modules() if _time_first(m)), None
    )
    axis = (
        f"{late} has batch_first=False and takes the time axis first: name the axis of the samples, "
        "batch_dim=1 (--batch-dim 1)"
        if late
        else "does the first axis of the inputs hold the samples? Another is named with batch_dim= "
        "(--batch-dim)"
    )
    return (
        f"the samples of a batch interact: they give {seen}, so that none has gradients of its own; {axis}. "
        "What mixes samples (x.mean(0), z @ z.T, batch_norm(training=True), the edges of one graph) cannot "
        "be measured"
    )


def _time_first(module: nn.Module) -> bool:
    return isinstance(module, nn.RNNBase | nn.MultiheadAttention) and not module.batch_first
