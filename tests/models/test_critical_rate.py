"""The critical rate: eigenvalues without a matrix, and training below and beyond it."""

import math

import pytest
import torch
from torch import nn

from models import NeuralModule
from models.critical_rate import critical_rate, top_eigenvalues
from nfa import NfaError
from nfa.nets import CNN, MLP, Expansion, ntk

TOY = (
    "model=mlp", "model.depth=1", "model.bias=false", "model.width=300", "model.parameterization=ntk",
    "data=two_clusters", "data.passes=60", "trainer.max_epochs=1", "training.momentum=0",
    "training.weight_decay=0", "training.schedule=constant", "callbacks=none", "logger=csv",
)  # fmt: skip
NET = {"_target_": "nfa.nets.MLP", "input_shape": [3], "num_outputs": 2, "depth": 1, "width": 4}


def hessian(network, x, loss):
    """Eigenvalues of that of the loss, for targets that the network fits."""
    names, weights = zip(*network.named_parameters(), strict=True)
    target = network(x).detach()

    def value(flat):
        parts = flat.split([w.numel() for w in weights])
        shaped = {k: p.reshape(w.shape) for k, p, w in zip(names, parts, weights, strict=True)}
        rest = torch.func.functional_call(network, shaped, (x,)) - target
        return rest.square().mean() if loss == "mse" else rest.square().sum(1).mean() / 2

    flat = torch.cat([w.detach().flatten() for w in weights])
    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, flat)).flip(0)


@pytest.mark.parametrize("loss", ["mse", "half_mse"])
@pytest.mark.parametrize("samples", [6, 40])  # by the matrix itself, and without it
def test_eigenvalues_are_those_of_the_hessian(loss, samples):
    torch.manual_seed(0)
    network, x = MLP((3,), 2, depth=1, width=6).double(), torch.randn(samples, 3).double()
    found = top_eigenvalues(network, x, loss, 3)
    assert found == pytest.approx(hessian(network, x, loss)[:3].tolist(), rel=1e-6)
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_eigenvalues_of_an_expansion_are_those_of_the_network():
    network, x = ntk(MLP((3,), 1, depth=1, width=30)), torch.randn(50, 3)
    of_network = top_eigenvalues(network, x, "mse", 2)
    assert top_eigenvalues(Expansion(network), x, "mse", 2) == pytest.approx(of_network, rel=1e-4)


def test_samples_are_taken_in_the_dtype_of_the_weights_if_that_is_fine_enough():
    network, x = MLP((3,), 1, depth=1, width=6).double(), torch.randn(40, 3)
    assert top_eigenvalues(network, x, "mse") == pytest.approx(top_eigenvalues(network, x.double(), "mse"))
    with pytest.raises(NfaError, match="need outputs of float32 or float64, got bfloat16"):
        top_eigenvalues(network.bfloat16(), x, "mse")


def test_no_more_eigenvalues_than_there_are():
    assert len(top_eigenvalues(nn.Linear(2, 1), torch.randn(3, 2), "mse", 5)) == 3


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.8, 0.0), (0.5, 0.3)])
@pytest.mark.parametrize("over", [0.97, 1.03])
def test_descent_on_a_linear_model_diverges_beyond_it_and_not_below(momentum, decay, over):
    torch.manual_seed(0)
    network, x = nn.Linear(3, 1, bias=False).double(), torch.randn(20, 3).double()
    target = x @ torch.randn(3, 1).double()
    rate = over * critical_rate(network, x, "mse", momentum, decay)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
    losses = []
    for _ in range(600):
        optimizer.zero_grad()
        loss = (network(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert (losses[-1] > 100 * losses[0]) == (over > 1)


def test_half_a_squared_error():
    outputs, target = torch.randn(6, 2), torch.randn(6, 2)
    half = NeuralModule(NET, "regression", 2, loss="half_mse").loss(outputs, target)
    assert torch.allclose(half, (outputs - target).square().sum(1).mean() / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam"}, "is of training.optimizer=sgd"),
        ({"loss": "cross_entropy", "task": "classification"}, "is of squared losses"),
        ({"lr_over_critical": 0}, "must be a number above 0"),
    ],
)
def test_where_it_does_not_apply_it_is_refused(options, message):
    options = {"task": "regression", "lr_over_critical": 0.9, **options}
    with pytest.raises(NfaError, match=message):
        NeuralModule(NET, num_outputs=2, **options)


def test_it_is_refused_for_a_network_with_statistics_of_the_batch():
    network = CNN((1, 6, 6), 2, depth=1, width=4, batch_norm=True)
    with pytest.raises(NfaError, match="normalises by statistics of the batch"):
        NeuralModule({}, "regression", 2, lr_over_critical=0.9, network=network)
    with pytest.raises(NfaError, match="not of its expansion"):
        NeuralModule({}, "regression", 2, init_scale=2.0, network=Expansion(MLP((3,), 2)))


# ---- in a run ----------------------------------------------------------------------------------------------


def test_the_quadratic_model_comes_back_from_beyond_where_the_linear_one_diverges(run):
    quadratic = run(*TOY, "model.expand=quadratic", "training.lr_over_critical=1.5", small=False)
    assert quadratic.code == 0, quadratic.err
    facts = quadratic.summary
    assert facts["lr"] == pytest.approx(1.5 * facts["critical_lr"])
    assert float(quadratic.metrics[0]["lr"]) == pytest.approx(facts["lr"])
    assert facts["test/mse"] < 0.25
    linear = run(*TOY, "model.expand=linear", "training.lr_over_critical=1.5", folder="b", small=False)
    assert linear.code != 0 or linear.summary["test/mse"] > 100


def test_the_rate_of_a_resumed_run_is_that_of_its_start(run):
    options = (*TOY, "training.lr_over_critical=0.9", "data.passes=3")
    whole = run(*options, "trainer.max_epochs=3", folder="whole", small=False)
    run(*options, "trainer.max_epochs=1", folder="cut", small=False)
    resumed = run(*options, "trainer.max_epochs=3", "ckpt_path=last", folder="cut", small=False)
    assert resumed.code == 0, resumed.err
    assert resumed.summary["lr"] == whole.summary["lr"]
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("model=mlp", "model.expand=cubic"), "model.expand must be one of linear, quadratic, or null"),
        (("model=cnn", "model.expand=linear"), "normalises by statistics of the batch"),
        (("model=rfm", "+model.expand=linear"), "model.expand"),
        (("model=mlp", "training.lr_over_critical=1.5"), "training.lr_over_critical is of squared losses"),
    ],
)
def test_mistakes_are_one_line(run, options, message):
    done = run(*options)
    assert done.code == 1
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_an_expansion_is_not_measured_by_layers(run):
    done = run("model=mlp", "model.expand=linear", "training.loss=mse")
    assert done.code == 1
    assert "callbacks.ansatz=null" in done.err.strip().splitlines()[-1]


def test_a_run_of_a_variant_is_audited_from_its_folder(run):
    from nfa.zoo import load

    done = run("model=mlp", "model.depth=1", "model.width=8", "model.parameterization=ntk", "callbacks=none")
    assert done.code == 0, done.err
    net = load(f"file:{done.folder}").model
    assert torch.allclose(
        net.hidden1.weight * math.sqrt(64), done.weights["network.hidden1.parametrizations.weight.original"]
    )
