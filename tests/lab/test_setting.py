"""``+setting=published``: the sizes that experiments have in their papers."""

import pytest
from omegaconf import OmegaConf

import lab.names  # noqa: F401 - what the configurations call
from lab.mistakes.composed import fresh_hydra

SIZES = {  # of an experiment: option, published, and by default
    ("catapults", "mlp"): {"model.width": (2048, 512)},
    ("quadratic_model", "mlp"): {"model.width": (5000, 2000)},
    ("fact", "mlp"): {"model.depth": (5, 2), "trainer.max_epochs": (400, 40)},
    ("deep_linear", "mlp"): {"training.lr": (0.002, 0.02), "trainer.max_epochs": (100, 10)},
    ("grokking", "mlp_quadratic"): {"trainer.max_epochs": (1000, 40), "model.width": (1024, 256)},
    ("grokking", "rfm_quadratic"): {"trainer.max_epochs": (61, 28)},
    ("symmetry", "rfm_gaussian"): {"trainer.max_epochs": (61, 21), "data.p": (61, 29)},
}
ONE_STEP = ("data.passes=1", "trainer.max_steps=1", "trainer.max_epochs=1", "callbacks=none")
SMALL_SUMS = ("data.p=7", "trainer.max_epochs=1", "callbacks=none")


def composed(*options):
    """All options of a run, as ``--cfg job --resolve`` shows them."""
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig

    with fresh_hydra():
        config = compose("train", list(options), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        return {
            part: OmegaConf.to_container(config[part], resolve=True) for part in ("model", "data", "training")
        } | {"trainer": {"max_epochs": config.trainer.max_epochs}}


@pytest.mark.parametrize(("experiment", "model"), SIZES)
def test_sizes_whatever_comes_first(experiment, model):
    chosen = (f"+experiment={experiment}", f"model={model}")
    for options, which in (
        ((*chosen, "+setting=published"), 0),
        (("+setting=published", *chosen), 0),
        (chosen, 1),
    ):
        found = composed(*options)
        for name, values in SIZES[experiment, model].items():
            part, option = name.split(".")
            assert found[part][option] == values[which], (name, options)


def test_what_is_typed_has_the_last_word():
    options = ("+experiment=catapults", "model=mlp", "model.width=9", "+setting=published")
    assert composed(*options)["model"]["width"] == 9


@pytest.mark.parametrize(
    ("experiment", "options"),
    [
        pytest.param(
            "catapults",
            (*ONE_STEP, "training.lr_over_critical=1.5", "seed=0"),
            marks=pytest.mark.long,
        ),
        pytest.param(
            "quadratic_model",
            (*ONE_STEP, "training.lr_over_critical=1.05", "model.expand=quadratic"),
            marks=pytest.mark.long,
        ),
        ("fact", (*ONE_STEP, "training.weight_decay=1e-4")),
        ("deep_linear", (*ONE_STEP, "model.depth=2", "model.initialization=balanced")),
        ("grokking", (*SMALL_SUMS, "data.shuffle=false", "model=mlp_quadratic", "seed=0")),
        ("symmetry", (*SMALL_SUMS, "data.move=0", "data.moved=random", "model=rfm_gaussian", "seed=0")),
    ],
)
def test_a_step_of_that_size_runs(run, experiment, options):
    chosen = () if any(o.startswith("model=") for o in options) else ("model=mlp",)
    common = (f"+experiment={experiment}", "+setting=published", "logger=csv", "trainer.accelerator=cpu")
    done = run(*common, *chosen, *options, small=False)
    assert done.code == 0, done.err
    assert done.summary["epochs"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "is of experiments with such a size, catapults, deep_linear, fact, "),
        (("+experiment=low_rank", "model=mlp"), "add +experiment=NAME of one of them, or leave it out"),
        (("+experiment=fact", "model=mlp"), "a sweep over training.weight_decay=0.0001"),
    ],
)
def test_where_there_is_none_one_line_says_so(run, options, message):
    done = run("+setting=published", *options, small=False)
    assert done.code == 1
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
