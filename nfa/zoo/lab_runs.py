"""``file:PATH``: the network in a run of this lab, built anew from what its checkpoint says.

The checkpoint holds under ``hyper_parameters`` the ``net`` (a ``_target_`` and its arguments), under
``inputs`` how images were normalised, and in the state of the monitor the weights at initialisation. What it
may name stands in `nfa.nets.registry`; of all else nothing is imported.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeGuard

from torch import Tensor, nn

from nfa.ansatz.report import AnsatzReport
from nfa.ansatz.row import AnsatzRow
from nfa.checks import near
from nfa.compare.together import TABLE
from nfa.errors import NfaError
from nfa.inputs.preprocessing import Preprocessing
from nfa.nets.parameterization import scale_weights
from nfa.nets.registry import TARGET, build, plain_arguments
from nfa.zoo.loaded import Loaded, checked_twin, file_words, in_float32, seeded
from nfa.zoo.weights import find_state, load_state, read_file, read_weights

LAST = Path("checkpoints") / "last.ckpt"


@dataclass(frozen=True)
class Recorded:
    """What a checkpoint of this lab says of its network, beside the weights.

    Attributes:
        path: of the checkpoint.
        state: its state dict.
        net: ``_target_`` and arguments.
        init_scale: factor on the initial weights of all linear maps.
        words: for headings, ``last.ckpt, 2 epochs``.
        preprocessing: of images, where it is known.
        initial: what the run measured at initialisation, with the weights of then.
        notes: sentences for the reader of a report.
    """

    path: Path
    state: dict[str, Tensor]
    net: dict[str, object]
    init_scale: float
    words: str
    preprocessing: Preprocessing | None
    initial: AnsatzReport | None
    notes: list[str]

    @property
    def arguments(self) -> tuple[list[object], dict[str, object]]:
        """Positional and keyword arguments of the network, plain values; NfaError where there are others."""
        return plain_arguments(self.net, self.path)

    def scaled(self, model: nn.Module) -> nn.Module:
        """The freshly built network as a run starts with it."""
        scale_weights(model, self.init_scale)
        return model

    def loaded(self, model: nn.Module, title: str, build: Callable[[], nn.Module], words: str) -> Loaded:
        """The network with its weights, and all that is known of it."""
        return Loaded(
            model=in_float32(model),
            title=title,
            weights=words,
            preprocessing=self.preprocessing,
            twin=checked_twin(build),
            initial=self.initial,
            notes=self.notes,
        )


def load(name: str, weights: str | os.PathLike | None, seed: int) -> Loaded:
    """Rebuild the network of a run; see `nfa.zoo.load`.

    Args:
        name: a checkpoint, or the folder of a run.
        weights: file of weights to load into its network instead of its own.
        seed: of what the network draws while it is built; the weights overwrite it.
    """
    path = _checkpoint_path(Path(name))
    checkpoint = read_file(path)
    recorded = recorded_in(checkpoint, path)
    if recorded is None:
        raise NfaError(_without_network(checkpoint, path))
    builder = partial(_build, recorded)
    model = seeded(builder, seed)
    if weights is None:
        load_state(model, recorded.state, path)
        words = recorded.words
    else:
        load_state(model, read_weights(weights), weights)
        words = file_words(weights)
    title = f"{str(recorded.net[TARGET]).rsplit('.', 1)[-1]} ({name})"
    table = path.parent.parent / TABLE
    return replace(
        recorded.loaded(model, title, builder, words),
        named_by_file=True,
        table=table if table.is_file() else None,
    )


def _build(recorded: Recorded) -> nn.Module:
    return recorded.scaled(build(recorded.net, recorded.path))


def last_checkpoint(path: Path) -> Path:
    """The last checkpoint in the folder of a run; any other path as it is."""
    return path / LAST if (path / LAST).is_file() else path


def _checkpoint_path(path: Path) -> Path:
    found = last_checkpoint(path)
    if found.is_dir():
        raise NfaError(f"the folder {path} has no {LAST}: give the folder of a run, or a checkpoint file")
    if not found.exists() and path.parent.is_dir():
        beside = near(path.name, [p.name for p in path.parent.iterdir()])
        raise NfaError(f"no checkpoint and no run folder at {path}{beside}")
    return found


def _without_network(checkpoint: object, path: Path) -> str:
    if isinstance(checkpoint, Mapping) and "pytorch-lightning_version" in checkpoint:
        return (
            f"{path} does not say what network it holds: expected hyper_parameters with net, as the runs of "
            "this lab on networks have. Give a function that builds it: my_module:build --weights FILE"
        )
    return (
        f"{path} holds weights and no network: name the network and give the file as --weights {path}, for "
        "instance torchvision:resnet18 --weights FILE or my_module:build --weights FILE"
    )


# ---- what a checkpoint says --------------------------------------------------------------------------------


def recorded_in(checkpoint: object, path: Path) -> Recorded | None:
    """What a checkpoint of this lab says; None where it does not say its network.

    Raises:
        NfaError: it says it, and the rest is not as this lab writes it.
    """
    hyper = checkpoint.get("hyper_parameters") if isinstance(checkpoint, Mapping) else None
    net = hyper.get("net") if isinstance(hyper, Mapping) else None
    if not isinstance(checkpoint, Mapping) or not isinstance(hyper, Mapping) or not isinstance(net, Mapping):
        return None
    if not isinstance(net.get(TARGET), str):
        return None
    inputs = checkpoint.get("inputs")
    unknown = inputs.get("unknown") if isinstance(inputs, Mapping) else None
    return Recorded(
        path=path,
        state=find_state(checkpoint, path),
        net=dict(net),
        init_scale=_init_scale(hyper, path),
        words=f"{path.name}{_epochs(checkpoint)}",
        preprocessing=_preprocessing(inputs, path),
        initial=_initial(checkpoint, path),
        notes=[unknown] if isinstance(unknown, str) else [],
    )


def _init_scale(hyper: Mapping, path: Path) -> float:
    scale = hyper.get("init_scale", 1.0)
    if not _is_number(scale):
        raise NfaError(f"{path}: expected a number as init_scale in hyper_parameters, got {scale!r:.40}")
    return float(scale)


def _epochs(checkpoint: Mapping) -> str:
    """``, 3 epochs``, where the checkpoint tells."""
    try:
        done = int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return ""
    return f", {done} epoch{'' if done == 1 else 's'}"


def _preprocessing(inputs: object, path: Path) -> Preprocessing | None:
    if not isinstance(inputs, Mapping) or "mean" not in inputs:
        return None
    mean, std, size, channels = (inputs.get(key) for key in ("mean", "std", "size", "channels"))
    if not (
        _are_numbers(mean)
        and _are_numbers(std)
        and _are_counts(size)
        and _is_count(channels)
        and len(size) == 2
        and len(mean) == len(std) == channels
        and all(value > 0 for value in std)
    ):
        raise NfaError(
            f"{path}: expected under inputs mean and std, a number for each channel, channels, and size "
            "(height, width), as this lab writes them"
        )
    return Preprocessing(mean=tuple(mean), std=tuple(std), size=(size[0], size[1]), channels=channels)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_numbers(values: object) -> TypeGuard[Sequence[float]]:
    return isinstance(values, list | tuple) and len(values) > 0 and all(map(_is_number, values))


def _are_counts(values: object) -> TypeGuard[Sequence[int]]:
    return isinstance(values, list | tuple) and len(values) > 0 and all(map(_is_count, values))


def _initial(checkpoint: Mapping, path: Path) -> AnsatzReport | None:
    """What the monitor of the run measured at initialisation, with the weights of then."""
    states = checkpoint.get("callbacks")
    for state in states.values() if isinstance(states, Mapping) else ():
        if not isinstance(state, Mapping) or state.get("initial_rows") is None:
            continue
        rows, weights = state["initial_rows"], state.get("initial_weights")
        if not isinstance(rows, list) or not all(map(_is_row, rows)) or not isinstance(weights, Mapping):
            raise NfaError(f"{path}: what its run measured at initialisation is damaged")
        if not all(isinstance(w, Tensor) and w.is_floating_point() for w in weights.values()):
            raise NfaError(f"{path}: its weights at initialisation are damaged")
        if rows and weights:
            rows = [AnsatzRow(**{k: v for k, v in row.items() if k in _COLUMNS}) for row in rows]
            return AnsatzReport(rows=rows, weights=dict(weights))
    return None


_COLUMNS = {field.name: field for field in dataclasses.fields(AnsatzRow)}


def _is_row(row: object) -> bool:
    """Whether it is a mapping with the columns that a row must have, each of its kind."""
    if not isinstance(row, Mapping):
        return False
    needed = {k for k, f in _COLUMNS.items() if f.default is f.default_factory is dataclasses.MISSING}
    return needed <= set(row) and all(
        isinstance(row[k], str if f.type in (str, "str") else bool | int | float)
        for k, f in _COLUMNS.items()
        if k in row
    )
