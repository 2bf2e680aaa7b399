"""Deep convolutional recursive feature machines: layers of a learned T on patches and random filters.

Each layer fits a convolutional recursive feature machine to the images that come into it, convolves them with
random filters of the covariance ``M = TᵀT``, and hands them on to a kernel with one convolution less
(Beaglehole, Radhakrishnan, Pandit and Belkin, arXiv 2309.00570). Nothing is trained by gradients.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor

from nfa.checks import choice, device_of_name, flag, known_options, whole
from nfa.errors import NfaError
from nfa.kernels.conv import ConvKernel
from nfa.machines.conv_predictor import ConvPredictor, checked_images
from nfa.machines.conv_rfm import targets_of
from nfa.machines.conv_round import ConvRecursion, plain_options
from nfa.machines.deep_conv_network import ConvFeatures, ConvLayer, DeepConvNetwork
from nfa.machines.deep_conv_round import DeepConvFit, DeepConvRecursion
from nfa.machines.deep_rfm import SELECTIONS
from nfa.machines.fitting import LayerMachine
from nfa.machines.saved import expect, expect_room, history_of, index_in, opened_machine, save_machine
from nfa.machines.targets import TargetCode

_FORMAT = "nfa.DeepConvRFM 1"


class DeepConvRFM(LayerMachine):
    """Layers of convolutional recursive feature machines, ``x -> φ(A T u)`` with random A.

    The defaults are the published recursion with what it should not do left out: the best round of a layer
    is chosen on validation images (the published code takes test images; give them as ``X_val`` with
    ``criterion="accuracy"`` to do the same), and images of the AGOP are drawn at random (there the first 20:
    ``agop_draw="first"``). As there, nothing comes between the layers unless ``activation="relu"`` or
    ``pool`` is given, and filters are shaped by T also where the first round is the best: then T = I.

    Args:
        patch_size: side of all windows, in pixels.
        depth: convolutions of the kernel of the first layer.
        layers: number of layers; None takes as many as the kernel has convolutions.
        width: random filters of each layer but the last.
        activation: between layers: ``none`` or ``relu``.
        conv_padding: of the random convolutions, ``none`` or ``zero``; None takes that of the kernel.
        conv_stride: of the random convolutions.
        pool: side of the squares that are averaged between layers.
        ridge: as in `ConvRFM`, also for ``rounds`` to ``kind`` below, in each layer.
        rounds: updates of M in each layer.
        agop_images: take the AGOP over so many training images; None takes all.
        agop_draw: ``random`` or ``first``.
        power: exponent of the AGOP that becomes M.
        stride: of the first convolution of the kernels.
        padding: of the kernels, ``none`` or ``zero``.
        head: ``flatten`` or ``pool``.
        kind: ``ntk`` or ``nngp``.
        criterion: by which validation images choose ridge, round and layer: ``mse`` or ``accuracy``.
        select: whose layer's predictor predicts: the ``last``, or the ``best`` on validation images.
        solver: ``auto``, ``cholesky`` or ``cg``; see `nfa.solvers.solve`.
        seed: of the random filters, of the images of the AGOP, and of the solver.
        device: where to compute; None means where the data are.
        memory: bytes that a round may take beyond the data; None takes 80 % of what is free.
        offset: ``mean`` fits real targets less their mean, which is added to what is predicted; ``none`` fits
            them as they are. Columns of classes are always fitted as they are, as published.

    Attributes:
        layers: one `ConvLayer` for each that is fitted, with its ``M``.
        history: one dictionary a layer: what `ConvRFM.history` tells of its best round, ``best_round``, and
            ``rounds``, all rounds as `DeepConvFit.step` tells them; seconds are those of all rounds.
        best_layer: the layer whose predictor predicts.
        predictor: that predictor, of the images that come into this layer.

    Raises:
        NfaError: an option is out of range.
    """

    def __init__(
        self,
        patch_size: int = 3,
        depth: int = 3,
        layers: int | None = None,
        width: int = 64,
        *,
        activation: str = "none",
        conv_padding: str | None = None,
        conv_stride: int = 1,
        pool: int = 1,
        ridge: float | Sequence[float] = 1e-3,
        rounds: int = 3,
        agop_images: int | None = 20,
        agop_draw: str = "random",
        power: float = 1.0,
        stride: int = 1,
        padding: str = "none",
        head: str = "flatten",
        kind: str = "ntk",
        criterion: str = "mse",
        select: str = "last",
        solver: str = "auto",
        seed: int = 0,
        device: torch.device | str | None = None,
        memory: float | None = None,
        offset: str = "mean",
        **unknown: Any,
    ):
        known_options(unknown, type(self))
        kernel = ConvKernel(patch_size, depth, stride, padding, head, kind)
        recursion = ConvRecursion(
            kernel, ridge, power, agop_images, agop_draw, criterion, solver, seed, memory, offset=offset
        )
        features = ConvFeatures(
            width, activation, padding if conv_padding is None else conv_padding, conv_stride, pool
        )
        self.options = DeepConvRecursion(recursion, features, depth if layers is None else layers, rounds)
        self.select, self.device = choice("select", select, SELECTIONS), device_of_name(device)
        self.history: list[dict[str, Any]] = []
        self.best_layer = 0
        self._predictor: ConvPredictor | None = None
        self._network: DeepConvNetwork | None = None
        self._targets = TargetCode()

    # ---- fit and predict -----------------------------------------------------------------------------------

    def fit(
        self,
        X: Tensor,
        y: Tensor,
        X_val: Tensor | None = None,
        y_val: Tensor | None = None,
        *,
        progress: bool = False,
    ) -> "DeepConvRFM":
        """Learn all layers, one after the other.

        Args:
            X: images (n, c, h, w), float32 or float64.
            y: labels (n,) or (n, 1), integers, bools or a list of texts; or floating targets (n,) or
                (n, outputs).
            X_val: validation images, which choose the round of each layer, the ridge where there are
                several, and the layer where that is asked for; never used for fitting.
            y_val: their targets.
            progress: show the layers on standard error.

        Raises:
            NfaError: data that are not finite, do not belong together, or hold one class only; images too
                small for the layers.

        Warns:
            RoundFailedWarning: a layer after the first could not be fitted, or a round after the first of a
                layer failed or did harm; the layer is that of the round before.
        """
        self._check_pair(X_val, y_val)
        self._check_selection(X_val)
        X = self._checked(X)
        validation = None if X_val is None else (self._checked(X_val, X.shape[1:]), y_val)
        targets = targets_of(y, y_val, self.options.recursion.criterion)
        outputs = targets.classes or targets.columns(y, X).shape[1]
        network = self.options.network(tuple(X.shape[1:]), outputs)
        fit = DeepConvFit(self.options, network, X, y, targets, validation)
        with self._anew():
            self._targets, self._network = targets, network
            self._fit_layers(fit, self.options.layers, flag("progress", progress))
        return self

    def scores(self, X: Tensor) -> Tensor:
        """Real outputs (n, outputs); for classes the larger, the likelier."""
        return self.predictor(self.features(X, self.best_layer), self.options.recursion.memory)

    @torch.no_grad()
    def features(self, X: Tensor, layer: int) -> Tensor:
        """The images that come into a layer, (n, c, h, w).

        Raises:
            NfaError: no layer of this index.
        """
        if not 0 <= layer < len(self.layers):
            raise NfaError(f"expected a layer from 0 to {len(self.layers) - 1}, got {layer}")
        X = self._checked(X, self.layers[0].shape).to(self.predictor.centers)
        return self._network.before(X, layer)

    @property
    def layers(self) -> tuple[ConvLayer, ...]:
        """The layers that are fitted."""
        if self._network is None or not self.history:
            raise NfaError("this machine is not fitted: call fit(X, y) first")
        return self._network.layers[: len(self.history)]

    @property
    def predictor(self) -> ConvPredictor:
        """The kernel predictor of ``best_layer``."""
        return self._fitted()

    def network(self) -> DeepConvNetwork:
        """The machine that predicts, as a module that `nfa.audit` can measure.

        ``layer0.feature_map`` has ``WᵀW = M`` of the first layer, ``layer0.random`` holds its random filters,
        and so on up to the feature map of ``best_layer`` and the kernel behind it.
        """
        best, predictor = self.best_layer, self.predictor
        network = self.options.network(self.layers[0].shape, predictor.coefficients.shape[1], layers=best + 1)
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
            if index < len(self.layers) - 1 or not name.startswith("random.")  # the last hands nothing on
        }
        state = {
            "options": self._options(),
            "targets": asdict(self._targets),
            "shape": (self.layers[0].shape, self.predictor.coefficients.shape[1]),
            "history": self.history,
        }
        save_machine(path, _FORMAT, self.network().state_dict() | layers, state)

    @classmethod
    def load(cls, path: str | os.PathLike, device: torch.device | str | None = None) -> "DeepConvRFM":
        """Read a machine that `save` wrote.

        Raises:
            NfaError: the file is missing, or none of these.
        """
        with opened_machine(path, _FORMAT, device) as (tensors, state):
            machine = cls(**state["options"], device=device)
            machine._targets, machine.history = TargetCode(**state["targets"]), history_of(state)
            (c, h, w), outputs = state["shape"]
            shape = tuple(whole("a side of its images", side, 1) for side in (c, h, w))
            layers, features = len(machine.history), machine.options.features.width
            patch = machine.options.recursion.kernel.patch_size**2
            depths = [c * patch] + [features * patch] * (layers - 1)  # D of each layer
            for index, D in enumerate(depths):
                name = f"layer{index}.feature_map.weight"
                W = tensors.get(name)
                expect(name, None if W is None else W.flatten(1), None, D)
            expect_room(sum(D * (D + features) for D in depths) + c * h * w)
            network = machine.options.network(shape, whole("outputs", outputs, 1), layers=layers)
            network.to(machine.device or "cpu").load_state_dict(tensors)
            best, index = (int(entry) for entry in network.position.flatten())
            machine.best_layer = index_in("the layer of its position", best, layers)
            index_in("the round of its position", index, machine.options.rounds + 1)
            p, inputs = network.predictor(), network.layers[best].shape
            expect("centers", p.centers, None, *inputs)
            expect("coefficients", p.coefficients, len(p.centers), machine._targets.columns_of)
            expect("transform", p.root(), depths[best], depths[best])
            expect("intercept", network.sum.intercept, outputs)
            machine._network, machine._predictor = network, p
        return machine

    def _options(self) -> dict[str, Any]:
        features = {f.name: getattr(self.options.features, f.name) for f in fields(ConvFeatures)}
        features |= {"conv_padding": features.pop("padding"), "conv_stride": features.pop("stride")}
        own = {"layers": self.options.layers, "rounds": self.options.rounds, "select": self.select}
        return plain_options(self.options.recursion) | features | own

    # ---- layers --------------------------------------------------------------------------------------------

    def _add_layer(self, rounds: list[dict[str, Any]], predictor: ConvPredictor) -> None:
        """Keep what a finished layer leaves behind."""
        names = {name for row in rounds for name in row if name.endswith("_seconds")}
        seconds = {name: sum(row.get(name, 0.0) for row in rounds) for name in sorted(names)}
        best = rounds[-1]["best_round"]
        row = {name: value for name, value in rounds[best].items() if name != "round"}
        row |= seconds | {"best_round": best, "rounds": rounds}
        self.history.append(row)
        chosen = self.history[self.best_layer] if self._predictor is not None else row
        if self._predictor is None or self.select == "last" or self._error(row) < self._error(chosen):
            self.best_layer, self._predictor = row["layer"], predictor

    def _error(self, row: dict[str, Any]) -> float:
        return -row["val_accuracy"] if self.options.recursion.criterion == "accuracy" else row["val_mse"]

    def _checked(self, X: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        return self._on_device(checked_images(X, shape))
