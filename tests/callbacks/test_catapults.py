"""Spikes, eigenvalues and the alignment of the AGOP while a network trains."""

import math
import re

import pytest
import torch

from callbacks import Catapults
from callbacks.spikes import Spikes
from nfa import NfaError

TOY = (
    "model=mlp", "model.depth=1", "model.bias=false", "model.width=300", "model.parameterization=ntk",
    "data=two_clusters", "data.passes=20", "trainer.max_epochs=4", "training.momentum=0",
    "training.weight_decay=0", "training.schedule=constant", "callbacks=catapults", "callbacks.ansatz=null",
    "logger=csv", "trainer.accelerator=cpu",
)  # fmt: skip


def spikes_in(losses, threshold):
    spikes = Spikes(threshold)
    for loss in losses:
        spikes.see(loss)
    return spikes.count


@pytest.mark.parametrize(
    ("losses", "low", "high"),
    [
        ([3, 2, 1, 1, 1], 0, 0),
        ([1, 5, 6, 5, 1, 4, 1], 2, 2),  # however long one lasts
        ([1, 2, 1, 2, 1], 2, 0),  # noise, for the higher threshold
        ([10, 1, 5], 1, 1),  # of the lowest so far, not of the first
        ([1, math.nan, math.inf, 1], 1, 1),
    ],
)
def test_spikes(losses, low, high):
    assert (spikes_in(losses, 1.5), spikes_in(losses, 3.0)) == (low, high)


@pytest.mark.parametrize(
    ("over", "falls", "spikes"), [(0.9, (False, False), 0), (1.05, (True, False), 1), (1.8, (True, True), 1)]
)
def test_a_catapult_lowers_the_eigenvalues_that_its_rate_is_beyond(run, over, falls, spikes):
    """Between 2/λ₁ and 2/λ₂ the first alone, above both of them."""
    options = ("model.expand=quadratic", f"training.lr_over_critical={over}", "trainer.max_epochs=8")
    done = run(*TOY, *options, small=False)
    assert done.code == 0, done.err
    found = done.summary
    first, second = (found[f"catapult/lambda_{i}"] / found[f"catapult/lambda_{i}_start"] for i in (1, 2))
    ratio = found["catapult/lambda_1_start"] / found["catapult/lambda_2_start"]
    assert 1.05 < ratio < 1.8  # so that the rates are what they are for
    assert ((first < 0.98), (second < 0.95)) == falls
    assert found["catapult/spikes_1.5"] == spikes
    assert not found["catapult/diverged"]
    assert found["catapult/loss"] < 0.25
    peaks = [float(row["catapult/peak"]) for row in done.metrics if row["catapult/peak"]]
    assert max(peaks) == found["catapult/peak"]


@pytest.mark.parametrize(
    ("losses", "places"),
    [([3, 2, 1], []), ([1, 5, 6, 5, 1, 4, 1], [2, 5]), ([1, math.nan, 1, 9], [1, 3]), ([], [])],
)
def test_each_spike_has_a_peak(losses, places):
    assert Spikes.peaks(losses, 1.5) == places


def test_the_page_shows_the_loss_of_every_step_with_its_spike(run, monkeypatch):
    seen, see = [], Catapults._see
    monkeypatch.setattr(
        Catapults, "_see", lambda self, trainer, loss: (seen.append(loss), see(self, trainer, loss))
    )
    done = run(*TOY, "training.lr_over_critical=1.3", "trainer.max_epochs=2", small=False)
    assert done.code == 0, done.err
    page = (done.folder / "report.html").read_text()
    drawn = re.findall(r"loss after so many steps\n(\d+): ([-+.e\d]+)<", page)
    half = drawn[: len(drawn) // 2]  # the other chart is for phones
    assert [int(step) for step, _ in half] == list(range(41))
    assert [float(value) for _, value in half] == pytest.approx(
        [*seen, done.summary["catapult/loss"]], rel=1e-3
    )
    peak = re.search(r"peak of a spike above 3 × the lowest so far\n(\d+): ([-+.e\d]+)<", page)
    assert int(peak[1]) == seen.index(max(seen))
    assert float(peak[2]) == pytest.approx(done.summary["catapult/peak"], rel=1e-3)
    first = re.findall(r"λ₁\n(\d+): ([-+.e\d]+)<", page)
    assert [int(step) for step, _ in first[:3]] == [0, 20, 40]
    assert float(first[0][1]) == pytest.approx(done.summary["catapult/lambda_1_start"], rel=1e-3)
    assert float(first[2][1]) == pytest.approx(done.summary["catapult/lambda_1"], rel=1e-3)


@pytest.mark.parametrize(("precision", "code"), [("64-true", 0), ("bf16-true", 1)])
def test_precisions(run, precision, code):
    options = (f"trainer.precision={precision}", "training.lr_over_critical=0.9", "trainer.max_epochs=1")
    done = run(*TOY, *options, "model.expand=quadratic", "model.width=30", "data.passes=3", small=False)
    assert done.code == code, done.err
    assert code == 0 or "got bfloat16: give trainer.precision=32-true" in done.err.strip().splitlines()[-1]


def test_the_line_of_an_epoch_has_the_numbers_of_that_epoch(run):
    done = run(*TOY, "training.lr_over_critical=0.9", "trainer.max_epochs=2", small=False)
    assert done.code == 0, done.err
    shown = [float(value) for value in re.findall(r"catapult/peak (\S+)", done.out)]
    assert shown == pytest.approx([float(row["catapult/peak"]) for row in done.metrics[:2]], rel=1e-3)


@pytest.mark.parametrize(("expand", "over"), [("linear", 1.3), ("quadratic", 2.5)])
def test_a_run_that_diverges_ends_and_says_so(run, expand, over):
    done = run(*TOY, f"model.expand={expand}", f"training.lr_over_critical={over}", small=False)
    assert done.code == 0, done.err
    assert done.summary["catapult/diverged"]
    assert done.summary["catapult/peak"] > 1e6 * done.summary["catapult/loss_start"]
    assert math.isfinite(done.summary["test/mse"])


@pytest.mark.parametrize("batch", [10, 60])
def test_the_alignment_is_with_the_true_agop_and_the_loss_of_all_samples(run, monkeypatch, batch):
    import nfa
    from datamodules import LowRank
    from nfa.zoo import load

    true = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    monkeypatch.setattr(LowRank, "true_agop", lambda self: true.double(), raising=False)
    options = ("data=low_rank", "data.dim=4", "data.n=60", "data.val_fraction=0", f"data.batch_size={batch}")
    done = run(*TOY, *options, "trainer.max_epochs=2", "training.lr_over_critical=0.5", small=False)
    assert done.code == 0, done.err
    net = load(f"file:{done.folder}").model
    data = LowRank(60, 2000, 4, val_fraction=0.0, seed=0)
    data.setup()
    x, y = data.probe(100)
    G = nfa.input_agop(net, [x])
    aligned = float((G * true).sum() / G.norm() / true.norm())
    assert done.summary["catapult/agop_alignment"] == pytest.approx(aligned, rel=1e-4)
    assert done.summary["catapult/loss"] == pytest.approx((net(x) - y).square().mean().item(), rel=1e-4)


@pytest.mark.long
def test_the_alignment_may_be_with_a_reference_run(run):
    options = ("model=mlp", "model.width=8", "model.depth=1", "training.loss=mse", "trainer.max_epochs=1")
    first = run(*options, folder="first")
    done = run(*options, "callbacks=catapults", "callbacks.catapults.reference=first", folder="second")
    assert done.code == 0, done.err
    assert done.summary["catapult/agop_alignment"] > 0.9  # it is the same run
    wrong = run(*options, "callbacks=catapults", "callbacks.catapults.reference=nowhere", folder="third")
    assert wrong.code == 1
    assert "expected the folder of a finished run" in wrong.err
    assert first.code == 0


@pytest.mark.long
def test_a_resumed_run_goes_on_counting(run):
    options = (*TOY, "training.lr_over_critical=1.5")
    whole = run(*options, folder="whole", small=False)
    run(*options, "trainer.max_epochs=2", folder="cut", small=False)
    resumed = run(*options, "ckpt_path=last", folder="cut", small=False)
    assert resumed.code == 0, resumed.err
    names = [name for name in whole.summary if name.startswith("catapult/")]
    assert len(names) > 6
    assert {n: resumed.summary[n] for n in names} == {n: whole.summary[n] for n in names}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("model=mlp",), "callbacks.catapults is of squared losses"),
        (("model=rfm",), "is of networks that are trained by gradients"),
        (("model=mlp", "callbacks.catapults.thresholds=[1]"), "callbacks.catapults.thresholds must be"),
        (("model=mlp", "callbacks.catapults.eigenvalue=3"), "did you mean callbacks.catapults.eigenvalues"),
    ],
)
def test_mistakes(run, options, message):
    done = run("callbacks=catapults", *options)
    assert done.code == 1
    assert message in done.err.strip().splitlines()[-1]


def test_a_state_of_something_else_is_refused():
    with pytest.raises(NfaError, match="no counts of"):
        Catapults().load_state_dict({"spikes": [{"a": 1}]})
