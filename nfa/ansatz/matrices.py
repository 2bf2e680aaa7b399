"""C, N and G of chosen layers as a safetensors file: dense, float64, no more of them than was agreed to."""

import difflib
import fnmatch
import os
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from nfa.ansatz.sensitivity import Sensitivity
from nfa.errors import NfaError
from nfa.files import replaced_whole

MOST_BYTES = 10**9  # of a file, where nothing else is said
_PARTLY_KNOWN = "known on a subspace that holds the range of W, zero beyond it"

Sizes = tuple[int, int, int]  # groups, outputs of a group, inputs of a group


def check_layers(patterns: Sequence[str], names: Collection[str]) -> list[str]:
    """The names that match a pattern or more, in their order.

    Args:
        patterns: globs on names of layers, or such names.
        names: of the measured layers.

    Raises:
        NfaError: a pattern matches none of them.
    """
    for pattern in patterns:
        if not any(_matches(name, [pattern]) for name in names):
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or list(names)[:3]
            raise NfaError(
                f"matrices of {pattern!r} were asked for, which is none of the {len(names)} measured layers; "
                f"near ones: {', '.join(near) or 'none at all'}"
            )
    return [name for name in names if _matches(name, patterns)]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def check_size(sizes: Mapping[str, Sizes], most: float) -> None:
    """Whether the matrices of these layers are no larger together than ``most`` bytes.

    Raises:
        NfaError: they are larger.
    """
    needed = {name: 8 * g * (o * o + 2 * i * i) for name, (g, o, i) in sizes.items()}
    total = sum(needed.values())
    if total > most:
        largest = max(needed, key=lambda name: needed[name])
        raise NfaError(
            f"C, N and G of {len(needed)} layers take {_size(total)}, more than the limit of {_size(most)} "
            f"({largest} alone {_size(needed[largest])}): choose fewer layers, or allow more "
            "(--matrices-size SIZE, in Python max_bytes=)"
        )


def _size(count: float) -> str:
    unit, name = (1e9, "GB") if count >= 1e8 else (1e6, "MB") if count >= 1e5 else (1e3, "kB")
    return f"{count / unit:.3g} {name}"


def save_matrices(
    path: str | os.PathLike,
    weights: Mapping[str, Tensor],
    sensitivities: Mapping[str, Sensitivity],
    most: float = MOST_BYTES,
) -> None:
    """Write ``layer/C``, ``layer/N`` and ``layer/G`` of each layer, float64, whole or not at all.

    C has the size of the layer's outputs, and ``G = Wᵀ C W`` with the weight W as the network has it. Where
    the layer has more outputs than inputs, C is known on the range of W alone and zero beyond, which changes
    no statistic; the metadata say so under ``layer/C``.

    Args:
        path: the file; an existing one is replaced.
        weights: (groups, out, in) of the layers.
        sensitivities: of the same layers.
        most: bytes that may be written.

    Raises:
        NfaError: the matrices are larger.
    """
    from safetensors.torch import save_file

    check_size({name: _sizes(W) for name, W in weights.items()}, most)
    tensors: dict[str, Tensor] = {}
    facts = {"format": "pt"}
    for name, W in weights.items():
        known = sensitivities[name]
        pair = known.pair(W)
        C = known.at_outputs(pair.sensitivity)
        C = C[0] if len(C) == 1 else C
        found = {"C": C, "N": pair.nfm(), "G": pair.agop()}
        tensors |= {f"{name}/{kind}": matrix.contiguous() for kind, matrix in found.items()}
        if known.basis is not None:
            facts[f"{name}/C"] = _PARTLY_KNOWN
    with replaced_whole(path) as partial, torch.no_grad():
        save_file(tensors, partial, metadata=facts)


def _sizes(W: Tensor) -> Sizes:
    groups, out, inside = W.shape
    return groups, out, inside
