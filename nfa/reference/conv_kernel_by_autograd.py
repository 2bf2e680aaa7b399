"""The convolutional NTK and its patch gradients the slow way: one pair, one position, one number at a time.

Everything follows the recursion of the design notes line by line (Arora et al., arXiv 1904.11955, in the
patch form of Beaglehole et al., arXiv 2309.00570) and shares no code with the package. Sizes are meant to be
tiny: images of about 7 pixels, 5 images. All numbers are float64.

* patches     ``u_p`` (D,), D = c ps ps in the order (channel, row, column); ``u ← T u``
* first layer ``k_p = <u_p, v_p>/c``, ``kxx_p``, ``kzz_p`` likewise, ``theta_p = k_p``
* ReLU        ``rho = k/sqrt(kxx kzz)``, ``theta ← theta κ0(rho)``, ``k ← sqrt(kxx kzz) κ1(rho)``
* convolution ``k ← Σ_window k``, kxx and kzz likewise, ``theta ← k + Σ_window theta``
* head        mean of ``k + theta`` (NTK) or of ``k`` (NNGP) over positions, or over pairs of positions (pool)

Gradients are autograd through that recursion, with two rules where it has no derivative: ``κ0' = 0`` where
``1 - rho² <= 1e-14``, where rho is taken for ±1, and ``rho = 0`` with ``d rho = 0`` where a patch vanishes.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MASK = 1e-14  # of 1 - rho², in float64
Place = tuple[int, int]
Patches = dict[Place, Tensor]
Gradients = dict[tuple[int, Place], Tensor]  # by class and position
NOTHING = torch.zeros((), dtype=torch.float64)


@dataclass(frozen=True)
class Net:
    """What is computed; the fields are those of the package's kernel."""

    patch_size: int = 3
    depth: int = 3
    stride: int = 1
    padding: str = "none"
    head: str = "flatten"
    kind: str = "ntk"


class _Kappa0(torch.autograd.Function):
    """``(π - acos ρ)/π``, with slope ``1/(π sqrt(1 - ρ²))``, and 0 at the ends."""

    @staticmethod
    def forward(ctx: Any, rho: Tensor) -> Tensor:
        ctx.rho = rho.item()
        return rho.new_tensor((math.pi - math.acos(ctx.rho)) / math.pi)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        rest = 1 - ctx.rho**2
        return grad * (0.0 if rest <= MASK else 1 / (math.pi * math.sqrt(rest)))


class _Kappa1(torch.autograd.Function):
    """``(sqrt(1 - ρ²) + (π - acos ρ) ρ)/π``, with slope κ0."""

    @staticmethod
    def forward(ctx: Any, rho: Tensor) -> Tensor:
        ctx.rho = rho.item()
        angle = math.pi - math.acos(ctx.rho)
        return rho.new_tensor((math.sqrt(1 - ctx.rho**2) + angle * ctx.rho) / math.pi)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * (math.pi - math.acos(ctx.rho)) / math.pi


class _Clip(torch.autograd.Function):
    """Rounding taken off the correlation, of which acos would make its root; the slope stays 1."""

    @staticmethod
    def forward(ctx: Any, rho: Tensor) -> Tensor:
        return rho.sign() if 1 - rho.item() ** 2 <= MASK else rho

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def patches(image: Tensor, net: Net) -> Patches:
    """Patches of one image (c, H, W) as a dictionary of positions, each (D,)."""
    c, H, W = image.shape
    ps, pad = net.patch_size, net.patch_size // 2 if net.padding == "zero" else 0
    found = {}
    for i, top in enumerate(range(-pad, H + pad - ps + 1, net.stride)):
        for j, left in enumerate(range(-pad, W + pad - ps + 1, net.stride)):
            values = []
            for channel in range(c):
                for y in range(top, top + ps):
                    for x in range(left, left + ps):
                        inside = 0 <= y < H and 0 <= x < W
                        values.append(float(image[channel, y, x]) if inside else 0.0)
            found[i, j] = torch.tensor(values, dtype=torch.float64)
    return found


def relu(k: Tensor, theta: Tensor, xx: Tensor, zz: Tensor) -> tuple[Tensor, Tensor]:
    """One pair of positions through a ReLU."""
    product = xx * zz
    if product.item() == 0:
        return k / 2, theta / 2  # κ1'(0) = κ0(0) = 1/2, both of a number that is 0
    size = product.sqrt()
    rho = _Clip.apply(k / size)
    return size * _Kappa1.apply(rho), theta * _Kappa0.apply(rho)


def self_norms(u: Patches, channels: int, net: Net) -> list[Patches]:
    """``kxx`` of every layer: a dictionary of positions for each."""
    layers = [{p: (v * v).sum() / channels for p, v in u.items()}]
    for _ in range(net.depth - 1):
        layers.append(window_sums(layers[-1], net.patch_size))
    return layers


def window_sums(found: Patches, ps: int) -> Patches:
    """``Σ`` over the ps x ps window that begins at each position."""
    out = {}
    for i, j in found:
        window = [(i + y, j + x) for y in range(ps) for x in range(ps)]
        if all(p in found for p in window):
            out[i, j] = sum((found[p] for p in window), NOTHING)
    return out


def kernel(u: Patches, v: Patches, channels: int, net: Net) -> Tensor:
    """``k(x, z)`` of two images given as (transformed) patches; a scalar tensor."""
    return _flatten(u, v, channels, net) if net.head == "flatten" else _pool(u, v, channels, net)


def _flatten(u: Patches, v: Patches, channels: int, net: Net) -> Tensor:
    xx, zz = self_norms(u, channels, net), self_norms(v, channels, net)
    k = {p: (u[p] * v[p]).sum() / channels for p in u}
    theta = dict(k)
    for layer in range(net.depth):
        if layer > 0:
            k, theta = window_sums(k, net.patch_size), window_sums(theta, net.patch_size)
            theta = {p: theta[p] + k[p] for p in k}
        for p in k:
            k[p], theta[p] = relu(k[p], theta[p], xx[layer][p], zz[layer][p])
    return _head([k[p] for p in k], [theta[p] for p in k], net)


def _pool(u: Patches, v: Patches, channels: int, net: Net) -> Tensor:
    xx, zz = self_norms(u, channels, net), self_norms(v, channels, net)
    ps = net.patch_size
    k = {(p, q): (u[p] * v[q]).sum() / channels for p in u for q in v}
    theta = dict(k)
    for layer in range(net.depth):
        if layer > 0:
            summed_k, summed_theta = {}, {}
            for p in xx[layer]:
                for q in zz[layer]:
                    shifts = [(y, x) for y in range(ps) for x in range(ps)]
                    pairs = [((p[0] + y, p[1] + x), (q[0] + y, q[1] + x)) for y, x in shifts]
                    summed_k[p, q] = sum((k[pair] for pair in pairs), NOTHING)
                    summed_theta[p, q] = sum((theta[pair] for pair in pairs), NOTHING) + summed_k[p, q]
            k, theta = summed_k, summed_theta
        for p, q in k:
            k[p, q], theta[p, q] = relu(k[p, q], theta[p, q], xx[layer][p], zz[layer][q])
    return _head(list(k.values()), list(theta.values()), net)


def _head(k: list[Tensor], theta: list[Tensor], net: Net) -> Tensor:
    total = sum((*k, *theta) if net.kind == "ntk" else k, NOTHING)
    return total / len(k)


def transformed(u: Patches, T: Tensor | None) -> Patches:
    """``T u`` at every position."""
    return u if T is None else {p: T.double() @ vector for p, vector in u.items()}


def matrix(X: Tensor, Z: Tensor, net: Net, T: Tensor | None = None) -> Tensor:
    """K (n, m), one pair at a time."""
    K = torch.zeros(len(X), len(Z), dtype=torch.float64)
    for i in range(len(X)):
        for j in range(len(Z)):
            u, v = transformed(patches(X[i], net), T), transformed(patches(Z[j], net), T)
            K[i, j] = kernel(u, v, X.shape[1], net)
    return K


def pair_gradient(u: Patches, v: Patches, channels: int, net: Net, T: Tensor | None = None) -> Patches:
    """``∂k(x, z)`` with respect to the untransformed patches u of x: a dictionary of positions, (D,)."""
    leaves = {p: vector.clone().requires_grad_() for p, vector in u.items()}
    value = kernel(transformed(leaves, T), transformed(v, T), channels, net)
    grads = torch.autograd.grad(value, list(leaves.values()))
    return dict(zip(leaves, grads, strict=True))


def gradients(
    points: Tensor, centers: Tensor, a: Tensor, net: Net, T: Tensor | None = None
) -> list[Gradients]:
    """``∂f_c(x_i)`` by class and position, ``f_c = Σ_j a_jc k(x, x_j)``: a list over the points."""
    found = []
    for x in points:
        u = patches(x, net)
        r = {(c, p): torch.zeros(len(u[p]), dtype=torch.float64) for c in range(a.shape[1]) for p in u}
        for j, z in enumerate(centers):
            g = pair_gradient(u, patches(z, net), x.shape[0], net, T)
            for c, p in r:
                r[c, p] += a[j, c] * g[p]
        found.append(r)
    return found


def agop(points: Tensor, centers: Tensor, a: Tensor, net: Net, T: Tensor | None = None) -> Tensor:
    """``(1/m) Σ_i Σ_c Σ_p r rᵀ``: a mean over images, a sum over classes and positions, (D, D)."""
    total = NOTHING
    for r in gradients(points, centers, a, net, T):
        for vector in r.values():
            total = total + torch.outer(vector, vector)
    return total / len(points)
