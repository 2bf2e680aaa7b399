"""What a page or a dashboard draws of the layers of a report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from nfa.ansatz.scatter import Scatter, scatter_of

if TYPE_CHECKING:
    from nfa.ansatz.report import AnsatzReport

_SIZE = 256  # px, the longest side of a heatmap
_FILTERS = 64
_EIGENVECTORS = 16


@dataclass(frozen=True)
class LayerPicture:
    """What there is to draw of one layer; the scale of each tensor has no influence.

    Attributes:
        layer: dotted module name, as in its `AnsatzRow`.
        nfm: neural feature matrix N, ``(d, d)``; pooled beforehand where d is large.
        agop: ``G^power``, as compared with N, ``(d, d)``.
        nfm_spectrum: eigenvalues of N, descending, ``(r,)``.
        agop_spectrum: eigenvalues of ``G^power``, descending, ``(r,)``.
        filters: rows of W as images, ``(k, c, h, w)``.
        nfm_eigenvectors: leading eigenvectors of N as images, ``(k, c, h, w)``.
        agop_eigenvectors: leading eigenvectors of G as images, ``(k, c, h, w)``.
        scatter: sensitivity of each direction over how much W amplifies it.
    """

    layer: str
    nfm: Tensor | None = None
    agop: Tensor | None = None
    nfm_spectrum: Tensor | None = None
    agop_spectrum: Tensor | None = None
    filters: Tensor | None = None
    nfm_eigenvectors: Tensor | None = None
    agop_eigenvectors: Tensor | None = None
    scatter: Scatter | None = None


def layer_pictures(
    report: "AnsatzReport",
    model: nn.Module | None,
    *,
    power: float,
    count: int | None = None,
    input_shape: Sequence[int] | None = None,
) -> list[LayerPicture]:
    """Heatmaps, spectra, filters and leading eigenvectors of measured layers.

    Args:
        report: of an audit of the model.
        model: the network; tells the shapes of patches, without which there are neither filters nor
            eigenvectors as images.
        power: exponent α of the ``G^α`` to draw.
        count: draw only so many layers, the first, the last and others evenly between; None draws all.
        input_shape: (channels, height, width) of the model's input, which turns a linear map on flattened
            images into pictures too.
    """
    names = [row.layer for row in report.rows if row.measured]
    modules = (
        {} if model is None else dict(model.named_modules())
    )  # a part of a packed weight has no module of its own
    return [
        _picture(report, modules.get(name), name, power, input_shape) for name in _evenly_chosen(names, count)
    ]


def _evenly_chosen(names: list[str], count: int | None) -> list[str]:
    if count is None or len(names) <= count:
        return names
    if count < 2:
        return names[:count]
    return [names[round(i * (len(names) - 1) / (count - 1))] for i in range(count)]


def _picture(
    report: "AnsatzReport",
    module: nn.Module | None,
    name: str,
    power: float,
    input_shape: Sequence[int] | None,
) -> LayerPicture:
    pair = report.pair(name)
    shape = None if module is None else _patch_shape(module, input_shape)
    nfm, agop = pair.nfm(_SIZE), pair.agop(power, _SIZE)
    return LayerPicture(
        layer=name,
        nfm=nfm if nfm.dim() == 2 else nfm.mean(0),
        agop=agop if agop.dim() == 2 else agop.mean(0),
        nfm_spectrum=pair.nfm_spectrum(),
        agop_spectrum=pair.agop_spectrum(power),
        filters=_images(report.weights[name].flatten(0, 1)[:_FILTERS], shape),
        nfm_eigenvectors=_images(pair.nfm_eigenvectors(_EIGENVECTORS), shape),
        agop_eigenvectors=_images(pair.agop_eigenvectors(_EIGENVECTORS), shape),
        scatter=scatter_of(pair),
    )


def _patch_shape(module: nn.Module, input_shape: Sequence[int] | None) -> tuple[int, ...] | None:
    """(channels, height, width) of what the map acts on, None where it is no picture."""
    if isinstance(module, nn.Conv2d):
        return tuple(module.weight.shape[1:]) if max(module.kernel_size) > 1 else None
    if not isinstance(module, nn.Linear) or input_shape is None or len(input_shape) != 3:
        return None
    return tuple(input_shape) if module.in_features == math.prod(input_shape) else None


def _images(rows: Tensor, shape: tuple[int, ...] | None) -> Tensor | None:
    return None if shape is None else rows.reshape(len(rows), *shape)
