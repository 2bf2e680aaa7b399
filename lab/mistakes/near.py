"""Did you mean: the option, or the value of a group, that is nearest to one there is not."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.options import ANSATZ, AUDIT, DATA, MODEL, TRAINER, TRAINING

_CLOSE = 0.7
_ORDER = ("training.", "data.", "model.", "trainer.", "callbacks.ansatz.")  # where a name is looked for
_OTHER_WORDS = {  # what other projects call it
    "learning_rate": "lr", "learningrate": "lr", "alpha": "power", "rate": "lr", "eta": "lr",
    "wd": "weight_decay", "decay": "weight_decay", "l2": "weight_decay", "optim": "optimizer",
    "opt": "optimizer", "scheduler": "schedule", "lr_scheduler": "schedule", "criterion": "loss",
    "objective": "loss", "epochs": "max_epochs", "num_epochs": "max_epochs", "n_epochs": "max_epochs",
    "nepochs": "max_epochs", "steps": "max_steps", "iterations": "max_steps", "time": "max_time",
    "bs": "batch_size", "batch": "batch_size", "bsz": "batch_size", "batchsize": "batch_size",
    "gpus": "devices", "gpu": "accelerator", "device": "accelerator", "dtype": "precision",
    "fp16": "precision", "layers": "depth", "num_layers": "depth", "n_layers": "depth", "hidden": "width",
    "channels": "width", "hidden_size": "width", "hidden_dim": "width", "units": "width",
    "kernel_size": "patch_size", "bn": "batch_norm", "batchnorm": "batch_norm", "act": "activation",
    "nonlinearity": "activation", "lambda": "ridge", "reg": "ridge", "sigma": "bandwidth",
    "length_scale": "bandwidth", "gain": "init_scale", "train_size": "n_train", "num_train": "n_train",
    "test_size": "n_test", "num_test": "n_test", "val_size": "val_fraction",
    "valid_fraction": "val_fraction", "dir": "root", "folder": "root", "file": "path", "csv": "path",
    "label": "target", "random_seed": "seed", "resume": "ckpt_path", "checkpoint": "ckpt_path",
    "ckpt": "ckpt_path", "clip": "gradient_clip_val", "grad_clip": "gradient_clip_val",
    "image_size": "size", "architecture": "arch", "name": "arch", "num_samples": "samples",
}  # fmt: skip
_EVERY_LEAF = sorted(
    {name for table in (TRAINING, TRAINER, ANSATZ, AUDIT, *DATA.values(), *MODEL.values()) for name in table}
)


def similar(name: str, known: Iterable[str]) -> str | None:
    """The known name that is nearest to one; None where none is near."""
    known = list(known)
    plain = {_plain(other): other for other in reversed(known)}
    if _plain(name) in plain:
        return plain[_plain(name)]
    found = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=_CLOSE)
    return plain[found[0]] if found else None


def option_like(key: str, value: str, known: Sequence[str]) -> str | None:
    """The known option, with its group, that somebody meant who typed ``key=value``.

    Args:
        key: an option there is not, such as ``training.learning_rate`` or ``lr``.
        value: as it was typed.
        known: all options there are, ``training.lr`` and so on.

    Returns:
        Such as ``training.lr``; with a value where that has to be another, ``model.arch=resnet50``.
    """
    group, _, leaf = key.rpartition(".")
    if group in ("data", "model", "training", "trainer") or not group:
        leaf = leaf.lower()
    close = similar(leaf, _EVERY_LEAF)
    meant = (leaf, _OTHER_WORDS.get(leaf.replace("-", "_")), close, _OTHER_WORDS.get(close or ""))
    words = [word for word in dict.fromkeys(meant) if word]
    prefix = f"{group}." if group else ""
    siblings = [name for name in known if name.startswith(prefix) and "." not in name[len(prefix) :]]
    for word in words:
        if prefix + word in siblings:
            return prefix + word
    if group == "model" and "model.arch" in known and {"depth", "layers", "arch", "blocks"} & set(words):
        return _architecture(value)
    if group and (near := similar(prefix + leaf, siblings)) and similar(leaf, [near.rpartition(".")[2]]):
        return near
    for word in words:
        found = [name for name in known if name.rpartition(".")[2] == word]
        if found:
            return min(found, key=_rank)
    if leaf in _EVERY_LEAF:  # of another model or data set
        return None
    leaves = {name.rpartition(".")[2]: name for name in sorted(known, key=_rank, reverse=True)}
    near = similar(leaf, leaves)
    return leaves[near] if near else None


def value_like(group: str, value: str, known: Sequence[str]) -> str | None:
    """The choice of a group, with options, that somebody meant who typed ``group=value``."""
    if group == "model":
        for model in ("ResNet", "VGG"):
            arch = similar_number(value, _architectures(model))
            if arch:
                return f"model={model.lower()} model.arch={arch}"
    if group == "data":
        path = Path(value).expanduser()
        if path.is_dir():
            return f"data=image_folder data.root={value}"
        if path.is_file():
            return f"data=tabular data.path={value} data.target=COLUMN"
    plain = _plain(value)
    begins = sorted((name for name in known if len(plain) > 2 and _plain(name).startswith(plain)), key=len)
    near = similar(value, known) if _plain(value) in map(_plain, known) or not begins else begins[0]
    if near is None:
        words = {name.partition("_")[0]: name for name in sorted(known, reverse=True)}
        near = words.get(similar(value, words) or "")
    return f"{group}={near}" if near else None


def similar_number(value: str, known: Sequence[str]) -> str | None:
    """The known name of the same letters and the same number, whatever stands between: ``ResNet-50``."""
    return next((name for name in known if _plain(name) == _plain(value)), None)


def _architectures(model: str) -> list[str]:
    """Those of a class of networks, by name."""
    return [str(arch) for arch in MODEL[model]["arch"].choices]


def _architecture(value: str) -> str:
    """``model.arch=resnet50`` for a depth of 50."""
    choices = [arch for model in ("ResNet", "VGG") for arch in _architectures(model)]
    fitting = [arch for arch in choices if re.sub(r"\D", "", arch) == value.strip()]
    return f"model.arch={fitting[0]}" if fitting else "model.arch"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _rank(name: str) -> tuple[int, str]:
    place = next((i for i, prefix in enumerate(_ORDER) if name.startswith(prefix)), len(_ORDER))
    return (place if "." in name else -1), name
