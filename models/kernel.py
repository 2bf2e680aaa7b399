"""Kernel machines in the trainer: one epoch is one round, solved in the last training step.

What the trainer expects of a network, a kernel machine does in its own way: the training steps of an epoch
bring the samples together, the last one of them fits, and validation and callbacks see that fit. One dummy
parameter and a step of its optimizer a round give ``global_step`` = rounds, so that monitored checkpoints
and distributed training work.
"""

import math
import os
import warnings
from abc import abstractmethod
from typing import Any

import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DistributedSampler

from models.base import TRAINED_STATE, LabModule
from models.gather import gather_samples
from nfa import NfaError
from nfa.machines.rounds import RoundFailedWarning
from nfa.machines.sized import make_room
from nfa.machines.targets import TargetCode
from options import FLAG, KERNEL_MACHINE, MODEL, check_all

_PRECISIONS = ("32-true", "64-true")


class KernelModule(LabModule):
    """A machine that is fitted by solving, once an epoch.

    Classes are one-hot targets; the loss that is logged is the mean squared error, by which the best round is
    chosen on validation data. Without these the last round is kept, or the one before a round that failed
    or did harm (`nfa.machines.rise`). When training ends, the network is that of the best round; a checkpoint
    holds that of the last one too, so that more rounds go on from there.

    A subclass sets `network` and `spare` to two modules of one kind, whose state has the sizes of their
    last fit, and implements `solve`.

    Args:
        task: ``classification`` or ``regression``.
        num_outputs: classes, or regression targets.
        patience: stop when the validation loss was no lower for so many rounds; None goes on to the end.
        refit: at the end solve once more, with training and validation samples together.
    """

    kind = "kernel"
    takes_every_sample = True  # for the datamodule: each training sample once an epoch, in one order
    spare: nn.Module

    def __init__(self, task: str, num_outputs: int, patience: int | None = None, refit: bool = False):
        super().__init__(task, num_outputs)
        check_all("model", KERNEL_MACHINE | {"refit": FLAG}, {"patience": patience, "refit": refit})
        self.automatic_optimization = False
        self.patience, self.refit, self.num_outputs = patience, refit, num_outputs
        self.targets = TargetCode(num_outputs if task == "classification" else 0)
        self.clock = nn.Parameter(torch.zeros(()))
        self.register_buffer("rounds_done", torch.zeros((), dtype=torch.int64))
        self.register_buffer("best_round", torch.full((), -1, dtype=torch.int64))
        self.register_buffer("best_error", torch.full((), torch.inf, dtype=torch.float64))
        self.register_buffer("shows_best", torch.zeros((), dtype=torch.bool))
        self._samples: list[tuple[Tensor, Tensor]] = []
        self._epoch: tuple[Tensor, Tensor] | None = None
        self._errors = [0.0, 0.0]
        self._told: set[str] = set()

    def check_options(self) -> None:
        """Refuse what no machine takes; of the kernel, which may be the user's own, its name decides."""
        table = MODEL.get(type(self).__name__, KERNEL_MACHINE)
        check_all("model", {name: table[name] for name in table if name != "kernel"}, self.hparams)

    # ---- to be implemented ---------------------------------------------------------------------------------

    @abstractmethod
    def solve(self, index: int, x: Tensor, y: Tensor, validation: Any) -> tuple[Tensor, dict[str, Any]]:
        """Fit round ``index`` and leave it in `network`.

        Args:
            index: rounds that were fitted before.
            x: training inputs (n, …).
            y: targets, classes (n,) int64 or numbers (n, c).
            validation: callable that returns inputs and targets of the validation data, or None.

        Returns:
            Outputs (n, c) at the training inputs, and what to log of the round.

        Raises:
            NfaError: the round cannot be fitted; `network` is as it was.
        """

    def solve_again(self, x: Tensor, y: Tensor) -> None:
        """Fit `network` to other samples, as in `solve`, without learning features anew."""
        raise NfaError(f"model.refit is not known to {type(self).__name__}")

    @abstractmethod
    def fitted_without_offset(self) -> None:
        """Fit regression targets as they are from now on, whatever the option says."""

    @property
    @abstractmethod
    def net(self) -> dict[str, Any]:
        """What builds `network` anew: ``_target_`` and its arguments, plain types."""

    @property
    def facts(self) -> dict[str, Any]:
        """``num_centers``, ``rounds`` fitted, and the ``best_round`` kept, from 0: the plain kernel."""
        done, best = int(self.rounds_done), int(self.best_round)
        centers = max(len(m.centers) for m in self.network.modules() if hasattr(m, "centers"))
        counts = {"num_centers": centers, "rounds": done, "best_round": best if best >= 0 else done - 1}
        return super().facts | counts

    # ---- a round -------------------------------------------------------------------------------------------

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Collect a batch; with the last one, fit."""
        self._samples.append(batch)
        if not self.trainer.is_last_batch:
            return
        if self.refit and not self.validated:
            raise NfaError("model.refit=true adds the validation data: raise data.val_fraction")
        x, y = self._epoch = self._whole_epoch()
        index = int(self.rounds_done)
        try:
            outputs, details = self.solve(index, x, y, self._validation)
        except (NfaError, torch.OutOfMemoryError) as error:
            if index == 0:
                raise
            warnings.warn(
                f"round {index} failed ({error}); the machine of the round before is kept",
                RoundFailedWarning,
                stacklevel=2,
            )
            self.trainer.should_stop = True
            with torch.no_grad():
                outputs, details = self(x), {}
        else:
            self.rounds_done += 1
        self.optimizers().step()
        self.log_outputs("train", outputs, y, F.mse_loss(outputs, self.columns(y)))
        plain = {_told_as(k): float(v) for k, v in details.items() if isinstance(v, int | float)}
        absent = dict.fromkeys(self._told - plain.keys(), math.nan)  # else the trainer repeats the last ones
        self._told |= plain.keys()
        self.log_dict(plain | absent, on_step=False, on_epoch=True, batch_size=1)

    def on_train_epoch_start(self) -> None:
        """Forget the samples of an epoch that was interrupted."""
        self._samples = []

    def columns(self, y: Tensor) -> Tensor:
        """Targets as (n, num_outputs) floating: classes one-hot."""
        if self.task == "regression":
            return y.reshape(len(y), -1)
        return F.one_hot(y, self.num_outputs).to(self.clock.dtype)

    @property
    def validated(self) -> bool:
        """Whether validation data choose the round that is kept."""
        return bool(self.trainer.val_dataloaders)

    def _whole_epoch(self) -> tuple[Tensor, Tensor]:
        """The samples of this epoch of all processes, each once."""
        samples, self._samples = self._samples, []
        x, y = (gather_samples(torch.cat(parts)) for parts in zip(*samples, strict=True))
        sampler = getattr(self.trainer.train_dataloader, "sampler", None)
        if isinstance(sampler, DistributedSampler):  # fills up with samples it has given already
            x, y = x[: len(sampler.dataset)], y[: len(sampler.dataset)]
        return x, y

    def _training(self) -> tuple[Tensor, Tensor]:
        """The training samples, of a run that goes on after its last epoch."""
        self._samples = [
            tuple(part.to(self.device) for part in batch) for batch in self.trainer.train_dataloader
        ]
        return self._whole_epoch()

    def _validation(self) -> tuple[Tensor, Tensor] | None:
        """All validation inputs and targets, on every process."""
        datamodule = self.trainer.datamodule
        batches = list(datamodule.val_dataloader()) if datamodule is not None else []
        if not batches:
            return None
        x, y = (gather_samples(torch.cat(parts)) for parts in zip(*batches, strict=True))
        return x.to(self.device), y.to(self.device)

    # ---- validation and the best round ---------------------------------------------------------------------

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Validation metrics of one batch."""
        loss = self._evaluate(batch, "val")
        self._errors = [self._errors[0] + float(loss) * len(batch[0]), self._errors[1] + len(batch[0])]

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Test metrics of one batch."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        x, y = batch
        outputs = self(x)
        loss = F.mse_loss(outputs, self.columns(y))
        self.log_outputs(stage, outputs, y, loss)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin to add up the errors."""
        self._errors = [0.0, 0.0]

    def on_validation_epoch_end(self) -> None:
        """Remember the best round; after the last one, show it."""
        if self.trainer.sanity_checking or self.trainer.state.fn != TrainerFn.FITTING:
            return
        errors = torch.tensor(self._errors, dtype=torch.float64, device=self.device)
        error, count = self.trainer.strategy.reduce(errors, reduce_op="sum").tolist()
        index = int(self.rounds_done) - 1
        if count and error / count < float(self.best_error):
            self.best_error.fill_(error / count)
            self.best_round.fill_(index)
            self.spare.load_state_dict(self.network.state_dict())
        if self.patience is not None and count and index - int(self.best_round) >= self.patience:
            self.trainer.should_stop = True
        if self.trainer.should_stop or self.trainer.current_epoch + 1 == self.trainer.max_epochs:
            self._show_best()

    def on_train_start(self) -> None:
        """Go on from the last round, not from the best, if there are rounds to come."""
        if bool(self.shows_best) and not self.trainer.fit_loop.done:
            self._swap()

    def on_train_end(self) -> None:
        """Settle, also where no callback asked for it."""
        self.settle()

    def settle(self) -> None:
        """Show the best round, whatever ended the training."""
        self._show_best()

    def _show_best(self) -> None:
        best = int(self.best_round)
        if bool(self.shows_best) or best < 0 or (best == int(self.rounds_done) - 1 and not self.refit):
            return
        self._swap()
        held_out = self._validation() if self.refit else None
        if held_out is not None:
            x, y = self._epoch or self._training()
            try:
                self.solve_again(torch.cat([x, held_out[0]]), torch.cat([y, held_out[1]]))
            except (NfaError, torch.OutOfMemoryError) as error:
                warnings.warn(
                    f"the refit failed ({error}); the machine of round {best} is kept as it was fitted",
                    RoundFailedWarning,
                    stacklevel=2,
                )
        self._epoch = None

    def _swap(self) -> None:
        self.network, self.spare = self.spare, self.network
        self.shows_best.logical_not_()

    # ---- what the trainer must not do ----------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """A step that changes nothing: it counts rounds."""
        return torch.optim.SGD([self.clock], lr=0.0)

    def on_fit_start(self) -> None:
        """Refuse options that make no sense for a kernel machine; the trainer itself refuses to clip."""
        trainer, datamodule = self.trainer, self.trainer.datamodule
        augment = getattr(datamodule, "augment", "none")
        for option, value, sensible, reason in (
            ("trainer.precision", trainer.precision, trainer.precision in _PRECISIONS,
             "a linear system is solved, which takes 32-true or 64-true"),
            ("data.augment", augment, augment == "none", "every round fits the same samples"),
        ):  # fmt: skip
            if not sensible:
                raise NfaError(f"{option}={value} makes no sense for a kernel machine: {reason}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what network it is, for whoever measures it later."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["hyper_parameters"] = {**checkpoint.get("hyper_parameters", {}), "net": self.net}

    @classmethod
    def from_file(cls, kept: dict[str, Any], path: str | os.PathLike) -> dict[str, Any]:
        """Version 0.1 kept no offset, and fitted without one."""
        return {"offset": "none", **super().from_file(kept, path)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the sizes of the machines in the checkpoint, and refuse those of another model."""
        hyper = checkpoint.get("hyper_parameters", {})
        if "offset" not in hyper:  # version 0.1 knew of none
            self.fitted_without_offset()
        saved = hyper.get("net", self.net)
        for name, mine in self.net.items():
            if saved.get(name) != mine:
                raise NfaError(
                    f"the checkpoint is of another model: its {name.strip('_')} is {saved.get(name)}, "
                    f"here it is {mine}. Give the model and data options it was trained with"
                )
        make_room(self, checkpoint.get(TRAINED_STATE, checkpoint["state_dict"]))
        super().on_load_checkpoint(checkpoint)


def _told_as(name: str) -> str:
    """``features/…`` for what was learned, ``round/…`` for how it was solved."""
    learned = name == "self_consistency" or name.startswith(("nc1_", "nc2_"))
    return f"{'features' if learned else 'round'}/{name}"
