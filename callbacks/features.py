"""``features.safetensors``: the input-space feature matrices of a model, for side-by-side comparison."""

import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from nfa import AnsatzReport, input_agop
from nfa.files import replaced_whole
from nfa.sweep.measure import device_of
from nfa.sweep.untouched import untouched

_LARGEST = 4096  # rows of a matrix worth storing whole


def write_features(
    path: str | os.PathLike, network: nn.Module, report: AnsatzReport, batches: Sequence[Tensor]
) -> None:
    """Write the feature matrices float32, whole or not at all.

    Tensors: ``nfm`` and ``agop`` of the first measured layer, (in, in) or (groups, in, in); ``input_agop``
    (d, d) with respect to the flattened input; ``inputs`` (n, d), the samples measured on; and for a first
    layer that is an ungrouped image convolution ``patch_covariance`` (in, in), of what it acts on. Nothing
    of more than 4096 rows or columns. Metadata: the name (``layer``), ``kind`` and, for an image convolution,
    ``patch`` shape of that layer, and ``input_shape``; shapes are written like ``3x32x32``.
    """
    tensors: dict[str, Tensor] = {}
    metadata = {"input_shape": _words(batches[0].shape[1:])}
    first = next((row for row in report.rows if row.measured), None)
    if first is not None:
        metadata |= {"layer": first.layer, "kind": first.kind}
        module = dict(network.named_modules()).get(first.layer)
        if isinstance(module, nn.Conv2d):
            metadata["patch"] = _words(module.weight.shape[1:])
        if first.in_features <= _LARGEST:
            pair = report.pair(first.layer)
            tensors |= {"nfm": pair.nfm(), "agop": pair.agop()}
            if isinstance(module, nn.Conv2d) and module.groups == 1:
                tensors["patch_covariance"] = _patch_covariance(network, module, batches)
    if math.prod(batches[0].shape[1:]) <= _LARGEST:
        tensors["input_agop"] = input_agop(network, batches)
        tensors["inputs"] = torch.cat([x.flatten(1) for x in batches])
    with replaced_whole(path) as partial:
        save_file({k: v.to("cpu", torch.float32).contiguous() for k, v in tensors.items()}, partial, metadata)
        _order_header(partial)


def _order_header(path: Path) -> None:
    """Give the metadata of a safetensors file one order, so that the same features make the same file."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(ordered) <= length:
            file.seek(8)
            file.write(ordered.ljust(length))


def _words(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


class _Seen(Exception):
    """Ends a forward where what it was made for is known."""


def _patch_covariance(network: nn.Module, module: nn.Conv2d, batches: Sequence[Tensor]) -> Tensor:
    """Covariance (in, in), float64, of the patches that an image convolution is applied to."""
    width = module.weight[0].numel()
    total = torch.zeros(width + 1, width + 1, dtype=torch.float64)

    def add(module: nn.Conv2d, arguments: tuple[Tensor, ...]) -> None:
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = F.pad(arguments[0].detach(), module._reversed_padding_repeated_twice, mode=mode)
        patches = F.unfold(x, module.kernel_size, module.dilation, stride=module.stride)
        rows = F.pad(patches.mT.reshape(-1, width).double(), (0, 1), value=1.0)  # and a one, for the mean
        total.add_((rows.mT @ rows).cpu())
        raise _Seen

    handle = module.register_forward_pre_hook(add)
    try:
        with untouched(network):
            for x in batches:
                with suppress(_Seen):
                    network(x.to(device_of(network)))
    finally:
        handle.remove()
    mean = total[-1, :-1] / total[-1, -1]
    return total[:-1, :-1] / total[-1, -1] - torch.outer(mean, mean)
