"""Machines of several layers, each of which fits what comes into it and hands on random features."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nfa.checks import choice, whole
from nfa.errors import NfaError
from nfa.machines.layer import Layer
from nfa.machines.loop import FAILURES, Steps
from nfa.machines.machine import Machine, _warn
from nfa.machines.network import DeepNetwork
from nfa.machines.progress import layer_line
from nfa.machines.reached import Kept
from nfa.machines.saved import Saved, expect, expect_room
from nfa.machines.stages import Stage
from nfa.status import StatusLine

SELECTIONS = ("last", "best")


class LayeredMachine(Machine):
    """A machine whose history tells of layers; of their rounds under ``rounds``.

    Attributes:
        best_layer: the layer whose predictor predicts.
    """

    _network: DeepNetwork | None = None

    def _own(self, options: Mapping[str, Any]) -> None:
        self.select = choice("select", options["select"], SELECTIONS)
        self.best_layer, self._best_error = 0, math.inf

    def _check_validation(self, X_val: Tensor | None) -> None:
        if self.select == "best" and X_val is None:
            raise NfaError("select='best' needs validation data: give X_val and y_val, or select='last'")

    # ---- fit -----------------------------------------------------------------------------------------------

    def _run(self, steps: Steps, progress: bool) -> None:
        """Step through all rounds of all layers."""
        line, rows = StatusLine() if progress else None, []
        steps.network = self._network = DeepNetwork(self.stack, self._shape, steps.Y.shape[1]).to(
            steps.X.device
        )
        steps.resumable = True
        found = steps.after()
        while True:
            try:
                step = next(found, None)
            except FAILURES as error:
                if not self.history:
                    raise
                _warn(
                    f"layer {len(self.history)} failed ({error}); the machine is that of layer "
                    f"{self.best_layer}"
                )
                break
            if step is None:
                break
            if step.failed is None:
                rows.append({"layer": step.layer, "round": step.index, **step.update, **step.row})
            else:
                _warn(step.end_in_words)
                rows[-1] = {**rows[-1], **step.row}
            if step.last:
                kept = step.kept
                self._network.hold(step.layer, step.rounds, kept.predictor, kept.ridge, kept.error)
                self._add_layer(rows, kept)
                rows = []
                if line is not None:
                    line.say(layer_line(self.history[-1], len(self.stack)))

    def _add_layer(self, rows: list[dict[str, Any]], kept: Kept) -> None:
        """Keep what a finished layer leaves behind."""
        names = {name for row in rows for name in row if name.endswith("_seconds")}
        seconds = {name: sum(row.get(name, 0.0) for row in rows) for name in sorted(names)}
        best = {"best_round": kept.index} if self.stack[0].keeps == "best" else {}
        rows[-1] |= best
        row = {name: value for name, value in rows[kept.index].items() if name != "round"}
        self.history.append(row | best | seconds | {"rounds": rows})
        if self._predictor is None or self.select == "last" or kept.error < self._best_error:
            self.best_layer, self._predictor, self._best_error = row["layer"], kept.predictor, kept.error

    # ---- what is fitted ------------------------------------------------------------------------------------

    @property
    def layers(self) -> tuple[Stage, ...]:
        """The layers that are fitted, as modules with their ``M``."""
        return self._fitted.layers[: len(self.history)]

    @property
    def _fitted(self) -> DeepNetwork:
        if self._network is None or not self.history:
            raise NfaError("this machine is not fitted: call fit(X, y) first")
        return self._network

    def scores(self, X: Tensor) -> Tensor:
        """Real outputs (n, outputs); for classes the larger, the likelier."""
        predictor, stage = self.predictor, self.layers[self.best_layer]
        return predictor(stage.scale(self._before(X, self.best_layer)), self.stack[0].solver.memory)

    def _known_layer(self, layer: int) -> int:
        if not 0 <= layer < len(self.layers):
            raise NfaError(f"expected a layer from 0 to {len(self.layers) - 1}, got {layer}")
        return layer

    @torch.no_grad()
    def _before(self, X: Tensor, layer: int) -> Tensor:
        X = self._inputs(X, self._shape).to(self.predictor.centers)
        return self._fitted.before(X, layer)

    def network(self) -> DeepNetwork:
        """The machine that predicts, as a module that `nfa.audit` can measure.

        ``layer0.feature_map`` has ``WᵀW = M`` of the first layer, ``layer0.random`` is the linear map inside
        what it hands on, and so on up to the feature map of ``best_layer`` and the kernel behind it.
        """
        best, predictor = self.best_layer, self.predictor
        stack = (*self.stack[:best], replace(self.stack[best], lift=None))
        network = DeepNetwork(stack, self._shape, predictor.coefficients.shape[1])
        network.to(predictor.centers.device)
        for own, fitted in zip(network.layers[:best], self.layers, strict=False):
            own.load_state_dict(fitted.state_dict())
        network.hold(best, self.stack[best].rounds, predictor)
        return network

    # ---- files ---------------------------------------------------------------------------------------------

    def _written(self) -> Saved:
        stack = self._stack_of(len(self.layers))
        layers = {
            f"layer{index}.{name}": tensor
            for index, layer in enumerate(self.layers)
            for name, tensor in layer.state_dict().items()
            if stack[index].lift is not None or not name.startswith("random.")
        }
        shape = self._shape if len(self._shape) > 1 else self._shape[0]
        facts = {"shape": (shape, self.predictor.coefficients.shape[1])}
        return self.network().state_dict() | layers, facts

    def _read(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Take what a file holds of the fit; tensors have the sizes that belong to them."""
        shape, outputs = state["shape"]
        sizes = shape if isinstance(shape, list) else [shape]
        self._shape = tuple(whole("a size of its inputs", size, 1) for size in sizes)
        outputs = whole("outputs", outputs, 1)
        layers = len(self.history)
        stack = self._stack_of(layers)
        widths = self._expect_layers(tensors, stack)
        network = DeepNetwork(stack, self._shape, outputs).to(self.device or "cpu")
        network.load_state_dict(tensors)
        best, index = (int(entry) for entry in network.position.flatten())
        self.best_layer = whole("the layer of its position", best, 0, layers - 1)
        whole("the round of its position", index, 0, stack[best].rounds)
        p = network.predictor()
        if p is None:
            raise NfaError("centers are missing")
        expect("feature_map", p.root(), widths[best], None)
        expect("coefficients", p.coefficients, len(p.centers), self._targets.columns_of)
        expect("intercept", network.tail.intercept, outputs)
        stack[best].kernel.expect_held(p, network.layers[best])
        self._network, self._predictor = network, p

    def _stack_of(self, layers: int) -> tuple[Layer, ...]:
        """The layers of a fit, of which there may be fewer than were asked for; what the last one keeps."""
        stack = self.stack[: whole("the number of its layers", layers, 1, len(self.stack))]
        return stack if stack[-1].keeps == "last" else (*stack[:-1], replace(stack[-1], lift=None))

    def _expect_layers(self, tensors: dict[str, Tensor], stack: tuple[Layer, ...]) -> list[int]:
        """Widths of all layers, whose tensors are as wide."""
        shape, widths, numbers = self._shape, [], 0
        for index, layer in enumerate(stack):
            d = layer.kernel.width(shape)
            widths.append(d)
            for name, rows in (("feature_map", None), ("random", layer.lift and layer.lift.width)):
                W = tensors.get(f"layer{index}.{name}.weight")
                if name == "feature_map" or layer.lift is not None:
                    expect(f"layer{index}.{name}.weight", None if W is None else W.flatten(1), rows, d)
            features = 0 if layer.lift is None else layer.lift.width
            numbers += d * (d + features)
            shape = shape if layer.lift is None else layer.kernel.shape_behind(shape, layer.lift)
            expect_room(numbers)
        return widths
