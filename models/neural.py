"""Train any ``nn.Module`` by gradient descent inside the lab."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import hydra.utils
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.options import TRAINING, check_all, shown
from models.base import LabModule, check_finite
from models.critical_rate import check_squared, critical_rate
from nfa import NfaError
from nfa.nets.expansion import Expansion
from nfa.nets.parameterization import scale_weights
from nfa.nets.registry import build
from nfa.sweep.returned import pick_tensor

_CRITICAL = "critical_lr"  # in a checkpoint
_OF_TRAINING = (
    "loss", "optimizer", "lr", "momentum", "weight_decay", "schedule", "lr_over_critical", "betas",
)  # fmt: skip
_SAMPLES = 2000  # of the training data, at most, that a critical rate is of


class NeuralModule(LabModule):
    """A network with a loss, an optimizer and a schedule.

    Args:
        net: what to build, plain types only so that a checkpoint can rebuild it: ``_target_`` (dotted
            path of a class or function that returns an ``nn.Module``) and its keyword arguments.
        task: ``classification`` or ``regression``.
        num_outputs: classes, or regression targets.
        loss: ``cross_entropy``; ``mse`` (for classes on one-hot targets, mean over outputs); ``auto``
            takes cross-entropy for classification and mse for regression; ``half_mse`` is half the sum over
            outputs, mean over samples.
        optimizer: ``sgd``, ``adam`` or ``adamw``.
        lr: learning rate.
        momentum: of sgd.
        weight_decay: of the optimizer, on all parameters.
        schedule: of the learning rate over the whole run: ``constant``, ``cosine`` to zero, or
            ``one_cycle`` (up to ``lr`` and down to zero).
        init_scale: factor on the initial weights of all linear maps.
        lr_over_critical: of sgd, the learning rate over `critical_rate` of the initial network on all
            training samples, in the place of ``lr``; None for not.
        betas: of adam and adamw, by which they remember gradients and their squares: two numbers in [0, 1).
        network: what ``net`` describes, where it is built already.

    Raises:
        NfaError: an option of another type or out of range, or a loss that does not go with the task.
    """

    def __init__(
        self,
        net: dict[str, Any],
        task: str,
        num_outputs: int,
        loss: str = "auto",
        optimizer: str = "sgd",
        lr: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        schedule: str = "cosine",
        init_scale: float = 1.0,
        lr_over_critical: float | None = None,
        betas: Sequence[float] = (0.9, 0.999),
        network: nn.Module | None = None,
    ):
        super().__init__(task, num_outputs)
        betas = _two(betas)
        self.save_hyperparameters(ignore="network", logger=False)  # loggers get the options of the run
        check_all("training", TRAINING, self.hparams)
        if loss == "cross_entropy" and task == "regression":
            raise NfaError("training.loss=cross_entropy needs class targets; use mse for regression")
        self.loss_name = (
            {"classification": "cross_entropy", "regression": "mse"}[task] if loss == "auto" else loss
        )
        self.num_outputs = num_outputs
        self.network = build_network(net) if network is None else network
        if init_scale != 1.0 and isinstance(self.network, Expansion):
            raise NfaError("training.init_scale is of a network, not of its expansion: leave one of them out")
        scale_weights(self.network, init_scale)
        if lr_over_critical is not None:
            if optimizer != "sgd":
                raise NfaError(
                    f"training.lr_over_critical is of training.optimizer=sgd, got {optimizer}: leave one out"
                )
            check_squared(self.loss_name, self.network, "training.lr_over_critical")
        self.critical: float | None = None  # rate, once the data are known

    @classmethod
    def from_file(cls, kept: dict[str, Any], path: str | os.PathLike) -> dict[str, Any]:
        """With the network built, where the registry knows it; one of own code is given as ``net=``."""
        if "net" not in kept:
            return kept
        if not isinstance(kept["net"], Mapping):
            raise NfaError(f"{path}: expected a mapping under net, got {type(kept['net']).__name__}")
        return {**kept, "network": build(kept["net"], path)}

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, num_outputs) of inputs (n, *input_shape)."""
        return pick_tensor(self.network(x))

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Mean loss of outputs (n, num_outputs) against targets (n,) int64 or (n, num_outputs) float."""
        if self.loss_name == "cross_entropy":
            return F.cross_entropy(outputs, target)
        if self.task == "classification":
            target = F.one_hot(target, self.num_outputs).to(outputs.dtype)
        loss = F.mse_loss(outputs, target.reshape(outputs.shape))
        return loss if self.loss_name == "mse" else loss * (outputs[0].numel() / 2)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch; stops the run when it is not finite."""
        loss = self._step(batch, "train")
        check_finite(loss, "the training loss", self.current_epoch, batch_idx)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Validation metrics of one batch."""
        self._step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Test metrics of one batch."""
        self._step(batch, "test")

    def _step(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        x, target = batch
        try:
            outputs = self(x)
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                raise NfaError(
                    f"BatchNorm cannot train on a batch of {len(x)} sample with one position: "
                    "raise data.batch_size"
                ) from None
            raise
        if outputs.shape != (len(x), self.num_outputs):
            raise NfaError(
                f"the network must return ({len(x)}, {self.num_outputs}) outputs for this data, "
                f"got {tuple(outputs.shape)}"
            )
        loss = self.loss(outputs, target)
        self.log_outputs(stage, outputs, target, loss)
        return loss

    def configure_optimizers(self) -> Any:
        """Optimizer, and a schedule by step over the whole run."""
        h = self.hparams
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        if not parameters:
            raise NfaError(f"{h.net['_target_']} has no parameter to train")
        options: dict[str, Any] = {"lr": self._rate(), "weight_decay": h.weight_decay}
        if h.optimizer == "sgd":
            optimizer = torch.optim.SGD(parameters, momentum=h.momentum, **options)
        else:
            optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[h.optimizer](
                parameters, betas=tuple(h.betas), **options
            )
        if h.schedule == "constant":
            return optimizer
        planned = self.trainer.estimated_stepping_batches
        if math.isinf(planned):
            raise NfaError(
                f"training.schedule={h.schedule} needs to know the end: give trainer.max_epochs or "
                "trainer.max_steps, or use training.schedule=constant"
            )
        self._steps = steps = max(int(planned), 1)
        if h.schedule == "cosine":
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        else:
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options["lr"], total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self) -> float:
        """The learning rate; where it is told by the critical one, that is found first."""
        h = self.hparams
        if h.lr_over_critical is None:
            return h.lr
        if self.critical is None:
            x, _ = self.trainer.datamodule.probe(_SAMPLES)
            momentum, decay = h.momentum, h.weight_decay
            self.critical = critical_rate(self.network, x.to(self.device), self.loss_name, momentum, decay)
        return h.lr_over_critical * self.critical

    @property
    def facts(self) -> dict[str, Any]:
        """With the learning rate, where it was told by the critical one."""
        if self.critical is None:
            return super().facts
        return {**super().facts, "critical_lr": self.critical, "lr": self._rate()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the critical rate of the initial network."""
        super().on_save_checkpoint(checkpoint)
        if self.critical is not None:
            checkpoint[_CRITICAL] = self.critical

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another model, optimizer or schedule."""
        super().on_load_checkpoint(checkpoint)
        critical = checkpoint.get(_CRITICAL)
        if critical is not None and not (isinstance(critical, float) and 0 < critical < math.inf):
            raise NfaError(f"the checkpoint holds no critical rate: expected a number, got {critical!r:.40}")
        self.critical = critical
        saved = checkpoint.get("hyper_parameters", {})
        for name in _OF_TRAINING:
            if name in saved and saved[name] != self.hparams[name]:
                raise NfaError(
                    f"the checkpoint was trained with training.{name}={saved[name]}, this run has "
                    f"{self.hparams[name]}: give the former, or start a new run"
                )
        methods = {name for name in dir(torch.optim.lr_scheduler.LRScheduler) if name[0] != "_"}
        for state in checkpoint.get("lr_schedulers", ()):  # PyTorch puts it into the schedule as it comes
            if methods & set(state):
                raise NfaError(
                    "the checkpoint holds no state of a schedule: it would replace a method of one"
                )
            if not _has_numbers(state):
                raise NfaError(
                    "the checkpoint holds no state of a schedule: its rates and steps are no numbers"
                )

    def on_train_start(self) -> None:
        """Stretch a restored cosine schedule to the length of this run; one_cycle has its length for good."""
        schedule = self.lr_schedulers()
        if isinstance(schedule, torch.optim.lr_scheduler.CosineAnnealingLR):
            if schedule.T_max != self._steps:
                _stretch(schedule, self._steps)
        elif (
            isinstance(schedule, torch.optim.lr_scheduler.OneCycleLR) and schedule.total_steps != self._steps
        ):
            raise NfaError(
                f"training.schedule=one_cycle was planned for {schedule.total_steps} steps, this run has "
                f"{self._steps}: resume with the same trainer.max_epochs and data"
            )


def _two(betas: Sequence[float]) -> list[float]:
    """The betas as checkpoints hold them."""
    check_all("training", TRAINING, {"betas": betas})
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise NfaError(f"training.betas must be two numbers, such as [0.9, 0.999], got {shown(betas)}")
    return [float(beta) for beta in betas]


def _has_numbers(state: dict[str, Any]) -> bool:
    """Whether what a schedule counts with is numbers."""
    rates = state.get("base_lrs", [])
    counted = (
        (*rates, state.get("last_epoch", 0), state.get("T_max", 1)) if isinstance(rates, list) else ("",)
    )
    return all(isinstance(n, int | float) and math.isfinite(n) for n in counted)


def _stretch(schedule: torch.optim.lr_scheduler.CosineAnnealingLR, steps: int) -> None:
    """Go on with a schedule as one of another length.

    It multiplies the rate of the step before, which is 0 at the end of a shorter one, for good.
    """
    schedule.T_max = steps
    factor = (1 + math.cos(math.pi * min(schedule.last_epoch / steps, 1))) / 2
    for group, rate in zip(schedule.optimizer.param_groups, schedule.base_lrs, strict=True):
        group["lr"] = rate * factor
    schedule._last_lr = [group["lr"] for group in schedule.optimizer.param_groups]


def build_network(net: dict[str, Any]) -> nn.Module:
    """Build the module that a ``_target_`` dictionary describes.

    Raises:
        NfaError: the target cannot be imported or called so, or is no ``nn.Module``.
    """
    try:
        network = hydra.utils.instantiate(net, _convert_="all")
    except hydra.errors.InstantiationException as error:
        if isinstance(error.__cause__, NfaError):
            raise error.__cause__ from None
        raise NfaError(f"cannot build model {net.get('_target_')}: {' '.join(str(error).split())}") from error
    if not isinstance(network, nn.Module):
        raise NfaError(f"{net['_target_']} must return an nn.Module, got {type(network).__name__}")
    return network
