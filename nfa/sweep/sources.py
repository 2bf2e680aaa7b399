"""Where batches come from: data sets, data modules and arrays, as loaders and tensors."""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from nfa.checks import told
from nfa.errors import NfaError

BATCH_SIZE = 64  # of a data set that comes without one


def is_array(value: Any) -> bool:
    """Whether it is an array of NumPy with at least one dimension."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray) and value.ndim > 0


def tensors_in(value: Any) -> Any:
    """The same with tensors in the place of arrays of NumPy, whatever holds them.

    Raises:
        NfaError: an array holds something else than numbers.
    """
    if is_array(value):
        try:
            return torch.from_numpy(value if value.flags.writeable else value.copy())
        except (TypeError, ValueError) as error:
            reason = str(error).split(".")[0]
            raise NfaError(
                f"{told(value)} cannot be a tensor ({reason}): .astype('float32') may help"
            ) from None
    if type(value) in (list, tuple):
        return type(value)(map(tensors_in, value))
    if isinstance(value, Mapping):
        return {key: tensors_in(entry) for key, entry in value.items()}
    return value


def loader_of(dataset: Dataset) -> DataLoader:
    """A loader of a data set, its samples in order."""
    if isinstance(dataset, IterableDataset):
        return DataLoader(dataset, batch_size=BATCH_SIZE, collate_fn=_collated)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise NfaError(f"the dataset {type(dataset).__name__} has no length or no samples by number")
    return DataLoader(dataset, batch_size=BATCH_SIZE, collate_fn=_collated)


def _collated(samples: list[Any]) -> Any:
    try:
        return default_collate(samples)
    except TypeError as error:
        parts = samples[0] if isinstance(samples[0], tuple) else (samples[0],)
        raise NfaError(
            f"the samples of the dataset, ({', '.join(map(told, parts))}), make no batch of tensors: give it "
            "a transform that returns tensors, or pass DataLoader(dataset, collate_fn=…)"
        ) from error


def is_datamodule(value: Any) -> bool:
    """Whether it gives a loader of training data when asked; a network that does is none."""
    return callable(getattr(value, "train_dataloader", None)) and not isinstance(
        value, type | torch.nn.Module
    )


def loader_of_datamodule(module: Any) -> Any:
    """The loader of the training data.

    Raises:
        NfaError: it is not set up, or gives several loaders.
    """
    name = type(module).__name__
    try:
        loader = module.train_dataloader()
    except Exception as error:  # whatever a data module lacks before it is set up
        reason = " ".join(str(error).split())[:120]
        raise NfaError(
            f"{name}.train_dataloader() gives no loader ({type(error).__name__}: {reason}): call its "
            "prepare_data() and setup('fit') first, as a Trainer does"
        ) from error
    if loader is None or isinstance(loader, Tensor | Mapping | list | tuple):
        raise NfaError(
            f"{name}.train_dataloader() gives {told(loader)}, no loader: pass the loader to measure on"
        )
    return loader
