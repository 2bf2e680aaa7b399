"""Kernel machines in the trainer: one epoch is one round, solved in the last training step.

What the trainer expects of a network, a kernel machine does in its own way: the training steps of an epoch
bring the samples together, the last one of them takes the next step of the machine's loop, and validation and
callbacks see that fit. One dummy parameter and a step of its optimizer a round give ``global_step`` = rounds,
so that monitored checkpoints and distributed training work.
"""

import inspect
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DistributedSampler

import nfa
from lab.options.models import KERNEL_MACHINE, MODEL
from lab.options.option import check_all
from models.base import TRAINED_STATE, LabModule
from nfa import NfaError
from nfa.checks import known_options
from nfa.machines.fitted_sizes import make_room
from nfa.machines.layer import Layer
from nfa.machines.layered import LayeredMachine
from nfa.machines.loop import FAILURES, Steps
from nfa.machines.machine import Machine
from nfa.machines.named import described
from nfa.machines.network import DeepNetwork, KernelNetwork
from nfa.machines.options import signature_of
from nfa.machines.reached import Round, RoundFailedWarning
from nfa.machines.target_code import TargetCode
from nfa.nets.checks import image_shape
from nfa.nets.registry import canonical
from nfa.processes import interleaved

_PRECISIONS = ("32-true", "64-true")
_AT_ONCE = 1024  # inputs


class KernelMachine(LabModule):
    """A machine of `nfa` that takes one step of its loop an epoch.

    Classes are one-hot targets; the loss that is logged is the mean squared error, by which the best round is
    chosen on validation data. Without these the last round is kept, or the one before a round that failed
    or did harm (`nfa.machines.rise`). When training ends, the network is that of the best round; a checkpoint
    holds that of the last one too, so that more rounds go on from there.

    A machine of one layer goes on for as many epochs as there are; a deep one is done after
    ``layers · (rounds + 1)`` of them, and predicts by the layer that is being fitted. The ansatz is measured
    on the feature maps of all layers up to that one.

    Args:
        input_shape: of one input; points are flattened.
        num_outputs: classes, or regression targets.
        task: ``classification`` or ``regression``.
        memory_gb: that a round may take beyond the data; None takes 80 % of what is free.
        patience: stop when the validation loss was no lower for so many rounds; None goes on to the end.
        refit: at the end solve once more, with training and validation samples together, with the metric,
            the bandwidth and the ridge of the best round; machines of one layer alone.
        kernel_options: ``nu`` of matern, ``q`` of exponential; radial kernels alone.
        **options: of the machine, without device and criterion.

    Attributes:
        machine: the class of the machine.
        other_defaults: of its options, where those of the trainer are others.
    """

    machine: ClassVar[type[Machine]]
    other_defaults: ClassVar[dict[str, Any]] = {}
    kind = "kernel"
    takes_every_sample = True  # for the datamodule: each training sample once an epoch, in one order

    def __init_subclass__(cls) -> None:
        """Show the options as the signature of the class."""
        super().__init_subclass__()
        own = [p for p in inspect.signature(cls.__init__).parameters.values() if p.name != "options"][1:]
        options = signature_of(cls._defaults(), positional=0).parameters.values()
        cls.__signature__ = inspect.Signature([*own, *options])

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """The options and their defaults."""
        machine = {k: v for k, v in cls.machine.defaults.items() if k not in _NOT_HERE}
        more = {"patience": None, "memory_gb": None}
        more |= {"refit": False} if "refit" in cls.machine.defaults else {}
        more |= {"kernel_options": None} if "kernel" in cls.machine.defaults else {}
        return machine | more | cls.other_defaults

    def __init__(self, input_shape: Sequence[int], num_outputs: int, task: str, **options: Any):
        super().__init__(task, num_outputs)
        known_options(options, type(self))
        options = self._defaults() | options
        of_data = {"input_shape": input_shape, "num_outputs": num_outputs, "task": task}
        self.save_hyperparameters(of_data | options, logger=False)
        table = MODEL.get(type(self).__name__, KERNEL_MACHINE)  # of the kernel, its name decides
        check_all("model", {name: table[name] for name in table if name != "kernel"}, self.hparams)
        self.automatic_optimization = False
        self.patience, self.refit = options["patience"], options.get("refit", False)
        self.num_outputs = num_outputs
        self.stack = self._layers(options)
        images = self.stack[0].kernel.noun == "images"
        self.shape = image_shape(input_shape, type(self).__name__) if images else (math.prod(input_shape),)
        self.network, self.spare = (self._unfitted() for _ in range(2))
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
        self._rounds: tuple[nn.Module, Iterator[Round]] | None = None  # of a network

    def _layers(self, options: dict[str, Any]) -> tuple[Layer, ...]:
        """The layers of the machine; epochs say how many rounds there are of the only one."""
        gb = options["memory_gb"]
        own = {name: value for name, value in options.items() if name in self.machine.defaults}
        own |= {"memory": None if gb is None else gb * 1e9} | (options.get("kernel_options") or {})
        own |= {"labels": "one_hot"} if "labels" in self.machine.defaults else {}
        stack = self.machine(**own).stack
        return stack if self.is_deep else (replace(stack[0], rounds=sys.maxsize),)

    def _unfitted(self) -> KernelNetwork | DeepNetwork:
        if self.is_deep:
            return DeepNetwork(self.stack, self.shape, self.num_outputs)
        return KernelNetwork(self.stack[0].kernel, self.shape, self.num_outputs)

    @property
    def fitted(self) -> nn.Module:
        """The network of the last round, whichever is shown."""
        return self.spare if bool(self.shows_best) else self.network

    @property
    def is_deep(self) -> bool:
        """Whether the machine has layers that are fitted one after the other."""
        return issubclass(self.machine, LayeredMachine)

    @property
    def net(self) -> dict[str, Any]:
        """What builds `network` anew: ``_target_`` and its arguments, plain types."""
        return described(self.stack, self.shape, self.num_outputs, deep=self.is_deep)

    @property
    def num_learned(self) -> int:
        """Numbers that are learned: the roots of M in the layers in use, and the coefficients."""
        maps = [self.network]
        if self.is_deep:
            maps = self.network.layers[: int(self.network.position[0]) + 1]
        return sum(part.feature_map.weight.numel() for part in maps) + self.network.tail.coefficients.numel()

    @property
    def facts(self) -> dict[str, Any]:
        """``num_centers``, ``rounds`` fitted, and the ``best_round`` kept, from 0: the plain kernel."""
        done, best = int(self.rounds_done), int(self.best_round)
        counts = {"num_centers": len(self.network.tail.centers), "rounds": done}
        return super().facts | counts | {"best_round": best if best >= 0 else done - 1}

    # ---- a round -------------------------------------------------------------------------------------------

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Collect a batch; with the last one, take the next step of the loop."""
        self._samples.append(batch)
        if not self.trainer.is_last_batch:
            return
        if self.refit and not self.validated:
            raise NfaError("model.refit=true adds the validation data: raise data.val_fraction")
        x, y = self._epoch = self._whole_epoch()
        try:
            found = next(self._steps(x, y), None)  # all layers may have come from a checkpoint
        except FAILURES as error:
            if not int(self.rounds_done):
                raise
            outputs, details = self._failed(error, x)
        else:
            outputs, details = self._taken(found, x)
        self.optimizers().step()
        self.log_outputs("train", outputs, y, F.mse_loss(outputs, self.columns(y)))
        plain = {_told_as(k): float(v) for k, v in details.items() if isinstance(v, int | float)}
        absent = dict.fromkeys(self._told - plain.keys(), math.nan)  # else the trainer repeats the last ones
        self._told |= plain.keys()
        self.log_dict(plain | absent, on_step=False, on_epoch=True, batch_size=1)

    def _steps(self, x: Tensor, y: Tensor) -> Iterator[Round]:
        """The rounds to come, from where the network is."""
        if self._rounds is None or self._rounds[0] is not self.network:
            X, Y = self.stack[0].kernel.arranged(x), self.columns(y)
            steps = Steps(
                self.stack, X, Y, self.targets, self._held_out(X),
                network=self.network if self.is_deep else None, judged=self.validated, resumable=True,
            )  # fmt: skip
            self._rounds = self.network, steps.after(self.network.reached(int(self.rounds_done)))
        return self._rounds[1]

    def _held_out(self, X: Tensor) -> tuple[Tensor, Tensor] | None:
        """The validation data where the machine looks at them, like its training data."""
        layer = self.stack[0]
        held_out = self._validation() if self.is_deep or layer.chooses else None
        if held_out is not None:
            return layer.kernel.arranged(held_out[0]).to(X), self.columns(held_out[1])
        if layer.chooses:
            raise NfaError(
                "several values of model.bandwidth or model.ridge are chosen from on validation data: "
                "raise data.val_fraction, or give one"
            )
        return None

    @torch.no_grad()
    def _taken(self, found: Round | None, x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Hold what a step found: outputs at the training inputs, and what to log."""
        if found is None:
            self.trainer.should_stop = True
            return self._outputs(x), {}
        if found.failed is not None and not self.is_deep:
            return self._failed(found.failed, x)
        self.network.take(found)
        self.rounds_done += 1
        if not self.is_deep:
            return found.fit.train_scores, found.fit.row | found.update
        return self._outputs(x), self._row_of_a_layer(found)

    def _row_of_a_layer(self, found: Round) -> dict[str, Any]:
        row, update = {"layer": found.layer, "round": found.index}, found.update
        if found.failed is not None:
            update = {}
            _warn(found.end_in_words)
        if found.last and found.layer == len(self.stack) - 1:
            self.trainer.should_stop = True
        if found.last and self.network.keeps_best:
            row["best_round"] = found.kept.index
        return row | update | found.row

    def _failed(self, error: Exception, x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Go on with the round before, which ends the run."""
        _warn(f"round {int(self.rounds_done)} failed ({error}); the machine of the round before is kept")
        self.trainer.should_stop = True
        return self._outputs(x), {}

    @torch.no_grad()
    def _outputs(self, x: Tensor) -> Tensor:
        return torch.cat([self(part) for part in x.split(_AT_ONCE)])

    def columns(self, y: Tensor) -> Tensor:
        """Targets as (n, num_outputs) floating: classes one-hot."""
        if self.task == "regression":
            return y.reshape(len(y), -1)
        return F.one_hot(y, self.num_outputs).to(self.clock.dtype)

    # ---- samples -------------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Forget the samples of an epoch that was interrupted."""
        self._samples = []

    @property
    def validated(self) -> bool:
        """Whether validation data choose the round that is kept."""
        return bool(self.trainer.val_dataloaders)

    def _whole_epoch(self) -> tuple[Tensor, Tensor]:
        """The samples of this epoch of all processes, each once."""
        samples, self._samples = self._samples, []
        x, y = (interleaved(torch.cat(parts)) for parts in zip(*samples, strict=True))
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
        x, y = (interleaved(torch.cat(parts)) for parts in zip(*batches, strict=True))
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
            self.settle()

    def on_train_start(self) -> None:
        """Go on from the last round, not from the best, if there are rounds to come."""
        if bool(self.shows_best) and not self.trainer.fit_loop.done:
            self._swap()

    def on_train_end(self) -> None:
        """Settle, also where no callback asked for it."""
        self.settle()

    def settle(self) -> None:
        """Show the best round, whatever ended the training."""
        best = int(self.best_round)
        if bool(self.shows_best) or best < 0 or (best == int(self.rounds_done) - 1 and not self.refit):
            return
        self._swap()
        held_out = self._validation() if self.refit else None
        if held_out is not None:
            x, y = self._epoch or self._training()
            try:
                self._fit_again(torch.cat([x, held_out[0]]), torch.cat([y, held_out[1]]))
            except FAILURES as error:
                _warn(f"the refit failed ({error}); the machine of round {best} is kept as it was fitted")
        self._epoch = None

    @torch.no_grad()
    def _fit_again(self, x: Tensor, y: Tensor) -> None:
        """Fit the coefficients anew with what the predictor in `network` has learned."""
        layer, best = self.targets.suited(self.stack[0]), self.network.predictor()
        fit = layer.refit(best, float(self.network.tail.ridge), layer.kernel.arranged(x), self.columns(y))
        self.network.take_over(fit.predictor, fit.solution.ridge)

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
        self._change_layers(solver=replace(self.stack[0].solver, distributed=trainer.world_size > 1))

    def _change_layers(self, **values: Any) -> None:
        self.stack = tuple(replace(layer, **values) for layer in self.stack)

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
            self._change_layers(offset="none")
        saved = dict(hyper.get("net", self.net))
        saved["_target_"] = canonical(str(saved.get("_target_")))
        for name, mine in self.net.items():
            if saved.get(name) != mine:
                raise NfaError(
                    f"the checkpoint is of another model: its {name.strip('_')} is {saved.get(name)}, "
                    f"here it is {mine}. Give the model and data options it was trained with"
                )
        make_room(self, checkpoint.get(TRAINED_STATE, checkpoint["state_dict"]))
        super().on_load_checkpoint(checkpoint)


_NOT_HERE = ("device", "memory", "distributed", "criterion", "labels", "select", "rounds")


class RFM(KernelMachine):
    """`nfa.RFM`: ``radial(feature_map(x))``, whose linear layer has ``WᵀW = M``; epoch t fits round t - 1."""

    machine = nfa.RFM


class ConvRFM(KernelMachine):
    """`nfa.ConvRFM`: ``sum(feature_map(x))``, whose convolution has ``WᵀW = M`` of patches."""

    machine = nfa.ConvRFM


class DeepRFM(KernelMachine):
    """`nfa.DeepRFM`: layers of a learned map M^½ and random features."""

    machine = nfa.DeepRFM
    other_defaults: ClassVar = {"depth": 3, "ridge": 1e-3, "rounds": 1}


class DeepConvRFM(KernelMachine):
    """`nfa.DeepConvRFM`: layers of a learned T on patches and random filters."""

    machine = nfa.DeepConvRFM
    other_defaults: ClassVar = {"activation": "relu", "rounds": 1}


def _warn(message: str) -> None:
    warnings.warn(message, RoundFailedWarning, stacklevel=3)


def _told_as(name: str) -> str:
    """``features/…`` for what was learned, ``round/…`` for how it was solved."""
    learned = name == "self_consistency" or name.startswith(("nc1_", "nc2_"))
    return f"{'features' if learned else 'round'}/{name}"
