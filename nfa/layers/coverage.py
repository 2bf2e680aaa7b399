"""How much of a network is measured: the share of its weights of two or more dimensions, each once."""

from collections.abc import Sequence

from torch import Tensor, nn

from nfa.layers.maps import LinearMap, SkippedModule


def covered_share(model: nn.Module, measured: Sequence[LinearMap]) -> float:
    """Share of the parameters in tensors of two or more dimensions that belong to measured maps.

    A weight used in several places counts once. Embedding tables, position embeddings and the like count
    in the whole.
    """
    wide = {id(p): p.numel() for p in model.parameters() if p.dim() >= 2}
    packed: dict[int, int] = {}  # rows of a packed weight that are measured
    covered: dict[int, int] = {}
    for m in measured:
        for tensor in _tensors(m):
            size = tensor.numel()
            if m.rows is not None:
                packed[id(tensor)] = packed.get(id(tensor), 0) + (m.rows[1] - m.rows[0]) * m.in_features
                size = packed[id(tensor)]
            covered[id(tensor)] = min(size, tensor.numel())
    total = sum(wide.values())
    return sum(size for key, size in covered.items() if key in wide) / total if total else 0.0


def tied_weights(model: nn.Module) -> dict[str, list[str]]:
    """Weights of two or more dimensions that stand in several places: first name to the others."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.dim() >= 2:
            names.setdefault(id(parameter), []).append(name)
    return {first: others for first, *others in names.values() if others}


def tied_to(model: nn.Module, skipped: SkippedModule, maps: Sequence[LinearMap]) -> str | None:
    """Name of the map that uses the very weight of a skipped module, if there is one."""
    module = dict(model.named_modules()).get(skipped.name)
    own = {id(p) for p in module.parameters(recurse=False) if p.dim() >= 2} if module is not None else set()
    return next((m.name for m in maps if any(id(t) in own for t in _tensors(m))), None)


def _tensors(m: LinearMap) -> list[Tensor]:
    """What the weight of a map is stored in, parametrised or not."""
    direct = m.module._parameters.get(m.parameter)
    if direct is not None:
        return [direct]
    stored = [(k, p) for k, p in m.module.named_parameters() if p.dim() >= 2]
    return [p for k, p in stored if k.startswith((f"parametrizations.{m.parameter}.", f"{m.parameter}_"))]
