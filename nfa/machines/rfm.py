"""Recursive Feature Machines: kernel machines that learn features by their own gradients alone."""

from collections.abc import Mapping
from typing import Any, ClassVar

from nfa.machines.layer import Layer
from nfa.machines.machine import Machine
from nfa.machines.options import kernel_of, layer_of


class RFM(Machine):
    """A kernel predictor whose Mahalanobis matrix M is learned from its own gradients (arXiv 2212.13881).

    Args:
        kernel: ``laplace``, ``gaussian``, ``matern`` or ``exponential``, see `nfa.kernels.make_kernel`; or of
            inner products, ``linear`` or ``quadratic``, see `InnerProduct`.
        bandwidth: of the radial ones: L, ``median``, or several to choose from in each round on validation
            data; see `Radial`.
        ridge: added to the diagonal of the kernel matrix as it is; or several, likewise.
        rounds: updates of M; there is one more fit than that, the first with ``M = I``.
        power: exponent of the AGOP that becomes M, or ``auto``: 1, and 1/2 with ``learn="fact"``; see `Agop`,
            also for the three below.
        centering: of the gradients: ``none``, ``output``, ``pooled``.
        normalization: of M: ``max``, ``trace``, ``none``.
        solver: ``auto``, ``cholesky`` or ``cg``; see `Solver`.
        agop_samples: take the AGOP over so many training points; None takes all.
        patience: stop when the validation error was no lower for so many rounds; None goes on to the end.
        refit: at the end solve once more, with training and validation points together, in the metric and
            with the bandwidth and the ridge of the round that is kept.
        seed: of the points of the AGOP, and of the solver.
        device: where to compute; None means where the data are.
        memory: bytes that a round may take beyond the data; None takes 80 % of what is free.
        distributed: share the work out over the processes of `torch.distributed`'s group; see `Solver`.
        offset: ``mean`` fits real targets less their mean, which is added to what is predicted; ``none`` is
            the published recursion, without an intercept. One-hot columns of classes are always fitted as
            they are, as published.
        criterion: by which validation data choose: ``mse``, ``accuracy`` or ``auc``.
        learn: from what M is learned: ``agop``; ``fact``, see `Fact`; or ``none`` for the plain kernel.
        metric: ``full``, or ``diagonal``, which weighs coordinates alone.
        **kernel_options: ``nu`` of matern, ``q`` of exponential.

    Attributes:
        M: (d, d), of the round that is kept: the best on validation data, without these the last.
        history: one dictionary a round: ``round``, ``train_mse``, ``val_mse`` (and accuracies for classes),
            ``bandwidth``, ``ridge``, ``solver``, ``residual``, ``jitter``; ``kernel_seconds``,
            ``solve_seconds``, ``predict_seconds``, ``agop_seconds``; ``agop_route``; ``rank`` of the next
            M; and ``self_consistency``, the cosine of M with the matrix that replaces it.
        best_round: the round that is kept.
        predictor: the kernel predictor of that round.

    Raises:
        NfaError: an option is out of range.

    Example:
        >>> import torch, nfa
        >>> X = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
        >>> y = X[:, 0] * X[:, 1]  # of five coordinates, two count
        >>> machine = nfa.RFM(bandwidth=3.0, rounds=3).fit(X, y)
        >>> machine.M.diagonal().topk(2).indices.sort().values
        tensor([0, 1])
        >>> machine.predict(X[:7]).shape
        torch.Size([7])
    """

    format = "nfa.RFM 1"
    defaults: ClassVar = {
        "kernel": "laplace", "bandwidth": 10.0, "ridge": 1e-3, "rounds": 5, "power": "auto",
        "centering": "none", "normalization": "max", "solver": "auto", "agop_samples": None, "patience": None,
        "refit": False, "seed": 0, "device": None, "memory": None, "offset": "mean", "criterion": "mse",
        "learn": "agop", "metric": "full", "distributed": False,
    }  # fmt: skip

    @staticmethod
    def layers_of(options: Mapping[str, Any]) -> tuple[Layer, ...]:
        """One."""
        return (layer_of(options, kernel_of(RFM, options)),)
