"""Every option, with every kind of value that is not its own: one line names it, and nothing is built."""

import copy
import math
import random

import pytest
from omegaconf import OmegaConf, open_dict

from lab import options
from lab.checks.every_option import check_options
from nfa import NfaError
from tests.lab.configs import composed

STRANGERS = (
    "abc", "", "1", "0.5", "-1", "true", "1e400", "nan", "a\0b", "\x1b[2J", "é" * 5000, True, False, None,
    -1, 0, -(2**63), 2**63, 10**400, 1.5, 1e300, -0.1, math.nan, math.inf, -math.inf, [], [1], ["a"], [None],
    [[1]], [math.nan], {}, {"a": 1}, {"_target_": 5},
)  # fmt: skip
SECTIONS = {
    "training": {"training": options.TRAINING},
    "trainer": {"trainer": options.TRAINER},
    "callbacks.ansatz": {"callbacks=default": options.ANSATZ},
    "callbacks.catapults": {"callbacks=catapults": options.CATAPULTS},
    "model": {
        f"model={name}": options.MODEL[kind]
        for name, kind in (
            ("mlp", "MLP"), ("cnn", "CNN"), ("resnet", "ResNet"), ("vgg", "VGG"), ("rfm", "RFM"),
            ("deep_rfm", "DeepRFM"), ("conv_rfm", "ConvRFM"), ("deep_conv_rfm", "DeepConvRFM"),
        )
    },
    "data": {
        f"data={name}": options.DATA[kind]
        for name, kind in (
            ("digits", "Digits"), ("wine", "Tabular"), ("cifar10", "TorchvisionSet"), ("low_rank", "LowRank"),
            ("sparse_parity", "SparseParity"), ("staircase", "Staircase"), ("bars", "Bars"), ("star", "Star"),
            ("pasted_digits", "PastedDigits"), ("image_folder", "ImageFolderData"), ("modular", "Modular"),
        )
    },
    "logger": {"logger=wandb": options.LOGGER["LabWandbLogger"]},
}  # fmt: skip
CHOICES = [(section, choice) for section, tables in SECTIONS.items() for choice in tables]


@pytest.mark.parametrize(("section", "choice"), CHOICES)
def test_strangers_to_an_option_are_refused(section, choice):
    given = [choice] if "=" in choice else []
    root = ["data.root=photos"] if choice == "data=image_folder" else []
    config, refused = composed(*given, *root), 0
    check_options(config, early=True)
    for name, option in SECTIONS[section][choice].items():
        other = copy.deepcopy(config)
        for value in STRANGERS:
            if option.accepts(value):
                continue
            with open_dict(other):
                OmegaConf.select(other, section)[name] = value
            with pytest.raises(NfaError) as error:
                check_options(other, early=True)
            message = str(error.value)
            assert message.startswith(f"{section}.{name} must be "), message
            assert "\n" not in message
            assert "\x1b" not in message
            assert len(message) < 400
            refused += 1
    assert refused >= 10


@pytest.mark.parametrize("seed", [None, 0, 1, 2**32 - 1])
def test_seeds(seed):
    config = composed("callbacks=none", "model=mlp")
    config.seed = seed
    check_options(config, early=True)


@pytest.mark.parametrize("value", [v for v in STRANGERS if not options.SEED.or_null().accepts(v)])
def test_what_is_no_seed(value):
    config = composed()
    config.seed = value
    with pytest.raises(NfaError, match=r"^seed must be a whole number from 0 to 4294967295, or null, got"):
        check_options(config)


def typed_strangers(count):
    """Options as they are typed, drawn with a fixed seed."""
    rng = random.Random(11)
    names = [f"training.{name}" for name in options.TRAINING]
    names += [
        "seed",
        "trainer.max_epochs",
        "trainer.devices",
        "trainer.gradient_clip_val",
        "trainer.precision",
    ]
    names += [f"callbacks.ansatz.{name}" for name in ("samples", "power", "nulls", "every_n_epochs", "chunk")]
    names += [
        "model.width",
        "model.depth",
        "model.bias",
        "data.batch_size",
        "data.val_fraction",
        "data.n_train",
    ]
    values = (
        "{}", "{a: 1}", "[[1]]", "a b", "1e400", "nan", "-inf", "''", "'5", "[1", "{", "${x}", "${", "$", "(",
        "a=b", "1,2", "range(3)", "choice(1,2)", "glob(*)", "\\", "@", "9" * 5000, "é\x1b[2J", ":",
        "null null", "-99999999999999999999", "{_target_: os.system}", "sort(3,1)", "int(a)", "[a,b,{c: d}]",
    )  # fmt: skip
    marks = ("", "", "", "+", "++", "~")
    return [f"{rng.choice(marks)}{rng.choice(names)}={rng.choice(values)}" for _ in range(count)]


LONG = pytest.mark.long
TYPED = typed_strangers(120)


@pytest.mark.parametrize("typed", [*TYPED[:40], *(pytest.param(typed, marks=LONG) for typed in TYPED[40:])])
def test_whatever_is_typed_is_one_line(run, typed):
    done = run("model=mlp", typed, small=False)
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert "\x1b" not in done.err
    assert "Traceback" not in done.err
    assert not (done.folder / "summary.json").exists()


@pytest.mark.parametrize(
    "typed",
    [
        ("model=mlp", "model.width=1000000000"),
        ("model=mlp", "model.width=9223372036854775807"),
        ("model=cnn", "model.width=10000000"),
        ("model=cnn", "model.patch_size=100000000"),
        ("model=mlp", "data=low_rank", "data.n=1000000000000"),
        ("model=mlp", "data=low_rank", "data.dim=9223372036854775807"),
        ("model=cnn", "data=star", "data.size=1000000"),
    ],
)
def test_sizes_beyond_memory_are_told(run, typed):
    done = run(*typed, "callbacks=none", "logger=csv", small=False)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    assert not (done.folder / "summary.json").exists()
