"""Table, report, features and checkpoint are of the network that is tested, whatever changes weights late."""

import math
import warnings

import pytest
import torch
from safetensors.torch import load_file

import nfa
from callbacks.final import digest_of
from datamodules import Digits
from tests.nets import DropoutNet
from tests.same_files import assert_same_files

CALLBACKS = {
    "none": "pytorch_lightning.Callback",
    "at the end": "tests.stoppers.HalveAtEnd",
    "for the test": "tests.stoppers.SwapInForTest",
    "for its epoch": "tests.stoppers.SwapInForTest, hook: on_test_epoch_start",
    "SWA": "pytorch_lightning.callbacks.StochasticWeightAveraging, swa_lrs: 0.01, swa_epoch_start: 1",
    "averaging": "pytorch_lightning.callbacks.WeightAveraging",
    "EMA": "pytorch_lightning.callbacks.EMAWeightAveraging, decay: 0.5",
    "pruning": "pytorch_lightning.callbacks.ModelPruning, pruning_fn: l1_unstructured, amount: 0.3",
}
MLP = ("model=mlp", "model.width=8", "model.depth=2", "trainer.max_epochs=3")
QUICK = ("at the end", "for the test", "SWA", "EMA")


def changed(name):
    return (
        f"+callbacks.late={{_target_: {CALLBACKS[name]}}}",
        "+callbacks.keep._target_=tests.stoppers.KeepTested",
    )


def each(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in names]


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning.*")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        yield


@pytest.mark.parametrize("name", each(CALLBACKS))
def test_all_files_are_of_the_network_that_is_tested(run, name):
    done = run(*MLP, *changed(name), folder="a")
    assert done.code == 0, done.err
    tested = torch.load("tested.pt", weights_only=True)
    kept = {k.removeprefix("network."): v for k, v in done.weights.items() if k.startswith("network.")}
    assert all(torch.equal(value, kept[k]) for k, value in tested.items())
    nfm = tested["hidden1.weight"].double().T @ tested["hidden1.weight"].double()
    features = load_file(done.folder / "features.safetensors")
    torch.testing.assert_close(features["nfm"].double(), nfm, rtol=1e-5, atol=1e-6)
    audited = report_of(tested)
    last = [row for row in done.rows if row.epoch == 3]
    assert [row.layer for row in last] == [row.layer for row in audited.rows]
    for mine, theirs in zip(last, audited.rows, strict=True):
        assert mine.cosine == pytest.approx(theirs.cosine, abs=1e-6, nan_ok=True)
        assert math.isnan(mine.cosine) or f"{mine.cosine:.3f}" in done.out
    assert done.summary["weights"] == digest_of(network_of(tested))
    known = [row.cosine for row in last if row.measured and not math.isnan(row.cosine)]
    assert done.summary["ansatz/mean_cosine"] == pytest.approx(sum(known) / len(known), abs=1e-5)


def network_of(state):
    from models import MLP as Network

    network = Network(input_shape=[1, 8, 8], num_outputs=10, width=8, depth=2)
    network.load_state_dict(state)
    return network.eval()


def report_of(state):
    data = Digits(n_train=300, n_test=100)
    data.setup()
    x, y = data.probe(24, seed=0)
    return nfa.audit(network_of(state), [(x, y)], nulls=4)


@pytest.mark.parametrize("name", each(CALLBACKS))
def test_such_a_run_is_finished_to_the_same_files(run, monkeypatch, name):
    from tests.test_finish import _Killed, owner_of, stop_at

    options = (*MLP, *changed(name))
    whole = run(*options, folder="run_whole")
    with monkeypatch.context() as patched:
        stop_at(patched, *owner_of("report"))
        with pytest.raises(_Killed):
            run(*options, folder="run_stopped")
    done = run(*options, "ckpt_path=last", folder="run_stopped")
    assert done.code == 0, done.err
    assert_same_files(done.folder, whole.folder)


@pytest.mark.long
@pytest.mark.parametrize("stop", [3, 4])
def test_averaging_with_batch_norm_is_resumed_before_and_after_its_extra_epoch(run, monkeypatch, stop):
    """Lightning's SWA runs one epoch more than it was asked for, to see the statistics of the average."""
    from callbacks import RunFolder
    from tests.test_finish import _Killed

    options = ("model=cnn", "model.width=4", "trainer.max_epochs=3", *changed("SWA"))
    whole = run(*options, folder="run_whole")
    assert whole.code == 0, whole.err
    assert whole.summary["epochs"] == 4
    with monkeypatch.context() as patched:
        before = RunFolder.on_train_epoch_start

        def killed(self, trainer, pl_module):
            if trainer.current_epoch == stop:
                raise _Killed
            before(self, trainer, pl_module)

        patched.setattr(RunFolder, "on_train_epoch_start", killed)
        patched.setattr(RunFolder, "finish", lambda *args: killed(args[0], args[1], args[2]))
        with pytest.raises(_Killed):
            run(*options, folder="run_stopped")
    done = run(*options, "ckpt_path=last", folder="run_stopped")
    assert done.code == 0, done.err
    assert done.summary["epochs"] == 4
    for name in ("ansatz.csv", "features.safetensors"):
        assert (done.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    if stop == 4:  # in the extra epoch, which steps nowhere, Lightning restores another learning rate
        assert_same_files(done.folder, whole.folder)


def test_training_goes_on_from_what_was_trained_and_not_from_what_was_tested(run):
    plain = run(*MLP, "training.schedule=constant", "trainer.max_epochs=5", folder="a")
    late = ("training.schedule=constant", *changed("at the end"))
    first = run(*MLP, *late, folder="b")
    assert not torch.equal(first.weights["network.hidden1.weight"], plain.weights["network.hidden1.weight"])
    done = run(*MLP, *late, "ckpt_path=last", "trainer.max_epochs=5", folder="b")
    assert done.code == 0, done.err
    half = plain.weights["network.hidden1.weight"] / 2
    assert torch.equal(done.weights["network.hidden1.weight"], half)


def test_a_digest_tells_values_names_and_types_apart():
    torch.manual_seed(0)
    net, same, other = (DropoutNet([1, 8, 8], 10) for _ in range(3))
    same.load_state_dict(net.state_dict())
    assert digest_of(net) == digest_of(same) != digest_of(other)
    assert digest_of(net.double()) != digest_of(same)
    assert digest_of(torch.nn.LazyLinear(3)) == digest_of(torch.nn.Identity())
