"""The fast AGOP of every case against per-sample Jacobians over explicit patches, and the probes."""

import pytest
import torch
from torch import nn

import nfa
from nfa import reference
from nfa.layers.maps import find_maps
from nfa.sweep.measure import build, measure_sensitivities
from tests.nfa.cases import CASES, Case


def batch_of(case: Case):
    inputs = case.inputs()
    return (inputs, None) if isinstance(inputs, tuple) else inputs


def relative(A, B):
    return float((A - B).norm() / B.norm()) if float(B.norm()) else float(A.norm())


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agop_equals_reference(case, chunk):
    model = case.build()
    fast = nfa.agop(model, [batch_of(case)], output_fn=case.output_fn, chunk=chunk)
    for name in case.layer_names(model):
        slow = reference.layer_agop(model, case.inputs(), name, output_fn=case.output_fn)
        assert relative(fast[name].reshape(slow.shape), slow) < 1e-9, name
        nfm = nfa.neural_feature_matrix(model.get_submodule(name))
        assert relative(nfm.reshape(slow.shape), reference.layer_nfm(model.get_submodule(name))) < 1e-12


@pytest.mark.parametrize("case", CASES[::4], ids=lambda case: case.name)
def test_centered_agop_equals_reference(case):
    model = case.build()
    fast = nfa.agop(model, [batch_of(case)], output_fn=case.output_fn, centered=True)
    for name in case.layer_names(model):
        slow = reference.centered_layer_agop(model, case.inputs(), name, output_fn=case.output_fn)
        assert float((fast[name].reshape(slow.shape) - slow).norm()) < 1e-9 * max(1.0, float(slow.norm()))


def conv_net(width=6):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        nn.Conv2d(width, 2 * width, 3, stride=2), nn.Tanh(),
        nn.Flatten(), nn.Linear(2 * width * 9, 5),
    ).double()  # fmt: skip


def test_batches_samples_and_their_order_do_not_matter():
    net, x = conv_net(), torch.randn(10, 2, 7, 7, dtype=torch.float64)
    whole = nfa.agop(net, x)
    parts = nfa.agop(net, [x[7:], x[:3], x[3:7]])
    for name in whole:
        assert relative(parts[name], whole[name]) < 1e-12


def test_max_samples_takes_the_first_ones():
    net, x = conv_net(), torch.randn(10, 2, 7, 7, dtype=torch.float64)
    first = nfa.agop(net, x[:5])
    limited = nfa.agop(net, [x[:3], x[3:6], x[6:]], max_samples=5)
    assert all(relative(limited[name], first[name]) < 1e-12 for name in first)


@pytest.mark.parametrize("output", ["softmax", "log_softmax", "loss"])
def test_other_outputs_equal_the_reference_on_the_composed_model(output):
    net, x = conv_net(), torch.randn(4, 2, 7, 7, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 4])

    def composed(logits):
        if output == "loss":
            return -logits.log_softmax(-1).gather(1, y_of_sample[None, None].expand(len(logits), 1))
        return getattr(logits, output)(-1)

    fast = nfa.agop(net, [(x, y)], output=output)["3"]
    slow = 0
    for i in range(len(x)):
        y_of_sample = y[i]
        slow = slow + reference.layer_agop(net, x[i : i + 1], "3", output_fn=composed)[0] / len(x)
    assert relative(fast, slow) < 1e-9


def test_regression_loss_is_the_mean_squared_error():
    net = nn.Linear(3, 2).double()
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    delta = (net(x) - y).detach()  # d/dz of the mean of two squares
    expected = net.weight.detach().T @ (delta.T @ delta / 5) @ net.weight.detach()
    assert relative(nfa.agop(nn.Sequential(net), [(x, y)], output="loss")["0"], expected) < 1e-12


def test_input_agop_is_the_mean_outer_product_of_input_gradients():
    net, x = conv_net(), torch.randn(3, 2, 7, 7, dtype=torch.float64)
    J = torch.func.vmap(torch.func.jacrev(lambda one: net.eval()(one[None])[0]))(x).flatten(2)
    expected = torch.einsum("nki,nkj->ij", J, J).detach() / 3
    assert relative(nfa.input_agop(net, x), expected) < 1e-11


def test_keyword_batches_and_two_arguments():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.map = nn.Linear(3, 4)

        def forward(self, a, b):
            return {"logits": torch.tanh(self.map(a)) * b}

    net = Two().double()
    a, b = torch.randn(5, 3).double(), torch.randn(5, 4).double()
    assert torch.equal(nfa.agop(net, [{"a": a, "b": b}])["map"], nfa.agop(net, [((a, b), None)])["map"])


def test_float32_sums_keep_six_digits_over_1e5_samples():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    x = torch.randn(100_000, 8)
    single = nfa.agop(net, x.split(512))["0"]
    double = nfa.agop(net.double(), x.double().split(512))["0"]
    assert relative(single, double) < 1e-6


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e18])
def test_float32_gradients_far_from_one_are_not_lost(scale):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    x = torch.randn(64, 8)
    plain = nfa.audit(net, x, power=1.0).rows[0]
    scaled = nfa.audit(net, x, power=1.0, output_fn=lambda out: out * scale).rows[0]
    assert scaled.cosine == pytest.approx(plain.cosine, rel=1e-5)
    assert scaled.alignment == pytest.approx(plain.alignment, rel=1e-4)


# ---- probes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def probe_repeats():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5)).double()
    x = torch.randn(12, 6, dtype=torch.float64)
    exact = nfa.audit(net, x, power=1.0, nulls=0)
    repeats = [nfa.audit(net, x, power=1.0, nulls=0, probes=8, seed=s) for s in range(400)]
    return exact, repeats


@pytest.mark.parametrize("layer", ["0", "2"])
def test_probes_are_unbiased(probe_repeats, layer):
    exact, repeats = probe_repeats
    G = torch.stack([r.pair(layer).agop() for r in repeats])
    deviation = (G.mean(0) - exact.pair(layer).agop()) / (G.std(0) / len(G) ** 0.5)
    assert float(deviation.square().mean()) < 1.5  # 1 for an unbiased estimate; entries are correlated
    trace = G.diagonal(dim1=1, dim2=2).sum(1)
    assert (
        abs(float(trace.mean() - exact.pair(layer).agop().trace())) < 3 * float(trace.std()) / len(G) ** 0.5
    )


@pytest.mark.parametrize("layer", ["0", "2"])
def test_reported_standard_error_is_the_empirical_one(probe_repeats, layer):
    _, repeats = probe_repeats
    cosines = torch.tensor([r.row(layer).cosine for r in repeats])
    reported = torch.tensor([r.row(layer).stderr for r in repeats]).square().mean().sqrt()
    assert float(reported / cosines.std()) == pytest.approx(
        2.36 / 1.96, abs=0.3
    )  # Student's t of 7, over normal


def test_many_probes_reach_the_exact_value_and_chunks_draw_the_same_signs():
    net, x = conv_net(), torch.randn(4, 2, 7, 7, dtype=torch.float64)
    exact = nfa.agop(net, x)
    one = nfa.agop(net, x, probes=600)
    assert all(relative(one[name], exact[name]) < 0.1 for name in exact)
    plain = nfa.agop(net, x, probes=4)
    chunked = nfa.agop(net, x, probes=4, chunk=4)
    assert all(relative(chunked[name], plain[name]) < 1e-12 for name in exact)


def test_exact_standard_error_covers_the_sampling():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    rows = []
    for s in range(60):
        x = torch.randn(64, 6, generator=torch.Generator().manual_seed(s), dtype=torch.float64)
        rows.append(nfa.audit(net, x.split(8), layers="0", nulls=0, power=1.0).rows[0])
    empirical = torch.tensor([r.cosine for r in rows]).std()
    reported = torch.tensor([r.stderr for r in rows]).square().mean().sqrt()
    assert float(reported / empirical) == pytest.approx(1, abs=0.35)


# ---- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "options", "x"),
    [
        ("no samples", {}, []),
        ("no samples", {}, torch.zeros(0, 4)),
        ("not finite", {}, torch.full((2, 4), float("nan"))),
        ("probes must be a whole number of 1 or more", {"probes": 0}, torch.ones(2, 4)),
        ("chunk must be a whole number of 1 or more", {"chunk": 0}, torch.ones(2, 4)),
        ("max_samples must be a whole number of 1 or more", {"max_samples": 0}, torch.ones(2, 4)),
        ("centered=True needs", {"probes": 3, "centered": True}, torch.ones(2, 4)),
        ("output must be one of", {"output": "hinge"}, torch.ones(2, 4)),
        ("needs batches of pairs", {"output": "loss"}, torch.ones(2, 4)),
        ("count the 2 samples", {"output_fn": lambda out: out[:1]}, torch.ones(2, 4)),
        ("one floating tensor", {"output_fn": lambda out: {"a": out}}, torch.ones(2, 4)),
        ("does not depend on any measured layer", {"output_fn": lambda out: out.detach()}, torch.ones(2, 4)),
        ("a batch must be", {}, [3]),
    ],
)
def test_bad_input_is_one_clear_error(message, options, x):
    with pytest.raises(nfa.NfaError, match=message):
        nfa.agop(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), x, **options)


def test_batch_statistics_and_nan_weights_are_refused():
    with pytest.raises(nfa.NfaError, match="no running statistics"):
        nfa.agop(
            nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)), torch.ones(2, 4)
        )
    net = nn.Linear(4, 3)
    nn.init.constant_(net.weight, float("nan"))
    with pytest.raises(nfa.NfaError, match="outputs on batch 0 are not finite"):
        nfa.agop(net, torch.ones(2, 4))


def test_lazy_network_is_built_by_its_first_batch():
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2))
    x = torch.randn(3, 1, 5, 5)
    build(net, x)
    maps, _ = find_maps(net)
    assert [m.in_features for m in maps] == [9, 36]
    assert set(measure_sensitivities(net, x, maps).sensitivities) == {"0", "2"}
