"""What every model of the lab shares, nets and kernel machines alike: metrics, and how they are logged."""

import inspect
import os
from collections.abc import Mapping
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, MeanSquaredError, Metric, MetricCollection, R2Score
from torchmetrics.classification import MulticlassAccuracy

from datamodules.base import TensorDataModule
from nfa import NfaError
from nfa.checks import choice
from nfa.machines.fitted_sizes import make_room
from nfa.zoo.weights import find_state, read_file

TASKS = ("classification", "regression")
TRAINED_STATE = "trained_state_dict"  # in a checkpoint whose state_dict is tested, and not trained further


class LabModule(pl.LightningModule):
    """A model whose ``network`` maps a batch x (n, *input_shape) to outputs (n, num_outputs).

    Logged by epoch as ``train/…``, ``val/…`` and ``test/…``: ``loss``, and ``accuracy`` for
    classification or ``mse`` and ``r2`` for regression.

    Attributes:
        network: the module an audit measures.
        kind: ``net``, trained by gradients, or ``kernel``, fitted by solving.
        task: ``classification`` (targets (n,) int64) or ``regression`` (targets (n, num_outputs) float).

    Raises:
        NfaError: unknown task.
    """

    network: nn.Module
    kind = "net"  # or "kernel"

    def __init__(self, task: str, num_outputs: int):
        super().__init__()
        choice("task", task, TASKS)
        self.task = task
        self.metrics = nn.ModuleDict(
            {f"{stage}_metrics": _metrics(task, num_outputs, stage) for stage in ("train", "val", "test")}
        )
        self.losses = nn.ModuleDict(
            {f"{stage}_loss": MeanMetric(nan_strategy="disable") for stage in ("train", "val", "test")}
        )

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | os.PathLike,
        map_location: torch.device | str | None = None,
        **options: Any,
    ) -> Self:
        """The model of a checkpoint, with the weights that were tested.

        In the place of Lightning's, which would import and call what a checkpoint names: reading a file is
        not running it.

        Args:
            checkpoint_path: of a file, not an address.
            map_location: device of the model; None means the CPU.
            **options: of the model, in the place of those in the checkpoint.

        Raises:
            NfaError: no such file, a damaged one, one of another model, or one that names what is not in
                `nfa.nets.registry`.
        """
        content = read_file(checkpoint_path)
        hyper = content.get("hyper_parameters", {}) if isinstance(content, Mapping) else None
        if not isinstance(hyper, Mapping):
            raise NfaError(f"{checkpoint_path} is no checkpoint of this lab: it has no hyper_parameters")
        takes = inspect.signature(cls).parameters
        kept = {k: v for k, v in hyper.items() if k in takes and k not in options}
        try:
            model = cls(**{**cls.from_file(kept, checkpoint_path), **options})
        except TypeError as error:
            raise NfaError(f"{checkpoint_path} does not fit a {cls.__name__} ({error})") from None
        state = find_state(content, checkpoint_path)
        make_room(model, state)
        model.check_fits(state)
        model.load_state_dict(state)
        return model.to(map_location or "cpu")

    @classmethod
    def from_file(cls, kept: dict[str, Any], path: str | os.PathLike) -> dict[str, Any]:
        """The options that a checkpoint keeps, as they may be followed."""
        return kept

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, num_outputs) of inputs (n, *input_shape)."""
        return self.network(x)

    @property
    def num_learned(self) -> int:
        """Numbers that are learned: the parameters of the network."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def facts(self) -> dict[str, Any]:
        """What ``summary.json`` tells of this kind of model."""
        return {"kind": self.kind, "num_parameters": self.num_learned}

    def log_outputs(self, stage: str, outputs: Tensor, target: Tensor, loss: Tensor) -> None:
        """Update and log the metrics of a stage (``train``, ``val`` or ``test``) with one batch."""
        metrics = self.metrics[f"{stage}_metrics"]
        exact = outputs.detach(), target
        if self.task == "regression":  # sums of squares, of which a large mean would leave no digits
            exact = outputs.detach().double(), target.double()
        metrics.update(*exact)
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(target)}
        mean = self.losses[f"{stage}_loss"]  # over the samples of all processes, however many each has
        mean.update(loss.detach(), len(target))
        self.log(f"{stage}/loss", mean, prog_bar=stage == "train", **options)
        self.log_dict(metrics, prog_bar=stage != "test", **options)

    def settle(self) -> None:
        """Become the network that is tested: called, once or more often, when training ends."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep under ``inputs`` how images were normalised, for whoever measures the network later."""
        checkpoint["inputs"] = describe_inputs(getattr(self._trainer, "datamodule", None))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the weights to train further; refuse those of another model with the first misfits."""
        checkpoint["state_dict"] = checkpoint.pop(TRAINED_STATE, checkpoint["state_dict"])
        self.check_fits(checkpoint["state_dict"])

    def check_fits(self, theirs: Mapping[str, Tensor]) -> None:
        """Refuse the state dict of another model with the first names that do not fit."""
        mine = self.state_dict()
        shapes = [
            f"{k}: {tuple(theirs[k].shape)} in the file, {tuple(mine[k].shape)} here"
            for k in mine
            if k in theirs and theirs[k].shape != mine[k].shape
        ]
        missing = [f"{k}: missing in the file" for k in mine if k not in theirs]
        unknown = [f"{k}: only in the file" for k in theirs if k not in mine]
        mismatches = [*shapes, *missing, *unknown]
        if mismatches:
            raise NfaError(
                f"the checkpoint is of another model ({len(mismatches)} tensors differ): "
                + "; ".join(mismatches[:3])
                + ". Give the model and data options it was trained with"
            )


def describe_inputs(datamodule: Any) -> dict[str, Any]:
    """How the images of a datamodule are normalised, in plain types.

    Returns:
        ``mean`` and ``std`` of each channel in units of [0, 1], ``channels``, and ``size`` (height, width);
        or ``unknown``, the reason why that is not the whole truth about these inputs.
    """
    if not isinstance(datamodule, TensorDataModule):
        return {"unknown": "the run had no datamodule of this lab, so its normalisation is not known"}
    x, normalize = datamodule._split("train").x, datamodule._transform.normalize
    if x.ndim != 4:
        return {"unknown": f"the inputs of the run are no images but of shape {tuple(x.shape[1:])}"}
    channels, height, width = x.shape[1:]
    if normalize.mean.numel() not in (1, channels):
        return {"unknown": "the run had data.normalize=feature, a mean for every pixel"}
    if x.is_floating_point() and not (0 <= x.min() and x.max() <= 1):
        return {"unknown": "the images of the run are floating and not in [0, 1]"}
    mean, std = (moment.flatten().expand(channels).tolist() for moment in (normalize.mean, normalize.std))
    return {"mean": mean, "std": std, "channels": channels, "size": [height, width]}


def _metrics(task: str, num_outputs: int, stage: str) -> MetricCollection:
    metrics: dict[str, Metric]
    if task == "classification":
        metrics = {"accuracy": MulticlassAccuracy(num_outputs, average="micro")}
    else:
        metrics = {
            name: made.set_dtype(torch.float64)
            for name, made in (("mse", MeanSquaredError()), ("r2", R2Score()))
        }
    return MetricCollection(metrics, prefix=f"{stage}/")


def check_finite(value: Tensor, what: str, epoch: int, step: int) -> None:
    """Raise NfaError when a training quantity is no longer finite."""
    if not bool(torch.isfinite(value)):
        raise NfaError(
            f"{what} became {float(value.detach())} in epoch {epoch}, step {step}: lower training.lr, or "
            "look for extreme values in the data. The checkpoint of the last whole epoch is kept"
        )
