"""The one loop of all machines: predictor → what is learned from it → the next metric, layer after layer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nfa.clock import now
from nfa.errors import NfaError
from nfa.kernels import Metric, exact_products
from nfa.machines.collapse import ClassMeans
from nfa.machines.criteria import mse
from nfa.machines.layer import Fit, Layer, Pair
from nfa.machines.network import DeepNetwork
from nfa.machines.normalization import symmetric
from nfa.machines.random_features import check_rows
from nfa.machines.reached import Kept, Reached, Round
from nfa.machines.rise import Rise
from nfa.machines.stages import Stage
from nfa.machines.target_code import TargetCode

FAILURES = (NfaError, torch.OutOfMemoryError)


@dataclass
class Steps:
    """Fits layers, one round a step.

    Args:
        layers: of the machine.
        X: training data (n, …).
        Y: their targets (n, c).
        targets: what kind these are.
        validation: inputs and their targets, which choose bandwidths, ridges and rounds; None for none.
        network: that is fitted, where there are several layers; its layers hand on.
        judged: whether rounds that do harm are found out by other means: by validation data here or outside.
        resumable: whether a step needs no more than what a network holds: the same numbers where a fit is
            broken off and gone on with.
        report: called with the index of a round, gives what its fit reports to.
        weights: of the training data (n,) float64; None where all count the same.
    """

    layers: Sequence[Layer]
    X: Tensor
    Y: Tensor
    targets: TargetCode
    validation: Pair | None = None
    network: DeepNetwork | None = None
    judged: bool = False
    resumable: bool = False
    report: Callable[[int], Callable[..., None] | None] = lambda index: None
    weights: Tensor | None = None
    _inputs: list[Tensor] = field(default_factory=list)  # what comes into the layer after the last one
    _scaled: list[Tensor] = field(default_factory=list)  # what came into the last one

    def after(self, reached: Reached | None = None) -> Iterator[Round]:
        """Rounds after one that was reached, of its layer and of all that come behind it.

        A round after the first of a layer that fails ends the layer.

        Raises:
            NfaError: the first round of a layer fails.
        """
        reached = reached or Reached()
        first = reached.layer
        if reached.index >= self.layers[first].rounds:
            first, reached = first + 1, Reached()
        for index in range(first, len(self.layers)):
            inputs = self._come_to(index)
            yield from self._layer(index, inputs, reached)
            reached = Reached()

    def _layer(self, number: int, inputs: list[Tensor], reached: Reached) -> Iterator[Round]:
        """The rounds of one layer."""
        layer = self.targets.suited(self.layers[number])
        H, seen = inputs[0], None
        if self.validation is not None:
            seen = inputs[1], self.validation[1]
        rise = None if seen is not None or self.judged else Rise(layer, H, self.Y, self.weights)
        predictor, kept, distances = reached.predictor, reached.kept, None
        row: dict[str, object] = {}
        for index in range(reached.index + 1, layer.rounds + 1):
            metric, start = Metric.identity(), None
            update: dict[str, object] = {}
            try:
                if predictor is not None:  # after round 0
                    step = number * layer.rounds + index - 1
                    seen_by_update = replace(predictor, inputs=H)
                    metric, update = layer.update(seen_by_update, step, layer.solver, distances)
                    if index == layer.rounds and layer.keeps == "last":
                        metric = symmetric(metric)
                    start = predictor.coefficients
                distances = None  # makes room for those to come
                fit = layer.fit(metric, H, self.Y, seen, start, self.report(index), self.weights)
                if rise is not None:
                    rise.check(index, metric, mse(fit.train_scores, self.Y, self.weights))
            except FAILURES as error:
                if kept is None:  # in round 0
                    if isinstance(error, NfaError):
                        raise
                    raise NfaError(
                        f"out of memory on {H.device} in the first fit of {len(H)} {layer.kernel.noun}: give "
                        "fewer, or another device"
                    ) from None
                kept = self._finished(layer, kept, H)
                found = Round(number, index - 1, None, row, update, kept, layer.rounds, error)
                yield from self._last(number, layer, found)
                return
            fit = fit.settled() if self.resumable else fit
            predictor, distances = fit.predictor, fit.distances
            fit = replace(fit, distances=None)
            judged: float = -index
            if seen is not None and fit.val_scores is not None:
                judged = layer.error(fit.val_scores, seen[1])
            if kept is None or layer.keeps == "last" or judged < kept.error:
                kept = Kept(index, predictor, fit.solution.ridge, judged)
            row = self._row(fit, seen)
            found = Round(number, index, fit, row, update, kept, layer.rounds)
            if found.last:
                yield from self._last(number, layer, found)
            else:
                yield found

    def _row(self, fit: Fit, seen: Pair | None) -> dict[str, object]:
        row: dict[str, object] = {**self.targets.quality(fit.train_scores, self.Y, "train")}
        if seen is not None and fit.val_scores is not None:
            row |= self.targets.quality(fit.val_scores, seen[1], "val")
        return row | fit.row

    # ---- between layers ------------------------------------------------------------------------------------

    @exact_products()
    def _come_to(self, number: int) -> list[Tensor]:
        """What comes into a layer, scaled: at training data and at validation data."""
        raw, self._inputs = self._inputs, []
        if not raw:
            raw = [self.X] if self.validation is None else [self.X, self.validation[0]]
            if self.network is not None:
                raw = [self.network.before(X, number) for X in raw]
        if self.layers[number].unit_norm:
            check_rows(raw[0], number)
        if self.network is None:
            return raw
        self._scaled = [self.network.layers[number].scale(H) for H in raw]
        return self._scaled

    @staticmethod
    def _finished(layer: Layer, kept: Kept, H: Tensor) -> Kept:
        """The round of a layer that ended early, by the root that its features take."""
        predictor = kept.predictor
        if layer.keeps != "last" or predictor.metric.root is None:
            return kept
        predictor = replace(predictor, metric=symmetric(predictor.metric), points=H)
        return replace(kept, predictor=predictor.settled())

    def _last(self, number: int, layer: Layer, found: Round) -> Iterator[Round]:
        """The last round of a layer, with what is told of the layer; what it hands on is held."""
        broken = None
        if layer.lift is not None and self.network is not None:
            try:
                handed = self._hand_on(self.network.layers[number], layer, found.kept)
                found = replace(found, row=found.row | handed)
            except FAILURES as error:
                broken = error
        yield found
        if broken is not None and number < len(self.layers) - 1:
            raise broken

    @exact_products()
    def _hand_on(self, stage: Stage, layer: Layer, kept: Kept) -> dict[str, object]:
        began = now()
        inputs, predictor = self._scaled, kept.predictor.settled()
        stage.to(self.X.device, self.X.dtype)
        stage.feature_map.set_tensor("weight", predictor.weight.contiguous())
        self._inputs = handed = [stage.features(H) for H in inputs]
        row: dict[str, object] = {}
        if layer.lift.collapses and self.targets.classes:
            told = {"input": inputs[0], "root": predictor.centers, "features": handed[0]}
            for of, points in told.items():
                means = ClassMeans.of(points, self.Y.argmax(1))
                row |= {f"nc1_{of}": means.nc1(), f"nc2_{of}": means.nc2()}
        return row | {"features_seconds": now() - began}
