"""``features.safetensors``: the input-space feature matrices of a model, for side-by-side comparison."""

import os
from collections.abc import Sequence

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nfa import AnsatzReport, input_agop
from nfa.files import replaced_whole

_LARGEST = 4096  # rows of a matrix worth storing whole


def write_features(
    path: str | os.PathLike, network: nn.Module, report: AnsatzReport, batches: Sequence[Tensor]
) -> None:
    """Write the feature matrices float32, whole or not at all.

    Tensors: ``nfm`` and ``agop`` of the first measured layer, (in, in) or (groups, in, in), and
    ``input_agop`` (d, d) with respect to the flattened input; each only up to 4096 rows. Metadata: the name
    (``layer``), ``kind`` and shape of that layer.
    """
    tensors: dict[str, Tensor] = {}
    first = next((row for row in report.rows if row.measured), None)
    if first is not None and first.in_features <= _LARGEST:
        pair = report.pair(first.layer)
        tensors |= {"nfm": pair.nfm(), "agop": pair.agop()}
    if batches[0][0].numel() <= _LARGEST:
        tensors["input_agop"] = input_agop(network, batches)
    metadata = {"layer": first.layer, "kind": first.kind} if first is not None else {}
    with replaced_whole(path) as partial:
        save_file({k: v.to("cpu", torch.float32).contiguous() for k, v in tensors.items()}, partial, metadata)
