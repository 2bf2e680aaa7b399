"""Deep recursive feature machines: layers of a learned map M^½ and random features Φ.

Each layer fits a recursive feature machine to what comes into it and hands on ``Φ(M^½ x)`` (Beaglehole,
Súkeník, Mondelli and Belkin, arXiv 2402.13728). Nothing is trained by gradients, and the classes collapse.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor

from nfa.checks import choice, device_of_name, flag, known_options, whole
from nfa.errors import NfaError
from nfa.kernels import option_names
from nfa.machines.deep_network import DeepKernelNetwork, DeepLayer
from nfa.machines.deep_round import DeepFit, DeepRecursion
from nfa.machines.fitting import LayerMachine
from nfa.machines.predictor import Predictor
from nfa.machines.random_features import RandomFeatures
from nfa.machines.recursion import Recursion
from nfa.machines.saved import expect, expect_room, history_of, index_in, opened_machine, save_machine
from nfa.machines.targets import TargetCode, check_points

SELECTIONS = ("last", "best")
_FORMAT = "nfa.DeepRFM 1"


class DeepRFM(LayerMachine):
    """Layers of recursive feature machines, ``x -> Φ(M^½ x)`` with M of the layer's own kernel predictor.

    The defaults are those of arXiv 2402.13728: inputs of every layer scaled to unit length, a Laplace kernel
    of bandwidth 2 fitted without a ridge to targets of 1 and -1, one update of M, ReLU features without bias.
    There the predictor of each layer is only looked at; here that of one layer predicts. Inputs are taken as
    they are, where the published code standardises each of them first.

    Args:
        depth: number of layers.
        width: random features of each layer.
        activation: ``relu``, or ``laplace`` for cosine features of the Laplace kernel; see `RandomFeatures`.
        kernel: of the predictors; see `nfa.kernels.make_kernel`.
        bandwidth: L, ``median``, or several to choose from in each round on validation data, as in `RFM`.
        ridge: added to the diagonal of the kernel matrix, or several to choose from; where 0 is too little
            for a Cholesky factor, jitter is added with a warning.
        rounds: updates of M in each layer; 0 leaves M = I.
        power: exponent of the AGOP that becomes M.
        centering: of the gradients: ``none``, ``output``, ``pooled``.
        normalization: of M: ``max``, ``trace``, ``none``.
        gamma: of cosine features, the inverse of a length.
        norm: of cosine features: 1 for independent frequencies, as in the published code, 2 for joint ones.
        bias: whether ReLU features have a bias.
        unit_norm: scale the points that come into a layer to unit length. A row of zeros stays as it is.
        labels: columns of class targets: ``signed``, 1 and -1, or ``one_hot``, 1 and 0.
        select: whose layer's predictor predicts: the ``last``, or the ``best`` by the validation error.
        solver: ``auto``, ``cholesky`` or ``cg``; see `nfa.solvers.solve`.
        agop_samples: take the AGOP over so many training points; None takes all.
        seed: of the random features, of these points, and of the solver.
        device: where to compute; None means where the data are.
        memory: bytes that a round may take beyond the data; None takes 80 % of what is free.
        offset: ``mean`` fits real targets less their mean, which is added to what is predicted; ``none`` fits
            them as they are. Columns of classes are always fitted as they are, as published.
        **kernel_options: ``nu`` of matern, ``q`` of exponential.

    Attributes:
        layers: one `DeepLayer` for each that is fitted, with its ``M``.
        history: one dictionary a layer: what `RFM.history` tells of its last round, with the seconds of all;
            ``self_consistency``, the cosine of its M with the one before; ``rank``; for classes ``nc1_<of>``
            and ``nc2_<of>`` of the training points (`nfa.machines.collapse`), of: ``input``, ``root``
            (``M^½ x``), ``features``; and ``rounds``, all rounds as `DeepFit.step` tells them.
        best_layer: the layer whose predictor predicts.
        predictor: that predictor, of the points that come into this layer.

    Raises:
        NfaError: an option is out of range.
    """

    def __init__(
        self,
        depth: int = 5,
        width: int = 512,
        activation: str = "relu",
        kernel: str = "laplace",
        bandwidth: float | str | Sequence[float | str] = 2.0,
        ridge: float | Sequence[float] = 0.0,
        rounds: int = 1,
        power: float = 1.0,
        centering: str = "none",
        normalization: str = "max",
        gamma: float = 0.1,
        norm: int = 1,
        bias: bool = False,
        unit_norm: bool = True,
        labels: str = "signed",
        select: str = "last",
        solver: str = "auto",
        agop_samples: int | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        memory: float | None = None,
        offset: str = "mean",
        **kernel_options: Any,
    ):
        known_options(kernel_options, type(self), option_names())
        recursion = Recursion(
            kernel, bandwidth, ridge, power, centering, normalization, solver, agop_samples, seed, memory,
            kernel_options, offset,
        )  # fmt: skip
        features = RandomFeatures(activation, width, gamma, norm, bias)
        self.options = DeepRecursion(recursion, features, depth, rounds, unit_norm, labels)
        self.select, self.device = choice("select", select, SELECTIONS), device_of_name(device)
        self.history: list[dict[str, Any]] = []
        self.best_layer = 0
        self._predictor: Predictor | None = None
        self._network: DeepKernelNetwork | None = None
        self._targets = TargetCode()
        self._width = 0

    # ---- fit and predict -----------------------------------------------------------------------------------

    def fit(
        self,
        X: Tensor,
        y: Tensor,
        X_val: Tensor | None = None,
        y_val: Tensor | None = None,
        *,
        progress: bool = False,
    ) -> "DeepRFM":
        """Learn all layers, one after the other.

        Args:
            X: (n, d) float32 or float64; everything is computed in its dtype, what needs it in float64.
            y: labels (n,) or (n, 1), integers, bools or a list of texts; or floating targets (n,) or
                (n, outputs).
            X_val: validation points, which choose the layer where that is asked for, and bandwidth and ridge
                where there are several; never used for fitting.
            y_val: their targets.
            progress: show the layers on standard error.

        Raises:
            NfaError: data that are not finite, do not belong together, or hold one class only.

        Warns:
            ZeroRowsWarning: points that come into a layer cannot be scaled to unit length.
            RoundFailedWarning: a layer after the first could not be fitted, or a round after the first of a
                layer failed or did harm; the layer is that of the round before.
        """
        self._check_pair(X_val, y_val)
        self._check_selection(X_val)
        X = self._points(X)
        validation = None if X_val is None else (self._points(X_val, X.shape[1]), y_val)
        targets = TargetCode.of(y, y_val)
        outputs = targets.classes or targets.columns(y, X).shape[1]
        network = self.options.network(X.shape[1], outputs)
        fit = DeepFit(self.options, network, X, y, targets, validation)
        with self._anew():
            self._width, self._targets, self._network = X.shape[1], targets, network
            self._fit_layers(fit, self.options.depth, flag("progress", progress))
        return self

    def scores(self, X: Tensor) -> Tensor:
        """Real outputs (n, outputs); for classes the larger, the likelier."""
        predictor, layer = self.predictor, self.layers[self.best_layer]
        return predictor(layer.scale(self._before(X, self.best_layer)))

    def features(self, X: Tensor, layer: int) -> Tensor:
        """``Φ(M^½ x)``, what a layer hands on, (n, width).

        Raises:
            NfaError: no layer of this index.
        """
        if not 0 <= layer < len(self.layers):
            raise NfaError(f"expected a layer from 0 to {len(self.layers) - 1}, got {layer}")
        return self._before(X, layer + 1)

    @property
    def layers(self) -> tuple[DeepLayer, ...]:
        """The layers that are fitted."""
        if self._network is None or not self.history:
            raise NfaError("this machine is not fitted: call fit(X, y) first")
        return self._network.layers[: len(self.history)]

    @property
    def predictor(self) -> Predictor:
        """The kernel predictor of ``best_layer``."""
        return self._fitted()

    def network(self) -> DeepKernelNetwork:
        """The machine that predicts, as a module that `nfa.audit` can measure.

        ``layer0.feature_map`` has ``WᵀW = M`` of the first layer, ``layer0.random`` is the linear map inside
        its features, and so on up to the feature map of ``best_layer`` and its radial functions.
        """
        best, predictor = self.best_layer, self.predictor
        outputs = predictor.coefficients.shape[1]
        network = self.options.network(self._width, outputs, depth=best + 1, last=False)
        for own, fitted in zip(network.layers[:best], self.layers, strict=False):
            own.load_state_dict(fitted.state_dict())
        network.hold(best, self.options.rounds, predictor)
        return network

    # ---- files ---------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted machine to a safetensors file, whole or not at all."""
        layers = {
            f"layer{index}.{name}": tensor
            for index, layer in enumerate(self.layers)
            for name, tensor in layer.state_dict().items()
        }
        state = {
            "options": self._options(),
            "targets": asdict(self._targets),
            "shape": (self._width, self.predictor.coefficients.shape[1]),
            "history": self.history,
        }
        save_machine(path, _FORMAT, self.network().state_dict() | layers, state)

    @classmethod
    def load(cls, path: str | os.PathLike, device: torch.device | str | None = None) -> "DeepRFM":
        """Read a machine that `save` wrote.

        Raises:
            NfaError: the file is missing, or none of these.
        """
        with opened_machine(path, _FORMAT, device) as (tensors, state):
            machine = cls(**state["options"], device=device)
            machine._targets, machine.history = TargetCode(**state["targets"]), history_of(state)
            outputs = whole("outputs", state["shape"][1], 1)
            width = machine._width = whole("in_features", state["shape"][0], 1)
            layers, features = len(machine.history), machine.options.features.width
            widths = [width] + [features] * (layers - 1)
            for index, d in enumerate(widths):
                name = f"layer{index}.random.weight"
                expect(name, tensors.get(name), features, d)
            expect_room(sum(d * (d + features) for d in widths))
            network = machine.options.network(width, outputs, depth=layers)
            network.to(machine.device or "cpu").load_state_dict(tensors)
            best, index = (int(entry) for entry in network.position.flatten())
            machine.best_layer = index_in("the layer of its position", best, layers)
            index_in("the round of its position", index, machine.options.rounds + 1)
            p = network.predictor()
            root = expect("feature_map", p.root(), widths[best], None)
            expect("centers", p.centers, None, root.shape[1])
            expect("coefficients", p.coefficients, len(p.centers), machine._targets.columns_of)
            expect("offset", p.offset, widths[best])
            expect("intercept", network.radial.intercept, outputs)
            machine._network, machine._predictor = network, p
        return machine

    def _options(self) -> dict[str, Any]:
        recursion, features = (
            {f.name: getattr(part, f.name) for f in fields(part)}
            for part in (self.options.recursion, self.options.features)
        )
        own = {name: getattr(self.options, name) for name in ("depth", "rounds", "unit_norm", "labels")}
        return {**recursion.pop("kernel_options"), **recursion, **features, **own, "select": self.select}

    # ---- layers --------------------------------------------------------------------------------------------

    def _add_layer(self, rounds: list[dict[str, Any]], predictor: Predictor) -> None:
        """Keep what a finished layer leaves behind."""
        seconds = {
            name: sum(row.get(name, 0.0) for row in rounds)
            for name in {name for row in rounds for name in row if name.endswith("_seconds")}
        }
        row = {name: value for name, value in rounds[-1].items() if name != "round"}
        self.history.append(row | dict(sorted(seconds.items())) | {"rounds": rounds})
        best = self.history[self.best_layer] if self._predictor is not None else row
        if self._predictor is None or self.select == "last" or row["val_mse"] < best["val_mse"]:
            self.best_layer, self._predictor = row["layer"], predictor

    @torch.no_grad()
    def _before(self, X: Tensor, layer: int) -> Tensor:
        return self._network.before(self._points(X, self._width), layer)

    def _points(self, X: Tensor, width: int | None = None) -> Tensor:
        return self._on_device(check_points(X, width))
