"""Batches sliced from whole tensors: no workers, no per-sample Python, reproducible to the bit."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from nfa.inputs.stratify import generator

Transform = Callable[[Tensor, torch.Generator | None], Tensor]


class TensorBatches:
    """Iterable over ``(x, y)`` batches of tensors that are wholly in memory.

    With ``shuffle=True`` the batches are for training: the order is a pure function of (seed, epoch), and
    `transform` receives a generator that is a pure function of (seed, epoch, batch, rank). The global random
    state is neither read nor written, so nothing done between two batches changes what the next one holds.
    A final batch of a single sample, which BatchNorm cannot use, is left out; the next epoch leaves out
    another.

    Several processes share one epoch. In training each gets ``n // world_size`` samples, hence the same
    number of steps; the remainder, others in each epoch, is left out. In evaluation every sample goes to
    exactly one process: the numbers of samples may differ by one, the numbers of batches never do (every
    forward of DistributedDataParallel broadcasts buffers: a process with one batch more would wait for ever).

    Lightning calls ``sampler.set_epoch`` before an epoch, and keeps `state_dict` in checkpoints: training
    that was stopped between two batches goes on with the next. Without `set_epoch` every pass is of epoch 0.

    Args:
        x: inputs (n, ...), any dtype.
        y: targets (n, ...), on the device of `x`.
        batch_size: samples a batch and process.
        passes: through the samples in an epoch of training, each in an order of its own.
        shuffle: whether these are training batches, see above.
        seed: seed of order and transform.
        transform: ``transform(x, rng) -> x`` of each batch; `rng` is a CPU generator, None unless shuffling.
        device: where batches go; None leaves them where `x` is.
        rank: index of this process.
        world_size: number of processes, at most n.
        drop_last: leave out the last training batch if it is incomplete.

    Raises:
        ValueError: sizes that do not fit together.
    """

    batch_sampler = None  # Lightning asks for it wherever there is a `sampler`

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        passes: int = 1,
        seed: int = 0,
        transform: Transform | None = None,
        device: torch.device | str | None = None,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        if len(x) != len(y):
            raise ValueError(f"expected as many targets as inputs, got {len(y)} and {len(x)}")
        if batch_size < 1:
            raise ValueError(f"expected batch_size of at least 1, got {batch_size}")
        if not 0 <= rank < world_size <= len(x):
            raise ValueError(f"expected rank < world_size <= samples, got {rank}, {world_size}, {len(x)}")
        if passes < 1 or (passes > 1 and not shuffle):
            raise ValueError(f"expected one pass, or several of training (shuffle=True), got {passes}")
        if drop_last and not shuffle:
            raise ValueError("drop_last is for training (shuffle=True): evaluation uses every sample")
        self.x, self.y = x, y
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.passes = passes
        self.seed = seed
        self.transform = transform
        self.device = x.device if device is None else torch.device(device)
        self.rank, self.world_size = rank, world_size
        self.drop_last = drop_last
        self.epoch = 0
        self._given = 0  # batches handed out in the pass under way
        self._resume: dict[str, int] | None = None

    @property
    def sampler(self) -> "TensorBatches":
        """Itself: where Lightning looks for `set_epoch`."""
        return self  # not an attribute: a reference cycle would keep `x` in memory for longer

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentations of the next pass."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Tell how far the pass under way is."""
        return {"epoch": self.epoch, "batches": self._given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next pass, if it is of the saved epoch, start where the saved one stopped."""
        self._resume = state_dict

    def __len__(self) -> int:
        """Count the batches of a whole pass, as many on every process."""
        if self.shuffle:
            full, rest = divmod(len(self.x) // self.world_size, self.batch_size)
            useless = self.drop_last or (rest == 1 and full > 0)
            return self.passes * (full + (rest > 0 and not useless))
        fewest, most = len(self.x) // self.world_size, math.ceil(len(self.x) / self.world_size)
        return min(math.ceil(most / self.batch_size), fewest)  # no process may be left with an empty batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # Lightning makes the iterator before it calls set_epoch: being a generator, this reads the epoch only
        # when the first batch is asked for.
        start = self._take_start()
        for position, index in enumerate(self._batch_indices()):
            if position >= start:
                self._given = position + 1
                yield self._batch(index, position)

    def _take_start(self) -> int:
        """Return the position to start from, once; later passes start from 0."""
        resume, self._resume = self._resume, None
        under_way = resume is not None and resume["epoch"] == self.epoch and resume["batches"] < len(self)
        return resume["batches"] if under_way else 0

    def _batch_indices(self) -> Sequence[Tensor]:
        """List the samples of each batch of this process and epoch: int64, on the device of `x`."""
        n, count = len(self.x), len(self)
        if self.shuffle:
            return [batch for number in range(self.passes) for batch in self._pass(number)]
        mine = torch.arange(self.rank, n, self.world_size, device=self.x.device)
        batches = mine.split(self.batch_size)
        return batches if len(batches) == count else mine.tensor_split(count)

    def _pass(self, number: int) -> Sequence[Tensor]:
        """Those of one of the passes of an epoch of training."""
        n, of_this = len(self.x), (number,) if number else ()
        order = torch.randperm(n, generator=generator(self.seed, "order", self.epoch, *of_this))
        mine = order[self.rank : n - n % self.world_size : self.world_size].to(self.x.device)
        return mine.split(self.batch_size)[: len(self) // self.passes]

    def _batch(self, index: Tensor, position: int) -> tuple[Tensor, Tensor]:
        x, y = self.x[index].to(self.device), self.y[index].to(self.device)
        if self.transform is not None:
            rng = generator(self.seed, "augment", self.epoch, position, self.rank) if self.shuffle else None
            x = self.transform(x, rng)
        return x, y
