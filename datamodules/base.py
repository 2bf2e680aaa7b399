"""What all datamodules share: seeded splits, checks, normalisation, and batches from memory."""

import hashlib
from abc import ABC, abstractmethod
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from datamodules.batches import TensorBatches
from datamodules.checks import (
    check_alike,
    check_labels,
    check_loaded,
    check_samples,
    check_scorable,
    check_trainable,
)
from datamodules.splits import Split, cut
from datamodules.transforms import BatchTransform, Normalize, ShiftFlip
from lab.options import COUNT, SAMPLES, check_all
from nfa.device import free_memory
from nfa.errors import NfaError
from nfa.inputs.stratify import generator, stratified_order

__all__ = ["Split", "TensorBatches", "TensorDataModule"]


class TensorDataModule(LightningDataModule, ABC):
    """A data set that fits in memory. A subclass implements `load`; and `prepare_data`, if it downloads.

    `load` gives training and test samples. Of these, `n_train` and `n_test` are kept, and `val_fraction` of
    the training samples is set aside for validation; all choices are seeded and class-stratified.
    Normalisation is fitted on what remains, the training split. Values stay as loaded (uint8 for images), and
    each batch is augmented and normalised when it is asked for. On a GPU a split is kept there as a whole if
    it takes less than half of the free memory. How several processes share the samples is said in
    `TensorBatches`.

    Args:
        batch_size: training samples a batch and process.
        passes: through the training samples in an epoch, each in an order of its own.
        eval_batch_size: validation and test samples a batch and process.
        val_fraction: part of the training samples for validation, in [0, 1); 0 means no validation.
        n_train: number of training samples to use, validation included; None means all.
        n_test: number of test samples to use; None means all.
        normalize: ``channel`` (mean and standard deviation of each channel; of each feature of flat inputs),
            ``feature`` (of each input value), ``none``. Images are in [0, 1] before.
        augment: of training images: ``shift`` (by up to an eighth of the side), ``shift_flip`` (left-right
            flips too), ``none``.
        seed: of subsets, splits, order and augmentation.

    Attributes:
        class_names: names in the order of class indices; `load` may set them, else they are the numbers.

    Raises:
        NfaError: an option is out of range, or (in `setup`) the data cannot be used as they are.
    """

    def __init__(
        self,
        *,
        batch_size: int = 128,
        passes: int = 1,
        eval_batch_size: int = 512,
        val_fraction: float = 0.1,
        n_train: int | None = None,
        n_test: int | None = None,
        normalize: str = "channel",
        augment: str = "none",
        seed: int = 0,
    ) -> None:
        super().__init__()
        given = {"normalize": normalize, "augment": augment, "val_fraction": val_fraction, "seed": seed}
        sizes = {
            "batch_size": batch_size,
            "passes": passes,
            "eval_batch_size": eval_batch_size,
            "n_train": n_train,
            "n_test": n_test,
        }
        check_all("data", SAMPLES, given | sizes)
        self.batch_size, self.passes, self.eval_batch_size = batch_size, passes, eval_batch_size
        self.val_fraction, self.n_train, self.n_test = val_fraction, n_train, n_test
        self.normalize, self.augment, self.seed = normalize, augment, seed
        self.class_names: tuple[str, ...] = ()
        self._splits: dict[str, Split] = {}

    @abstractmethod
    def load(self) -> tuple[Split, Split]:
        """Read all training and test samples into memory; may set `class_names`. Called once, by `setup`."""

    def setup(self, stage: str | None = None) -> None:
        """Load, check, cut and fit; all stages at once, and only at the first call."""
        if self._splits:
            return
        train, test = check_loaded(self.load())
        for name, split in (("training", train), ("test", test)):
            check_samples(name, split)
        check_alike(train, test)
        self._num_outputs = self._count_outputs(train, test)
        train = train.take(self.subset(train.y, self.n_train, "n_train"))
        test = test.take(self.subset(test.y, self.n_test, "n_test"))
        kept, aside = self.set_aside(train.y)
        train, val = train.take(kept), train.take(aside)
        check_trainable(train.y)
        check_scorable(("validation", val), ("test", test))
        self._transform = BatchTransform(Normalize.fit(train.x, self.normalize), self._augmentation(train.x))
        self.class_names = self.class_names or tuple(str(i) for i in range(self._num_outputs))
        self._splits = {"train": train, "val": val, "test": test}

    def subset(self, y: Tensor, n: int | None, option: str) -> Tensor:
        """Choose `n` of the samples with targets `y`, seeded and stratified; all of them for None.

        `load` may choose before it reads the inputs: choosing again changes nothing then.

        Returns:
            int64 indices (n,).
        """
        if n is None or n == len(y):
            return torch.arange(len(y))
        if n > len(y):
            raise NfaError(
                f"expected data.{option} of at most {len(y)}, the number of samples, got {n}: lower it, "
                "or leave it out to use all"
            )
        return stratified_order(y, generator(self.seed, option))[:n]

    def set_aside(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the validation samples among training samples with targets `y`, seeded and stratified.

        `load` may ask which samples will be trained on before it fits anything to their inputs: the cut
        depends on `y` and the seed alone.

        Returns:
            int64 indices of what stays for training, and of what is for validation.
        """
        return cut(y, self.val_fraction, generator(self.seed, "val"))

    def _count_outputs(self, train: Split, test: Split) -> int:
        if train.y.is_floating_point():
            return train.y.shape[1]
        labels = torch.cat([train.y, test.y])
        num_classes = len(self.class_names) or int(labels.max()) + 1
        check_labels(labels, num_classes)
        return num_classes

    def _augmentation(self, x: Tensor) -> ShiftFlip | None:
        if self.augment == "none":
            return None
        if x.ndim != 4:
            raise NfaError(
                f"data.augment={self.augment} is for images (channels, height, width), got inputs of shape "
                f"{tuple(x.shape[1:])}: pass data.augment=none"
            )
        return ShiftFlip(flip=self.augment == "shift_flip")

    @property
    def task(self) -> str:
        """``classification`` or ``regression``."""
        return "regression" if self._split("train").y.is_floating_point() else "classification"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, (channels, height, width) for images."""
        return tuple(self._split("train").x.shape[1:])

    @property
    def num_outputs(self) -> int:
        """Number of classes, or of regression outputs."""
        self._split("train")
        return self._num_outputs

    @property
    def mean(self) -> Tensor:
        """Mean subtracted from inputs (images in [0, 1]): float64, broadcasts against one of them."""
        self._split("train")
        return self._transform.normalize.mean

    @property
    def std(self) -> Tensor:
        """Standard deviation that inputs are divided by, like `mean`."""
        self._split("train")
        return self._transform.normalize.std

    def train_dataloader(self) -> TensorBatches:
        """Make the training batches: x float32 (b, …), y as in `Split`; shuffled and augmented.

        A model with ``takes_every_sample`` gets each sample once, in one order and by ``eval_batch_size``.
        """
        model = getattr(self.trainer, "lightning_module", None)
        if getattr(model, "takes_every_sample", False):
            return self._batches("train", self.eval_batch_size)
        return self._batches("train", self.batch_size, shuffle=True)

    def val_dataloader(self) -> TensorBatches | list:
        """Make the validation batches, or an empty list if there is no validation split."""
        return self._batches("val", self.eval_batch_size) if len(self._split("val")) else []

    def test_dataloader(self) -> TensorBatches:
        """Make the test batches."""
        return self._batches("test", self.eval_batch_size)

    def probe(self, n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Choose training samples to measure on: fixed, stratified, the same on every process.

        Args:
            n: number of samples; the whole split if it has fewer. Smaller probes are prefixes of larger ones.
            seed: chooses another sample.

        Returns:
            x float32 (n, …), normalised, never augmented, and y as in `Split`; both on the CPU.

        Raises:
            NfaError: n < 1.
        """
        COUNT.check("the number of probe samples", n)
        train = self._split("train")
        chosen = train.take(stratified_order(train.y, generator(seed, "probe"))[:n])
        return self._transform.normalize(chosen.x), chosen.y

    def validation(self) -> tuple[Tensor, Tensor] | None:
        """All validation samples as `probe` gives those of training; None where there are none."""
        val = self._split("val")
        return (self._transform.normalize(val.x), val.y) if len(val) else None

    def summary(self) -> dict[str, Any]:
        """Describe what was loaded, in plain values."""
        sizes = {f"n_{name}": len(self._split(name)) for name in ("train", "val", "test")}
        return {
            "task": self.task,
            **sizes,
            "input_shape": list(self.input_shape),
            "num_outputs": self.num_outputs,
            "class_names": list(self.class_names),
        }

    def fingerprint(self) -> str:
        """Digest of the test samples and their targets, before normalisation: 16 hexadecimal digits."""
        test = self.tested()
        digest = hashlib.sha256(f"{test.x.dtype} {tuple(test.x.shape)}".encode())
        for part in (test.x, test.y):
            digest.update(part.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def tested(self) -> Split:
        """The test samples as they are told from others, whatever the model sees of them."""
        return self._split("test")

    def _split(self, name: str) -> Split:
        if not self._splits:
            raise RuntimeError("the data are not loaded yet: call prepare_data() and setup() first")
        return self._splits[name]

    def _batches(self, name: str, batch_size: int, *, shuffle: bool = False) -> TensorBatches:
        split, trainer = self._split(name), self.trainer
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if len(split) < world_size:
            raise NfaError(
                f"the {name} split has {len(split)} samples for {world_size} processes: use fewer devices or "
                "more samples"
            )
        if _fits(split, device):
            split = Split(split.x.to(device), split.y.to(device))
        return TensorBatches(
            split.x,
            split.y,
            batch_size,
            shuffle=shuffle,
            passes=self.passes if shuffle else 1,
            seed=self.seed,
            transform=self._transform,
            device=device,
            rank=rank,
            world_size=world_size,
        )


def _fits(split: Split, device: torch.device) -> bool:
    """Whether the whole split may live on `device`: on a GPU, in less than half of its free memory."""
    if device.type != "cuda":
        return device.type == "cpu"
    return split.x.nbytes + split.y.nbytes < free_memory(device) / 2
