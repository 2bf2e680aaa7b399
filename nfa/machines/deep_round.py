"""Rounds of a deep recursive feature machine: each layer fits, learns its M, and hands on ``Φ(M^½ x)``."""

import time
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from nfa.checks import choice, flag, settle, whole
from nfa.kernels import Metric
from nfa.kernels.roots import root_spectrum
from nfa.machines.collapse import ClassMeans
from nfa.machines.deep_network import DeepKernelNetwork
from nfa.machines.layer_fit import LayerFit
from nfa.machines.random_features import RandomFeatures, check_rows
from nfa.machines.recursion import Fit, Recursion, mse
from nfa.machines.rise import Rise
from nfa.machines.targets import TargetCode

LABELS = ("signed", "one_hot")


@dataclass(frozen=True)
class DeepRecursion:
    """The options of a deep recursive feature machine; `DeepFit` does what they say.

    Args:
        recursion: of every layer.
        features: of every layer.
        depth: number of layers.
        rounds: updates of M in each layer; there is one more fit than that.
        unit_norm: scale the points that come into a layer to length one.
        labels: columns of class targets: ``signed``, 1 and -1, or ``one_hot``, 1 and 0.

    Raises:
        NfaError: an option is out of range.
    """

    recursion: Recursion = field(default_factory=lambda: Recursion(bandwidth=2.0, ridge=0.0))
    features: RandomFeatures = field(default_factory=RandomFeatures)
    depth: int = 5
    rounds: int = 1
    unit_norm: bool = True
    labels: str = "signed"

    def __post_init__(self):
        settle(
            self,
            depth=whole("depth", self.depth, 1),
            rounds=whole("rounds", self.rounds),
            unit_norm=flag("unit_norm", self.unit_norm),
            labels=choice("labels", self.labels, LABELS),
        )

    @property
    def steps(self) -> int:
        """Fits of all rounds of all layers."""
        return self.depth * (self.rounds + 1)

    def network(
        self, in_features: int, outputs: int, *, depth: int | None = None, last: bool = True
    ) -> DeepKernelNetwork:
        """A network to be fitted; see `DeepKernelNetwork`. None takes the depth of the options."""
        return DeepKernelNetwork(
            self.recursion.kernel, in_features, outputs, depth or self.depth, self.features,
            self.recursion.seed, self.unit_norm, last, **self.recursion.kernel_options,
        )  # fmt: skip

    def columns(self, targets: TargetCode, y: Tensor, like: Tensor) -> Tensor:
        """Targets (n, outputs) of the dtype and device of ``like``; see `TargetCode.columns`."""
        Y = targets.columns(y, like)
        return 2 * Y - 1 if targets.classes and self.labels == "signed" else Y


class DeepFit(LayerFit):
    """Fits a `DeepKernelNetwork`, one round of one layer at a time: ``options.steps`` steps.

    Its rows have what `RFM.history` tells of a round, with ``self_consistency``, ``rank`` and ``agop_route``
    those of the update that led to it. The row of the last round of a layer has ``features_seconds`` and, for
    classes, ``nc1_<of>`` and ``nc2_<of>`` of the training points, of: ``input``, ``root`` (``M^½ x``) and
    ``features``.

    Args:
        options: of the machine.
        network: made by ``options.network``.
        X: training points (n, d), float32 or float64.
        y: their targets.
        targets: what kind these are.
        validation: points and their targets.

    Raises:
        NfaError: targets that do not belong to the points.
    """

    def __init__(
        self,
        options: DeepRecursion,
        network: DeepKernelNetwork,
        X: Tensor,
        y: Tensor,
        targets: TargetCode,
        validation: tuple[Tensor, Tensor] | None = None,
    ):
        super().__init__(network, options.depth, options.rounds)
        self.options, self._targets, self._recursion = options, targets, targets.suited(options.recursion)
        self._Y = options.columns(targets, y, X)
        self._points, self._Y_val = [X], None
        if validation is not None:
            self._points.append(validation[0].to(X))
            self._Y_val = options.columns(targets, validation[1], self._points[1])
        self._fit: Fit | None = None
        self._layer = -1  # whose scaled inputs are held, and after its last round what it hands on
        self._inputs: list[Tensor] = []
        self._handed: list[Tensor] = []

    def _fit_round(self, layer: int, index: int) -> dict[str, Any]:
        H, *H_val = self._inputs_of(layer)
        metric, start, row = Metric.identity(), None, {}
        if index:
            metric, start, row = self._next_metric(layer, index)
        self._fit = None  # its distances make room for those to come
        validation = (H_val[0], self._Y_val) if H_val else None
        fit = self._recursion.fit(metric, H, self._Y, validation, start)
        if validation is None:
            if index == 0 or self._rise is None:
                self._rise = Rise(self._recursion, Metric.identity(), H, self._Y)
            self._rise.check(index, metric, mse(fit.train_scores, self._Y))
        self._fit = fit
        self.network.hold(layer, index, fit.predictor, fit.solution.ridge)
        row |= self._targets.quality(fit.train_scores, self._Y, "train")
        if H_val:
            row |= self._targets.quality(fit.val_scores, self._Y_val, "val")
        return row | fit.row

    def _end_early(self, layer: int) -> None:
        predictor, ridge = self.network.predictor(), float(self.network.radial.ridge)
        if predictor.metric.root is not None:  # features take the symmetric root
            H = self._inputs_of(layer)[0]
            predictor = replace(predictor, metric=symmetric(predictor.metric), points=H)
        self.network.hold(layer, self._rounds, predictor, ridge)

    def _next_metric(self, layer: int, index: int) -> tuple[Metric, Tensor, dict[str, Any]]:
        """The metric of a round, coefficients to start from, and what a history tells of the update."""
        recursion, rounds, fit = self._recursion, self._rounds, self._fit
        predictor = self.network.predictor()  # the same where a fit was broken off
        distances = None if fit is None or fit.predictor.points is not None else fit.distances
        metric, update = recursion.next_metric(predictor, layer * rounds + index - 1, distances)
        return symmetric(metric) if index == rounds else metric, predictor.coefficients, update

    def _inputs_of(self, layer: int) -> list[Tensor]:
        """What comes into a layer, scaled: training points and validation points."""
        if layer != self._layer:
            raw = self._handed or [self.network.before(X, layer) for X in self._points]
            if self.options.unit_norm:
                check_rows(raw[0], layer)
            self._inputs = [self.network.layers[layer].scale(H) for H in raw]
            self._layer, self._handed = layer, []
        return self._inputs

    def _finished(self, layer: int) -> dict[str, Any]:
        """Take the features of a layer, and tell how far the classes collapse in it."""
        began = time.perf_counter()
        module = self.network.layers[layer].to(self._Y.device, self._Y.dtype)
        self._handed = [module.features(H) for H in self._inputs]
        row: dict[str, Any] = {}
        if self._targets.classes:
            root = self.network.radial.centers
            stages = {"input": self._inputs, "root": [root], "features": self._handed}
            for of, (points, *_) in stages.items():
                means = ClassMeans.of(points, self._Y.argmax(1))
                row |= {f"nc1_{of}": means.nc1(), f"nc2_{of}": means.nc2()}
        return row | {"features_seconds": time.perf_counter() - began}


def symmetric(metric: Metric) -> Metric:
    """The same M by its symmetric root ``V S^½ Vᵀ``, (d, d); M is not the identity."""
    values, vectors = root_spectrum(metric.root)
    return Metric(((vectors * values.sqrt()) @ vectors.mT).to(metric.root), "full")
