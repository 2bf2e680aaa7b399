"""What a zoo hands over, and what all zoos share: seeds, missing packages, names, files of weights."""

import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from nfa.ansatz.report import AnsatzReport
from nfa.errors import NfaError
from nfa.inputs.preprocessing import Preprocessing
from nfa.nets.imports import import_installed
from nfa.sweep.untouched import same_random_states
from nfa.zoo.weights import load_state, other_classes, read_weights

T = TypeVar("T")


@dataclass
class Loaded:
    """A network to measure, and what is known about it.

    Attributes:
        model: on the CPU, its floating tensors float32 (float64 where a user's own has them).
        title: for headings, ``resnet18 (torchvision)``.
        weights: in words, ``IMAGENET1K_V1``, ``random, seed 0``, ``resnet20.th``.
        preprocessing: of images, where it is known.
        twin: seed -> a randomly initialised network of the same architecture; None where there is no way.
        initial: what a run measured at initialisation, with the initial weights.
        tokenize: text -> token ids, where there is a tokenizer.
        output_fn: what the model returns -> the tensor to differentiate, where that is not plain to see.
        notes: sentences for the reader of a report.
        named_by_file: whether a file said what network it is, and not whoever typed the command.
        table: the file that says how rows of a table become its inputs, where a run on tables wrote one.
    """

    model: nn.Module
    title: str
    weights: str
    preprocessing: Preprocessing | None = None
    twin: Callable[[int], nn.Module] | None = None
    initial: AnsatzReport | None = None
    tokenize: Callable[[str], list[int]] | None = None
    output_fn: Callable[[object], object] | None = None
    notes: list[str] = field(default_factory=list)
    named_by_file: bool = False
    table: Path | None = None


def seeded(build: Callable[[], T], seed: int) -> T:
    """What ``build`` returns under a seed; the random states are as before afterwards."""
    with same_random_states():
        random.seed(seed)
        torch.default_generator.manual_seed(seed)  # of the CPU alone: torch.manual_seed reaches every device
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed % 2**32)
        return build()


def random_weights(seed: int) -> str:
    """Words for weights drawn under a seed."""
    return f"random, seed {seed}"


def in_float32(model: nn.Module) -> nn.Module:
    """The model on the CPU in eval mode, half precision converted up; float64 stays.

    Raises:
        NfaError: its tensors have no values, it is scripted, or it has no eval mode.
    """
    if any(t.is_meta for t in (*model.parameters(), *model.buffers())):
        raise NfaError("the network is on the meta device, where tensors have no values: build it on the CPU")
    if isinstance(model, torch.jit.ScriptModule):
        raise NfaError(
            "the network is scripted or traced, and shows no layers: give the module that it was made from"
        )
    floating = [p for p in model.parameters() if p.is_floating_point() and not is_lazy(p)]
    if any(p.dtype not in (torch.float32, torch.float64) for p in floating):
        model = model.float()
    try:
        return model.cpu().eval()
    except NotImplementedError as error:  # a graph of torch.export
        raise NfaError(
            f"the network cannot be brought to eval mode ({error}): give the module that it was made from"
        ) from None


def checked_twin(build: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """A twin for code that may well load weights instead of drawing them.

    The twin raises NfaError when two seeds give the same network.
    """

    def twin(seed: int) -> nn.Module:
        model, other = seeded(build, seed), seeded(build, seed + 1)
        pairs = list(zip(model.parameters(), other.parameters(), strict=False))
        if not any(is_lazy(p) for p, _ in pairs) and all(torch.equal(p, q) for p, q in pairs):
            raise NfaError(
                "no randomly initialised network to compare with: the code that builds this one gives the "
                "same weights under every seed"
            )
        return in_float32(model)

    return twin


def filled(
    build: Callable[..., nn.Module], path: str | os.PathLike, **options: object
) -> tuple[nn.Module, dict]:
    """A network of a zoo with the weights of a file, and the options it took to build it.

    Where the file has another number of classes and nothing else differs, the network is built for these.

    Args:
        build: gives a randomly initialised network; may take ``num_classes``.
        path: file of weights.
        **options: of ``build``.

    Raises:
        NfaError: the file cannot be read or does not fit.
    """
    state = read_weights(path)
    model = seeded(lambda: build(**options), 0)
    classes = other_classes(model, state)
    if classes is not None:
        try:
            model = seeded(lambda: build(**options, num_classes=classes), 0)
            options = {**options, "num_classes": classes}
        except TypeError:
            pass  # no such option: the file is refused below, by name
    load_state(model, state, path)
    return model, options


def file_words(path: str | os.PathLike) -> str:
    """Words for the weights of a file."""
    return Path(path).name


def zoo_package(name: str, spec: str) -> ModuleType:
    """Import a package of a zoo.

    Raises:
        NfaError: it is not installed, or cannot be imported.
    """
    try:
        return import_installed(name)
    except Exception as error:  # a torchvision built for another torch raises a RuntimeError
        package = name.split(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise NfaError(
                f'{spec} needs the package {package}: pip install "neural-feature-ansatz[zoo]"'
            ) from None
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise NfaError(
            f"{spec} needs the package {package}, which is installed but cannot be imported ({line}): "
            "reinstall it together with torch"
        ) from error


def interpolation(name: str) -> str:
    """The nearest of what `Preprocessing` knows: ``bilinear`` or ``bicubic``."""
    return "bicubic" if name in ("bicubic", "lanczos") else "bilinear"
