"""The tables of options agree with the configurations and with the classes that take the options."""

import inspect
import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import yaml

import datamodules
import models
from callbacks import AnsatzMonitor, Catapults
from datamodules.base import TensorDataModule
from lab import options
from lab.checks.every_option import check_options
from lab.checks.known import known_options
from lab.options import FLAG, PATH, TEXT, choice, number, shown, whole
from nfa import NfaError
from tests.lab.configs import composed

CONFIGS = Path(__file__).parents[2] / "configs"
FILLED_IN = {"self", "input_shape", "num_outputs", "task", "net", "network"}
PASSED_BY_THE_LAB = {"logger", "callbacks", "enable_progress_bar"}


def arguments(target):
    return set(inspect.signature(target).parameters) - FILLED_IN - {"base"}


@pytest.mark.parametrize("name", options.MODEL)
def test_models_take_what_their_table_has(name):
    assert arguments(getattr(models, name)) == options.MODEL[name].keys()


@pytest.mark.parametrize("name", options.DATA)
def test_data_take_what_their_table_has(name):
    kind, own = getattr(datamodules, name), set()
    for base in kind.__mro__:
        if issubclass(base, TensorDataModule):
            own |= set(inspect.signature(base.__init__).parameters) - {"self", "base"}
    assert own == options.DATA[name].keys()


def test_training_monitor_and_trainer_take_what_their_tables_have():
    assert arguments(models.NeuralModule) == options.TRAINING.keys()
    assert arguments(AnsatzMonitor) == options.ANSATZ.keys()
    assert arguments(Catapults) == options.CATAPULTS.keys()
    known = options.TRAINER.keys() | PASSED_BY_THE_LAB
    assert set(inspect.signature(pl.Trainer).parameters) <= known  # an older Trainer has fewer


@pytest.mark.parametrize("group", ["model", "data"])
def test_the_defaults_of_every_configuration_are_in_range(group):
    for path in (CONFIGS / group).glob("*.yaml"):
        given = ["data.root=photos"] if path.stem == "image_folder" else []
        check_options(composed(f"{group}={path.stem}", *given), early=True)


def test_choices_are_those_of_the_networks():
    from nfa.inputs.torchvision_sets import SOURCES
    from nfa.kernels import KERNELS
    from nfa.machines.inner import FUNCTIONS
    from nfa.machines.updates import UPDATES
    from nfa.nets.activations import ACTIVATIONS
    from nfa.nets.resnet import ARCHITECTURES as RESNETS
    from nfa.nets.vgg import ARCHITECTURES as VGGS

    assert options.MODEL["MLP"]["activation"].choices == tuple(ACTIVATIONS)
    assert options.MODEL["ResNet"]["arch"].choices == tuple(RESNETS)
    assert options.MODEL["VGG"]["arch"].choices == tuple(VGGS)
    assert options.TORCHVISION["name"].choices == tuple(SOURCES)
    assert set(options.MODEL["RFM"]["kernel"].choices) == {*KERNELS, *FUNCTIONS}
    assert set(options.MODEL["RFM"]["learn"].choices) == set(UPDATES)


def test_every_key_of_a_configuration_is_in_its_table():
    of_nets = {k: v | options.VARIANTS for k, v in options.MODEL.items()}
    for group, tables in (("model", of_nets), ("data", options.DATA)):
        for path in (CONFIGS / group).glob("*.yaml"):
            content = yaml.safe_load(path.read_text())
            content = content.get(group, content)
            if "_target_" in content:
                table = tables[content["_target_"].rpartition(".")[2]]
                assert set(content) - {"_target_"} <= table.keys(), path


@pytest.mark.parametrize(
    ("option", "good", "bad"),
    [
        (whole(1), [1, 2**62], [0, -1, 1.0, 1.5, True, "1", None, [1], math.nan, math.inf, 2**63, {}]),
        (number(0), [0, 1.5, 10**6], [-1, math.nan, math.inf, True, "0.1", None, [0.1], 10**400]),
        (number(above=0, below=1), [0.5], [0, 1, math.nan]),
        (number(0, below=1), [0, 0.5], [1, 1.0]),
        (FLAG, [True, False], [0, 1, "true", None]),
        (TEXT, ["a"], ["", "a\0b", 1, None, ["a"]]),
        (PATH, ["a", Path("a")], ["", "a\0b", 1]),
        (choice("a", 1), ["a", 1], ["b", True, 1.0, None]),
        (number(0).or_list().or_null(), [1, [1, 2], None, []], [[1, None], [[1]], ["1"], [True]]),
        (choice("median").or_list() | number(above=0).or_list(), ["median", 1, [1, "median"]], ["mean", [0]]),
    ],
)
def test_what_an_option_accepts(option, good, bad):
    assert all(option.accepts(value) for value in good)
    for value in bad:
        with pytest.raises(NfaError, match=r"^x\.y must be .*, got ") as error:
            option.check("x.y", value)
        assert "\n" not in str(error.value)


def test_words():
    assert whole(1).or_null().expected == "a whole number of at least 1, or null"
    assert number(0, 0.5).expected == "a number from 0 to 0.5"
    assert number(above=0).or_list().expected == "a number above 0, or a list of them"
    assert (shown(None), shown(True), shown("a\n")) == ("null", "true", r"'a\n'")
    assert len(shown("a" * 1000)) < 70


def test_options_that_are_known():
    names = known_options(composed("model=mlp", "data=digits"))
    assert {"seed", "training.lr", "model.depth", "data.batch_size", "trainer.limit_test_batches"} <= set(
        names
    )
    assert "callbacks.ansatz.samples" in names
    assert "model.kernel" not in names
