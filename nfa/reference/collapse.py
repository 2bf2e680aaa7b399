"""How far classes collapse, and how circulant a block of M is, the slow way: loops over points and classes.

Features H (n, d) and matrices are float64 on the CPU; labels count from 0.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.reference.rfm import one_of


def class_means(H: Tensor, labels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean feature of each class 0..C-1, (C, d), and the mean of those means, (d,)."""
    classes = max(labels) + 1
    means = torch.zeros(classes, H.shape[1], dtype=torch.float64)
    for c in range(classes):
        rows = [H[i] for i in range(len(H)) if labels[i] == c]
        if not rows:
            raise NfaError(f"expected a sample of every class 0..{classes - 1}, got none of {c}; relabel")
        for row in rows:
            means[c] += row / len(rows)
    grand = torch.zeros(H.shape[1], dtype=torch.float64)
    for c in range(classes):
        grand += means[c] / classes
    return means, grand


def nc1(H: Tensor, labels: Sequence[int], *, divisor: Literal["n", "Cn"] = "n") -> float:
    """``tr Sigma_W / tr Sigma_B`` of features H (n, d).

    ``Sigma_B = (1/C) sum_c (mu_c - mu_G)(mu_c - mu_G)^T``, mu_G the mean of class means;
    ``Sigma_W = (1/n) sum_i (h_i - mu_y(i))(...)^T``, or ``1/(C n)`` as in the Deep RFM code (``Cn``).
    """
    one_of("divisor", divisor, ("n", "Cn"))
    means, grand = class_means(H, labels)
    C, n = len(means), len(H)
    within = 0.0
    for i in range(n):
        v = H[i] - means[labels[i]]
        within += torch.dot(v, v).item()
    between = 0.0
    for c in range(C):
        v = means[c] - grand
        between += torch.dot(v, v).item() / C
    return within / (n if divisor == "n" else C * n) / between


def nc2(H: Tensor, labels: Sequence[int]) -> float:
    """Mean squared entry of ``Gram - ETF`` of features H (n, d).

    ``Gram_ab = cos(mu_a - mu_G, mu_b - mu_G)``; ``ETF = (1 + 1/(C-1)) I - 11^T/(C-1)``, which is 1 on the
    diagonal and -1/(C-1) off it.
    """
    means, grand = class_means(H, labels)
    C = len(means)
    total = 0.0
    for a in range(C):
        for b in range(C):
            u, v = means[a] - grand, means[b] - grand
            size = math.sqrt(torch.dot(u, u).item() * torch.dot(v, v).item())
            if size == 0:
                raise NfaError("expected class means away from their mean, got one on it: NC2 is undefined")
            target = 1.0 if a == b else -1 / (C - 1)
            total += (torch.dot(u, v).item() / size - target) ** 2
    return total / C**2


def circulant_deviation(A: Tensor, *, shift: Literal[-1, 1] = -1) -> float:
    """``sum_j sum_l (B_lj - mean_l B_lj)^2 / ||A||_F^2``, B = A with row l rolled by ``shift * l``.

    ``A`` (p, p) is the bottom-left block of M. ``shift=-1`` gives 0 for ``A_lj = h(j - l)``, the form of
    ``x + y mod p``; ``shift=1`` gives 0 for ``h(j + l)``, that of ``x - y``.
    """
    p = len(A)
    variance = 0.0
    for j in range(p):
        column = [A[row, (j - shift * row) % p].item() for row in range(p)]
        mean = sum(column) / p
        variance += sum((v - mean) ** 2 for v in column)
    return variance / sum(v.item() ** 2 for v in A.flatten())
