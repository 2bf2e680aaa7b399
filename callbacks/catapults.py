"""Catapults: spikes of the training loss, what they do to the tangent kernel, and to the features."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import SGD

from callbacks.spikes import Spikes
from callbacks.step_records import StepRecords
from lab.options import CATAPULTS, check_all
from models.critical_rate import check_squared, top_eigenvalues
from nfa import NfaError, input_agop
from nfa.compare.together import FEATURES
from nfa.page.steps import StepCurves

_SAMPLES = 2000  # of the training data, at most


class Catapults(Callback):
    """Follow the full training loss at every step, the top eigenvalues and the AGOP after every epoch.

    The loss is that of all training samples (2000 at most) as it is before each step, also where a batch is a
    part of them: what a small batch gets is noise of its own. Eigenvalues are those of
    `models.critical_rate.top_eigenvalues`. The AGOP is that of the model with respect to its inputs; its
    alignment is the cosine with the one of the true function where the data know it (``true_agop()``), or of
    a reference run. ``catapult/…`` is logged after every epoch; `facts` stand in ``summary.json``, and
    `step_curves` on the page of the run.

    A loss beyond ``diverged_above`` times the first one ends training: the run has diverged, which is a
    result, and its numbers are told up to there.

    Args:
        thresholds: multiples of the lowest loss so far, above which a spike counts.
        eigenvalues: how many are followed.
        every_n_epochs: how often eigenvalues and the AGOP are measured.
        diverged_above: see above.
        reference: folder of a finished run, whose AGOP is compared with in the place of the true one.

    Raises:
        NfaError: an option is out of range (at once), a loss that is not squared, or a reference without an
            AGOP of such inputs (when training starts).
    """

    def __init__(
        self,
        thresholds: float | Sequence[float] = (1.5, 3.0),
        eigenvalues: int = 2,
        every_n_epochs: int = 1,
        diverged_above: float = 1e6,
        reference: str | None = None,
    ):
        options = {"thresholds": thresholds, "eigenvalues": eigenvalues, "every_n_epochs": every_n_epochs}
        options |= {"diverged_above": diverged_above, "reference": reference}
        check_all("callbacks.catapults", CATAPULTS, options)
        self.eigenvalues, self.every_n_epochs = eigenvalues, every_n_epochs
        self.diverged_above, self.reference = diverged_above, reference
        several = [thresholds] if isinstance(thresholds, float | int) else thresholds
        self.spikes = [Spikes(float(threshold)) for threshold in several]
        self.first: float | None = None  # loss
        self.peak = self.peak_of_epoch = -math.inf
        self.diverged = False
        self.start: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.records = StepRecords()
        self._step = 0  # behind the weights of the batch at hand
        self._limit: float | None = None  # eigenvalue beyond which a step overshoots
        self._end = (-1.0, math.nan)  # step and loss when last measured
        self._samples: tuple[Tensor, Tensor] | None = None
        self._target: Tensor | None = None  # AGOP to be aligned with

    # ---- hooks ---------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at what there is to be measured, and measure the start."""
        loss = getattr(pl_module, "loss_name", None)
        if loss is None:
            raise NfaError(
                "callbacks.catapults is of networks that are trained by gradients: give callbacks=default "
                "for this model"
            )
        check_squared(loss, pl_module.network, "callbacks.catapults")
        x, y = trainer.datamodule.probe(_SAMPLES)
        x, y = (t.to(pl_module.dtype) if t.is_floating_point() else t for t in (x, y))
        self._samples = x.to(pl_module.device), y.to(pl_module.device)
        self._target = self._agop_to_align_with(trainer.datamodule)
        if not self.start:
            self.start = self.last = self._measure(trainer, pl_module)
        self._limit = _stability_limit(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """See the loss before the step, unless the step itself is of all samples."""
        self._step = trainer.global_step
        if not self._is_full(batch):
            self._see(trainer, self._loss(pl_module))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """See the loss of a step of all samples."""
        if self._is_full(batch):
            self._see(trainer, float(outputs["loss"].detach()))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure and log."""
        found = {f"spikes_{s.threshold:g}": float(s.count) for s in self.spikes}
        found["peak"] = self.peak_of_epoch
        last = trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop
        if not self.diverged and (last or (trainer.current_epoch + 1) % self.every_n_epochs == 0):
            self.last = self._measure(trainer, pl_module)
            found |= self.last
        for name, value in found.items():
            pl_module.log(f"catapult/{name}", value, on_step=False, on_epoch=True, batch_size=1)
        self.peak_of_epoch = -math.inf

    # ---- what is found -------------------------------------------------------------------------------------

    @property
    def facts(self) -> dict[str, float | int | bool]:
        """Of the whole run: spikes, peak, whether it diverged, and what was measured at both ends."""
        if self.first is None:
            return {}
        ends = {f"catapult/{name}_start": value for name, value in self.start.items()}
        ends |= {f"catapult/{name}": value for name, value in self.last.items()}
        counts = {f"catapult/spikes_{s.threshold:g}": s.count for s in self.spikes}
        return {**counts, "catapult/peak": self.peak, "catapult/diverged": self.diverged, **ends}

    def step_curves(self) -> list[StepCurves]:
        """Charts by step: the loss with its spikes, and the top eigenvalues."""
        return self.records.curves([s.threshold for s in self.spikes], self._limit, self._end)

    def _see(self, trainer: pl.Trainer, loss: float) -> None:
        self.first = loss if self.first is None else self.first
        self.records.see_loss(self._step, loss)
        for spikes in self.spikes:
            spikes.see(loss)
        self.peak, self.peak_of_epoch = max(self.peak, loss), max(self.peak_of_epoch, loss)
        if not loss <= self.diverged_above * self.first:
            self.diverged = trainer.should_stop = True

    def _is_full(self, batch: Any) -> bool:
        assert self._samples is not None  # since training started
        return len(batch[0]) == len(self._samples[0])

    def _loss(self, pl_module: pl.LightningModule) -> float:
        assert self._samples is not None  # since training started
        x, y = self._samples
        modes = [(module, module.training) for module in pl_module.network.modules()]
        pl_module.network.eval()
        with torch.no_grad():
            loss = pl_module.loss(pl_module(x), y)
        for module, training in modes:
            module.training = training
        return float(loss)

    def _measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        assert self._samples is not None  # since training started
        x, _ = self._samples
        values = top_eigenvalues(pl_module.network, x, pl_module.loss_name, self.eigenvalues)
        self.records.see_eigenvalues(trainer.global_step, values)
        found = {"loss": self._loss(pl_module)}
        self._end = float(trainer.global_step), found["loss"]
        found |= {f"lambda_{i}": value for i, value in enumerate(values, 1)}
        if self._target is not None:
            G, target = input_agop(pl_module.network, [x]).cpu(), self._target
            norm = float(G.norm() * target.norm())
            found["agop_alignment"] = float((G * target).sum()) / norm if norm else math.nan
        return found

    def _agop_to_align_with(self, data: Any) -> Tensor | None:
        """That of the reference, or of the true function; None where neither is known, or it is 0."""
        if self.reference is not None:
            target = _agop_of_run(self.reference)
            width = math.prod(data.input_shape)
            if len(target) != width:
                raise NfaError(
                    f"callbacks.catapults.reference={self.reference} has an AGOP of {len(target)} inputs, "
                    f"these data have {width}: give a run on the same data"
                )
        else:
            known = getattr(data, "true_agop", None)
            if known is None:
                return None
            target = known().double().cpu()
        return target if float(target.norm()) > 0 else None

    # ---- resume --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training goes on from, plain values."""
        spikes = [s.state_dict() for s in self.spikes]
        ends = {"start": dict(self.start), "last": dict(self.last)}
        seen = {"first": self.first, "peak": self.peak, "diverged": self.diverged}
        return {"spikes": spikes, **seen, **ends, "steps": self.records.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the counts of a checkpoint.

        Raises:
            NfaError: it holds none.
        """
        try:
            saved = {float(s["threshold"]): Spikes(**s) for s in state_dict["spikes"]}
            self.spikes = [saved.get(s.threshold, s) for s in self.spikes]
            self.first, self.peak = state_dict["first"], float(state_dict["peak"])
            self.diverged = bool(state_dict["diverged"])
            self.start, self.last = dict(state_dict["start"]), dict(state_dict["last"])
            if "steps" in state_dict:  # not in those of runs that had no charts by step
                self.records.load_state_dict(state_dict["steps"])
        except (KeyError, TypeError, ValueError) as error:
            raise NfaError(f"the checkpoint holds no counts of callbacks.catapults ({error!r})") from None


def _stability_limit(trainer: pl.Trainer, pl_module: pl.LightningModule) -> float | None:
    """``2 (1 + momentum) / rate − weight decay`` of plain gradient descent at one rate; else None."""
    (optimizer,), group = trainer.optimizers, trainer.optimizers[0].param_groups[0]
    if not isinstance(optimizer, SGD) or pl_module.lr_schedulers() or group["nesterov"] or group["dampening"]:
        return None
    return 2 * (1 + group["momentum"]) / group["lr"] - group["weight_decay"]


def _agop_of_run(folder: str | os.PathLike) -> Tensor:
    path = Path(folder) / FEATURES
    try:
        with safe_open(path, "pt") as file:
            if "input_agop" in file.keys():  # noqa: SIM118 (it is no mapping)
                return file.get_tensor("input_agop").double()
    except (OSError, SafetensorError) as error:
        raise NfaError(
            f"callbacks.catapults.reference={folder} cannot be read ({error}): expected the folder of a "
            f"finished run, with {FEATURES}"
        ) from None
    raise NfaError(
        f"{path} holds no input_agop: expected a run on inputs of at most 4096 numbers, with callbacks.ansatz"
    )
