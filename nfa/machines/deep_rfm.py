"""Deep recursive feature machines: layers of a learned map M^½ and random features Φ."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from nfa.checks import choice, whole
from nfa.machines.layer import Layer
from nfa.machines.layered import LayeredMachine
from nfa.machines.options import chosen, kernel_of, layer_of
from nfa.machines.random_features import RandomFeatures
from nfa.machines.target_code import TargetCode

LABELS = ("signed", "one_hot")


class DeepRFM(LayeredMachine):
    """Layers of recursive feature machines, ``x -> Φ(M^½ x)`` with M of the layer's own kernel predictor.

    The defaults are those of arXiv 2402.13728: inputs of every layer scaled to unit length, a Laplace kernel
    of bandwidth 2 fitted without a ridge to targets of 1 and -1, one update of M, ReLU features without bias.
    There the predictor of each layer is only looked at; here that of one layer predicts. Inputs are taken as
    they are, where the published code standardises each of them first. Nothing is trained by gradients, and
    the classes collapse.

    Args:
        depth: number of layers.
        width: random features of each layer; see `RandomFeatures`, also for the activation, gamma to bias.
        activation: ``relu``, or ``laplace`` for cosine features of the Laplace kernel.
        kernel: of the predictors, as in `RFM`, also for bandwidth to normalization, solver to metric below.
        bandwidth: L, ``median``, or several to choose from.
        ridge: added to the diagonal of the kernel matrix, or several to choose from; where 0 is too little
            for a Cholesky factor, jitter is added with a warning.
        rounds: updates of M in each layer; 0 leaves M = I.
        power: exponent of the AGOP that becomes M, or ``auto``; as in `RFM`.
        centering: of the gradients: ``none``, ``output``, ``pooled``.
        normalization: of M: ``max``, ``trace``, ``none``.
        gamma: of cosine features, the inverse of a length.
        norm: of cosine features: 1 for independent frequencies, as in the published code, 2 for joint ones.
        bias: whether ReLU features have a bias.
        unit_norm: scale the points that come into a layer to unit length. A row of zeros stays as it is.
        labels: columns of class targets: ``signed``, 1 and -1, or ``one_hot``, 1 and 0.
        select: whose layer's predictor predicts: the ``last``, or the ``best`` by the validation error.
        solver: ``auto``, ``cholesky`` or ``cg``.
        agop_samples: take the AGOP over so many training points; None takes all.
        seed: of the random features, of these points, and of the solver.
        device: where to compute; None means where the data are.
        memory: bytes that a round may take beyond the data.
        distributed: share the work out over processes; see `Solver`.
        offset: ``mean`` or ``none``.
        criterion: by which validation data choose: ``mse``, ``accuracy`` or ``auc``.
        learn: ``agop``, ``fact`` or ``none``.
        metric: ``full`` or ``diagonal``.
        **kernel_options: ``nu`` of matern, ``q`` of exponential.

    Attributes:
        layers: one `PointStage` for each that is fitted, with its ``M``.
        history: one dictionary a layer: what `RFM.history` tells of its last round, with the seconds of all;
            ``self_consistency``, the cosine of its M with the one before; ``rank``; for classes ``nc1_<of>``
            and ``nc2_<of>`` of the training points (`nfa.machines.collapse`), of: ``input``, ``root``
            (``M^½ x``), ``features``; and ``rounds``, all rounds, each with the update that led to it.
        best_layer: the layer whose predictor predicts.
        predictor: that predictor, of the points that come into this layer.

    Raises:
        NfaError: an option is out of range.

    Example:
        >>> import torch, nfa
        >>> X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
        >>> machine = nfa.DeepRFM(depth=2, width=16, ridge=1e-3).fit(X, (X[:, 0] > 0).long())
        >>> [tuple(layer.M.shape) for layer in machine.layers]  # of the inputs, and of 16 features
        [(5, 5), (16, 16)]
        >>> machine.predict(X[:7]).shape
        torch.Size([7])
    """

    format = "nfa.DeepRFM 1"
    defaults: ClassVar = {
        "depth": 5, "width": 512, "activation": "relu", "kernel": "laplace", "bandwidth": 2.0, "ridge": 0.0,
        "rounds": 1, "power": "auto", "centering": "none", "normalization": "max", "gamma": 0.1, "norm": 1,
        "bias": False, "unit_norm": True, "labels": "signed", "select": "last", "solver": "auto",
        "agop_samples": None, "seed": 0, "device": None, "memory": None, "offset": "mean",
        "criterion": "mse", "learn": "agop", "metric": "full", "distributed": False,
    }  # fmt: skip

    @staticmethod
    def layers_of(options: Mapping[str, Any]) -> tuple[Layer, ...]:
        """As many as the depth, alike."""
        lift = chosen(RandomFeatures, options)
        return alike(
            layer_of(options, kernel_of(DeepRFM, options), lift=lift, keeps="last"), options["depth"]
        )

    def _own(self, options: Mapping[str, Any]) -> None:
        super()._own(options)
        self.labels = choice("labels", options["labels"], LABELS)

    def features(self, X: Tensor, layer: int) -> Tensor:
        """``Φ(M^½ x)``, what a layer hands on, (n, width).

        Raises:
            NfaError: no layer of this index.
        """
        return self._before(X, self._known_layer(layer) + 1)

    def _columns(self, targets: TargetCode, y: Any, like: Tensor) -> Tensor:
        Y = super()._columns(targets, y, like)
        return 2 * Y - 1 if targets.classes and self.labels == "signed" else Y


def alike(layer: Layer, depth: int, *, last: bool = True) -> tuple[Layer, ...]:
    """So many layers like this one; unless ``last``, the last one hands nothing on."""
    stack = (layer,) * whole("depth", depth, 1)
    return stack if last else (*stack[:-1], replace(layer, lift=None))
