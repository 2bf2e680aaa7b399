"""Which samples of a data set come, in which order, and in batches of how many."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeGuard

import torch
from torch import Tensor

from nfa.inputs.stratify import generator, stratified_order
from nfa.sweep.batches import Batch


@dataclass(frozen=True)
class Inputs:
    """Batches of samples, made one after the other; every pass gives the same.

    Attributes:
        description: what they are, for a report: ``photos: 100 images in 10 classes``.
        shape: of one input, (channels, height, width) for images; of the main one where there are several.
        order: the samples that come, int64 (samples,): each prefix holds the classes in proportion.
        batch_size: samples a batch.
        read: the batch of the samples at some indices, int64 (b,).
    """

    description: str
    shape: tuple[int, ...]
    order: Tensor = field(repr=False)
    batch_size: int
    read: Callable[[Tensor], Batch] = field(repr=False)

    @property
    def samples(self) -> int:
        """How many samples one pass yields."""
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        """Yield x, or pairs (x, y), or dictionaries of keyword arguments."""
        for index in self.order.split(self.batch_size):
            yield self.read(index)


@dataclass(frozen=True)
class Sampling:
    """How samples are chosen.

    Attributes:
        max_samples: at most so many; None means all.
        batch_size: samples a batch.
        seed: of choice and order.
    """

    max_samples: int | None = None
    batch_size: int = 32
    seed: int = 0

    def order(self, n: int, y: Tensor | None) -> Tensor:
        """Draw the samples that come, stratified by class.

        Args:
            n: samples there are.
            y: their targets (n, ...); all but int64 class indices (n,) give a plain permutation.

        Returns:
            int64 indices (m,). Fewer samples of one seed are a prefix of more.
        """
        classes = y.unique(return_inverse=True)[1] if is_classes(y) else torch.zeros(n, dtype=torch.int64)
        return stratified_order(classes, generator(self.seed, "inputs"))[: self.max_samples]

    def inputs(
        self,
        description: str,
        n: int,
        y: Tensor | None,
        shape: tuple[int, ...],
        read: Callable[[Tensor], Batch],
    ) -> Inputs:
        """Choose among n samples with targets y.

        Args:
            description: with ``{}`` where their number goes; the number of classes is added.
            n: samples there are.
            y: as in `order`.
            shape: as in `Inputs`.
            read: as in `Inputs`.
        """
        order = self.order(n, y)
        text = description.replace("{}", f"{n}" if len(order) == n else f"{len(order)} of {n}")
        if is_classes(y):
            classes = len(y[order].unique())
            text += f" in {classes} class{'es' if classes != 1 else ''}"
        return Inputs(text, shape, order, self.batch_size, read)


def is_classes(y: Tensor | None) -> TypeGuard[Tensor]:
    """Whether targets are one class index a sample."""
    return y is not None and y.dtype == torch.int64 and y.dim() == 1
