"""The same kernel of shorter patches, where transformed patches span few of their dimensions.

What a random convolution without an activation hands on is linear in a larger window of fewer channels: 64
filters of 3 × 3 × 3 make patches of 576 numbers that span 75 dimensions. The kernel and its gradients know
transformed patches ``w = T u`` by their inner products alone. So with an orthonormal basis Q of the span of
all w, ``P = Qᵀ T`` takes the place of T: inner products are the same, and as gradients with respect to w
are sums of such w, ``Pᵀ`` pulls them back just as well.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from nfa.kernels.conv_recursion import ConvShape, patch_windows
from nfa.kernels.spans import even_spans

_WORTHWHILE = 64  # coordinates; fewer take no time to speak of
_IMAGES = 32  # that patches are taken from, at least
_PROBES = 4  # random directions outside the span, where nothing may be left
_NOTHING = {torch.float32: 4e-8, torch.float64: 4e-15}  # singular values of rounding, over the largest
_LEFT = {torch.float32: 4e-6, torch.float64: 1e-13}  # of the largest patch of an image, outside the span
_NUMBERS = 2**22  # of the probed maps at a time


def shorter(T: Tensor | None, X: Tensor, Z: Tensor, shape: ConvShape) -> Tensor | None:
    """P (d, D) with the kernel and gradients of T, or T itself where it is not found to be twice as long.

    The span is that of some patches of Z. Whether it holds the others is seen in their components along
    random directions outside it: none may be more than rounding of the largest patch of its image.

    Args:
        T: (k, D), in the dtype of X; None for the identity.
        X: images (n, c, H, W), without gradients.
        Z: images (m, c, H, W) that they meet; may be X.
        shape: of the network.
    """
    h, w = shape.maps[0]
    D = X.shape[1] * shape.patch_size**2
    size = D if T is None else len(T)
    if size < _WORTHWHILE or len(Z) * h * w < size:
        return T
    basis = _basis(T, Z, shape, size // 2)
    if basis is None:
        return T
    whole = torch.eye(D, dtype=torch.float64, device=X.device) if T is None else _unit(T.double())
    P = basis.mT @ whole
    draws = torch.randn(2, _PROBES, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outside, all_over = draws.to(X.device)
    outside = outside @ whole - (outside @ basis) @ P
    probes = torch.cat([outside, all_over @ whole]).to(X.dtype)
    inside = all(_holds(probes, images, shape) for images in ([X] if Z is X else [X, Z]))
    if not inside:
        return T
    return (P if T is None else basis.mT @ T.double()).to(X.dtype)


def _basis(T: Tensor | None, Z: Tensor, shape: ConvShape, count: int) -> Tensor | None:
    """An orthonormal basis (k, d), float64, of so many transformed patches; None if they are independent."""
    h, w = shape.maps[0]
    some = min(max(_IMAGES, math.ceil(4 * count / (h * w))), len(Z))
    windows = patch_windows(_unit(Z[:: len(Z) // some], 1), shape)
    places = torch.Generator().manual_seed(0)
    row, column, image = (
        torch.randint(length, (count,), generator=places).to(Z.device) for length in (h, w, windows.shape[-1])
    )
    sample = windows[row, column, :, :, :, image].flatten(1).mT.double()
    if T is not None:
        sample = _unit(T.double()) @ sample
    U, S, _ = torch.linalg.svd(sample, full_matrices=False)
    rank = int((S > S[0] * _NOTHING[Z.dtype]).sum())
    return U[:, :rank] if 0 < rank < count else None


def _holds(probes: Tensor, X: Tensor, shape: ConvShape) -> bool:
    """Whether the first half of the probes find nothing but rounding in patches of X."""
    filters = probes.view(len(probes), X.shape[1], shape.patch_size, shape.patch_size)
    for part in even_spans(len(X), max(_NUMBERS // X[0].numel(), 1)):
        found = conv2d(_unit(X[part], 1), filters, stride=shape.stride, padding=shape.border).abs_()
        left, size = found.unflatten(1, (2, _PROBES)).amax((2, 3, 4)).unbind(1)
        if bool((left > _LEFT[X.dtype] * size).any()):
            return False
    return True


def _unit(X: Tensor, kept: int = 0) -> Tensor:
    """X divided by its largest entry, or each of its images by theirs: nothing overflows or vanishes."""
    largest = X.abs().amax(tuple(range(kept, X.dim())), keepdim=True)
    return X / torch.where(largest > torch.finfo(X.dtype).tiny, largest, 1.0)
