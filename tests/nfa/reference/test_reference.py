"""The oracle against central differences, numpy, and values that can be worked out by hand."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nfa import reference
from nfa.reference.linear_rows import patches
from nfa.reference.statistics import haar_orthogonal
from tests.nfa.cases import CASES

# Smooth, or piecewise linear with no kink within a difference step of these inputs.
DIFFERENCED = (
    "linear-3d-tokens",
    "large-bias",
    "conv1d",
    "conv3d",
    "conv2d-everything",
    "depthwise-multiplier-2",
    "padding-same-even-kernel",
    "padding-reflect",
    "residual-block",
    "batch-norm-train-mode",
    "dropout-train-mode",
    "max-pool-mean-pool",
    "in-place-after-first",
    "in-place-after-3d-linear",
    "in-place-after-conv",
    "shared-module-recurrent",
    "shared-module-two-scales",
    "spectral-norm-train-mode",
    "dict-output",
    "two-inputs",
    "vision-transformer",
)
BY_NAME = {case.name: case for case in CASES}


def case_id(case):
    return case.name


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def psd(*shape, seed=0):
    A = gaussian(*shape, seed=seed)
    return A @ A.mT


def grouped_weight(module):
    """Effective weight ``(groups, out, in)``, read in eval mode."""
    module = copy.deepcopy(module).eval()
    groups = getattr(module, "groups", 1)
    return module.weight.detach().reshape(groups, module.weight.shape[0] // groups, -1)


def relative_error(actual, expected):
    return float((actual - expected).norm() / expected.norm())


def difference_rows(model, inputs, name, output_fn, step=1e-5):
    """Central differences of all outputs with respect to every patch entry, by hooks on the output.

    Moving entry j of one patch by ``step`` moves the map's output at that row by ``step · W[:, j]``.

    Returns:
        One ``(outputs, groups, in)`` array for each sample and row (all calls).
    """
    model = copy.deepcopy(model).eval()
    module = model.get_submodule(name)
    W = grouped_weight(module)
    groups, out, features = W.shape
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    state = {}

    def hook(module, _, z):
        call = state["call"]
        state["call"] += 1
        rows = z if isinstance(module, nn.Linear) else z.movedim(1, -1)
        state["rows"].append(rows.numel() // rows.shape[-1])
        if call == state["move"][0]:
            rows = rows.clone()
            flat = rows.view(-1, groups, out)
            flat[state["move"][1], state["move"][2]] += state["move"][3]
            return rows if isinstance(module, nn.Linear) else rows.movedim(-1, 1)
        return z

    def outputs(sample, move):
        state.update(call=0, rows=[], move=move)
        raw = model(*sample)
        return (raw if output_fn is None else output_fn(raw)).flatten()

    found = []
    handle = module.register_forward_hook(hook)
    with torch.no_grad():
        for i in range(len(args[0])):
            sample = tuple(x[i : i + 1] for x in args)
            outputs(sample, (None,))
            for call, rows in enumerate(list(state["rows"])):
                for row in range(rows):
                    columns = [
                        outputs(sample, (call, row, g, step * W[g, :, j]))
                        - outputs(sample, (call, row, g, -step * W[g, :, j]))
                        for g, j in itertools.product(range(groups), range(features))
                    ]
                    found.append(torch.stack(columns, dim=-1).unflatten(-1, (groups, features)) / (2 * step))
    handle.remove()
    return found


def snapshot(model):
    """Everything about a model that measuring it must not change."""
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [(m.training, "forward" in vars(m), len(m._forward_hooks)) for m in model.modules()]
    return tensors, flags, [(p.requires_grad, p.grad) for p in model.parameters()]


# gradients


@pytest.mark.parametrize("case", [BY_NAME[name] for name in DIFFERENCED], ids=case_id)
def test_agop_and_centered_agop_are_central_differences(case):
    model, inputs = case.build(), case.inputs()
    name = case.layer_names(model)[0]
    n = len(inputs[0] if isinstance(inputs, tuple) else inputs)
    rows = torch.stack(difference_rows(model, inputs, name, case.output_fn))
    for agop, r in (
        (reference.layer_agop, rows),
        (reference.centered_layer_agop, rows - rows.mean(dim=0)),
    ):
        expected = torch.einsum("rkgi,rkgj->gij", r, r) / n
        actual = agop(model, inputs, name, output_fn=case.output_fn)
        assert relative_error(actual, expected) < 1e-7


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_agop_is_sensitivity_between_weights_and_the_model_is_left_alone(case):
    model, inputs = case.build(), case.inputs()
    if case.name.startswith("lazy-unbuilt"):
        model(inputs)
    before = snapshot(model)
    rng = torch.get_rng_state()
    for name in case.layer_names(model):
        W = grouped_weight(model.get_submodule(name))
        with torch.no_grad():  # the caller's grad mode does not matter
            G = reference.layer_agop(model, inputs, name, output_fn=case.output_fn)
            C = reference.layer_sensitivity(model, inputs, name, output_fn=case.output_fn)
            N = reference.layer_nfm(model.get_submodule(name))
        assert G.dtype == C.dtype == N.dtype == torch.float64
        assert G.norm() > 0
        assert relative_error(G, W.mT @ C @ W) < 1e-12
        assert relative_error(N, W.mT @ W) < 1e-12
    torch.testing.assert_close(snapshot(model), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), rng)


def test_a_case_builds_the_same_model_every_time_and_leaves_the_generator_alone():
    assert len({case.name for case in CASES}) == len(CASES) >= 32
    rng = torch.get_rng_state()
    for case in CASES:
        if not case.name.startswith("lazy-unbuilt"):
            first, second = case.build(), case.build()
            torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
            assert {p.dtype for p in first.parameters()} == {torch.float64}
            assert first.training == case.name.endswith("train-mode")
    assert torch.equal(torch.get_rng_state(), rng)


# values that can be worked out by hand


def test_linear_net_has_agop_of_products():
    """f(x) = V W x: r = Wᵀ v_k for every sample, so G = Wᵀ Vᵀ V W, and V's own C is the identity."""
    W, V = nn.Linear(5, 4).double(), nn.Linear(4, 3).double()
    model, x = nn.Sequential(W, V), gaussian(4, 5)
    w, v = W.weight.detach(), V.weight.detach()
    torch.testing.assert_close(reference.layer_agop(model, x, "0")[0], w.T @ v.T @ v @ w)
    torch.testing.assert_close(reference.layer_agop(model, x, "1"), reference.layer_nfm(V))
    torch.testing.assert_close(reference.layer_sensitivity(model, x, "1")[0], torch.eye(3).double())
    assert reference.centered_layer_agop(model, x, "0").norm() < 1e-14


def test_square_unit_has_agop_of_inputs():
    """f(x) = (w·x)²: r = 2 (w·x) w, G = 4 mean((w·x)²) w wᵀ, centred with the variance of w·x."""
    model, x = BY_NAME["square"].build()[:2], gaussian(4, 5)
    model[0] = nn.Linear(5, 1, bias=False).double()
    w = model[0].weight.detach()
    p = (x @ w.T).flatten()
    torch.testing.assert_close(reference.layer_agop(model, x, "0")[0], 4 * (p**2).mean() * w.T @ w)
    centered = 4 * p.var(correction=0) * w.T @ w
    torch.testing.assert_close(reference.centered_layer_agop(model, x, "0")[0], centered)


def test_calls_of_a_shared_module_are_separate_rows_and_the_first_runs_through_the_second():
    """f(x) = w (w x): r = w² for the first call and w for the second, so G = w⁴ + w²."""
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(layer.weight, 3.0)
    model = nn.Sequential(layer, layer)
    assert float(reference.layer_agop(model, gaussian(3, 1), "0")) == pytest.approx(3.0**4 + 3.0**2)
    assert float(reference.layer_sensitivity(model, gaussian(3, 1), "0")) == pytest.approx(3.0**2 + 1)


def test_mean_runs_over_samples_and_sum_over_outputs_and_tokens():
    model, x = BY_NAME["token-outputs"].build(), BY_NAME["token-outputs"].inputs()
    G = reference.layer_agop(model, x, "0")
    torch.testing.assert_close(reference.layer_agop(model, torch.cat([x, x]), "0"), G)
    per_token = [reference.layer_agop(model, x[:, t : t + 1], "0") for t in range(x.shape[1])]
    torch.testing.assert_close(sum(per_token), G)
    parts = [reference.layer_agop(model, x, "0", output_fn=lambda f, c=c: f[..., c]) for c in range(5)]
    torch.testing.assert_close(sum(parts), G)


def test_a_block_on_the_skip_path_is_not_differentiated():
    """f(x) = x + w x: r is w, the gradient with respect to the layer's own input, not 1 + w."""
    layer = nn.Linear(1, 1).double()

    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return x + self.layer(x)

    G = reference.layer_agop(Skip(), gaussian(3, 1), "layer")
    torch.testing.assert_close(G[0], (layer.weight**2).detach())


@pytest.mark.parametrize("stride", [1, 2])
def test_patches_of_a_plain_convolution_are_those_of_unfold(stride):
    conv, x = nn.Conv2d(2, 3, (3, 2), stride=stride, padding=1, dilation=(1, 2)), gaussian(2, 2, 5, 6)
    expected = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    actual = patches(conv, x)[:, 0]
    assert torch.equal(actual, expected.mT.reshape(-1, 12))


def test_overlapping_patches_are_independent_variables():
    """Filter (1, 1) on 3 pixels, f = Σ z: two patches, gradient (1, 1) each; the pixels' is (1, 2, 1)."""
    conv = nn.Conv1d(1, 1, 2, bias=False).double()
    nn.init.ones_(conv.weight)
    G = reference.layer_agop(conv, gaussian(2, 1, 3), "", output_fn=lambda z: z.sum(dim=2))
    torch.testing.assert_close(G[0], torch.full((2, 2), 2.0).double())


def test_1x1_convolution_is_a_linear_layer_on_pixels():
    conv, head, x = nn.Conv2d(3, 4, 1).double(), nn.Linear(4, 2).double(), gaussian(3, 3, 2, 4)
    layer = nn.Linear(3, 4).double()
    layer.weight.data, layer.bias.data = conv.weight.data.flatten(1), conv.bias.data
    pixels = nn.Sequential(conv, nn.Tanh(), nn.Flatten(2))
    tokens = nn.Sequential(layer, nn.Tanh())
    for measure in (reference.layer_agop, reference.centered_layer_agop, reference.layer_sensitivity):
        on_pixels = measure(pixels, x, "0", output_fn=lambda z: head(z.mean(dim=2)))
        on_tokens = measure(tokens, x.flatten(2).mT, "0", output_fn=lambda z: head(z.mean(dim=1)))
        torch.testing.assert_close(on_pixels, on_tokens)
    torch.testing.assert_close(reference.layer_nfm(conv), reference.layer_nfm(layer))


def test_grouped_convolution_has_the_diagonal_blocks_of_the_dense_one():
    grouped = nn.Conv1d(4, 6, 2, groups=2).double()
    dense = nn.Conv1d(4, 6, 2).double()
    dense.bias.data = grouped.bias.data
    dense.weight.data = torch.zeros(6, 4, 2).double()
    dense.weight.data[:3, :2], dense.weight.data[3:, 2:] = grouped.weight.data[:3], grouped.weight.data[3:]
    x = gaussian(3, 4, 4)
    G = reference.layer_agop(nn.Sequential(grouped, nn.Softplus()), x, "0")
    full = reference.layer_agop(nn.Sequential(dense, nn.Softplus()), x, "0")[0]
    torch.testing.assert_close(G, torch.stack([full[:4, :4], full[4:, 4:]]))


# what is refused


def test_refusals_name_what_came():
    x = gaussian(2, 3)
    with pytest.raises(TypeError, match="Tanh"):
        reference.layer_agop(nn.Sequential(nn.Linear(3, 2).double(), nn.Tanh()), x, "1")
    with pytest.raises(TypeError, match="ConvTranspose1d"):
        reference.layer_nfm(nn.ConvTranspose1d(2, 2, 3))
    with pytest.raises(TypeError, match="tuple"):
        reference.layer_agop(BY_NAME["tuple-output"].build(), BY_NAME["tuple-output"].inputs(), "first")
    unused = nn.Sequential(nn.Linear(3, 2).double())
    unused[0].spare = nn.Linear(3, 2).double()
    with pytest.raises(ValueError, match=r"0\.spare"):
        reference.layer_agop(unused, x, "0.spare")
    assert "forward" not in vars(unused[0].spare)


# statistics


def test_matrix_power_composes_and_clips():
    G = psd(2, 4, 4)
    half = reference.matrix_power(G, 0.5)
    torch.testing.assert_close(half @ half, G)
    torch.testing.assert_close(reference.matrix_power(G, 1.0), G)
    torch.testing.assert_close(reference.matrix_power(G, 2.0), G @ G)
    indefinite = torch.diag(torch.tensor([4.0, -1.0, 0.0]).double())
    expected = torch.diag(torch.tensor([2.0, 0.0, 0.0]).double())
    torch.testing.assert_close(reference.matrix_power(indefinite, 0.5), expected)


def test_correlations_agree_with_numpy():
    A, B = psd(2, 4, 3, seed=1), psd(2, 4, 5, seed=2)
    a, b = A.numpy(), B.numpy()
    assert reference.cosine(A, B) == pytest.approx((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))
    assert reference.pearson(A, B) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    off = np.broadcast_to(~np.eye(4, dtype=bool), a.shape)
    assert reference.offdiag_pearson(A, B) == pytest.approx(np.corrcoef(a[off], b[off])[0, 1])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_correlations_are_nan_exactly_where_undefined(scale):
    A, zero, constant = scale * psd(1, 3, 4), torch.zeros(1, 3, 3), torch.full((1, 3, 3), 0.1 * scale)
    for similarity in (reference.cosine, reference.pearson, reference.offdiag_pearson):
        assert math.isnan(similarity(A, zero))
        assert similarity(A, scale * A) == pytest.approx(1.0)
    assert math.isnan(reference.pearson(A, constant))
    assert math.isnan(reference.offdiag_pearson(A, torch.eye(3)[None]))
    assert math.isnan(reference.offdiag_pearson(A[:, :1, :1], A[:, :1, :1]))
    assert not math.isnan(reference.cosine(A, constant))


def test_alignment_of_two_by_two_matrices():
    """WWᵀ = diag(4, 1) has traceless part 3/2 diag(1, -1), C has diag(1, -1) and 1 off the diagonal."""
    W = torch.diag(torch.tensor([2.0, 1.0]))[None]
    C = torch.tensor([[[5.0, 1.0], [1.0, 3.0]]])
    rho, z = reference.alignment(W, C)
    assert rho == pytest.approx(1 / math.sqrt(2))
    assert z == pytest.approx(rho * math.sqrt(2))  # r(r+1)/2 - 1 = 2 degrees of freedom


def test_alignment_sees_only_the_range_of_the_weight():
    W = gaussian(2, 5, 3, seed=1)
    C = psd(2, 5, 5, seed=2)
    U = torch.linalg.qr(W).Q
    outside = torch.eye(5).double() - U @ U.mT
    shifted = C + 7 * outside @ psd(2, 5, 5, seed=3) @ outside
    assert reference.alignment(W, shifted) == pytest.approx(reference.alignment(W, C))
    assert reference.alignment(W, W @ W.mT) == pytest.approx((1.0, math.sqrt(2 * 6 - 1)))
    identity = torch.eye(5).double().expand(2, 5, 5)
    assert all(math.isnan(value) for value in reference.alignment(W, identity))
    assert all(math.isnan(value) for value in reference.alignment(torch.zeros(1, 3, 2), torch.eye(3)[None]))
    assert all(math.isnan(value) for value in reference.alignment(W[:1, :, :1], C[:1]))


def test_alignment_has_unit_variance_under_rotation():
    W = gaussian(1, 6, 4, seed=4)
    U, C = torch.linalg.qr(W[0]).Q, psd(4, 4, seed=5)
    generator = torch.Generator().manual_seed(0)
    z = []
    for _ in range(600):
        Q = haar_orthogonal(4, generator)
        z.append(reference.alignment(W, (U @ Q @ C @ Q.T @ U.T)[None])[1])
    assert abs(np.mean(z)) < 4 / math.sqrt(600)
    assert np.std(z) == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize("alpha", [0.5, 0.75, 1.0, 2.0])
def test_alpha_fit_recovers_the_exponent_of_an_exact_ansatz(alpha):
    """C = (WWᵀ)^(1/α - 1) makes N = G^α; the fit reads α off the left side."""
    W = gaussian(2, 3, 5, seed=6)
    C = reference.matrix_power(W @ W.mT, 1 / alpha - 1)
    fitted, correlation = reference.alpha_fit(W, C)
    assert fitted == pytest.approx(alpha)
    if alpha == 1.0:
        assert math.isnan(correlation)
    else:
        assert correlation == pytest.approx(math.copysign(1.0, 1 / alpha - 1))
    N, G = W.mT @ W, W.mT @ C @ W
    assert reference.cosine(N, reference.matrix_power(G, alpha)) == pytest.approx(1.0)


def test_alpha_fit_is_undefined_without_a_slope():
    orthogonal = torch.linalg.qr(gaussian(4, 4)).Q[None]
    assert all(math.isnan(value) for value in reference.alpha_fit(orthogonal, psd(1, 4, 4)))
    assert all(math.isnan(value) for value in reference.alpha_fit(gaussian(1, 1, 4), psd(1, 1, 1)))


def test_haar_null_of_an_isotropic_sensitivity_is_the_isotropic_cosine():
    W = gaussian(2, 5, 3, seed=7)
    null = reference.haar_null(W, torch.eye(5).double().expand(2, 5, 5), 0.5, draws=3, seed=0)
    N = W.mT @ W
    expected = reference.cosine(N, reference.matrix_power(N, 0.5))
    torch.testing.assert_close(null, torch.full((3,), expected).double())


def test_haar_null_in_one_dimension_cannot_move():
    W, C = gaussian(2, 1, 3, seed=8), psd(2, 1, 1, seed=9)
    null = reference.haar_null(W, C, 1.0, draws=2, seed=0)
    assert null.tolist() == pytest.approx([reference.cosine(W.mT @ W, W.mT @ C @ W)] * 2)


def test_haar_null_is_seeded_and_varies():
    W, C = gaussian(1, 4, 6, seed=10), psd(1, 4, 2, seed=11)
    null = reference.haar_null(W, C, 1.0, draws=50, seed=3)
    assert torch.equal(null[:5], reference.haar_null(W, C, 1.0, draws=5, seed=3))
    assert 0.01 < null.std() < 0.5
    assert null.max() < 1


def test_haar_rotations_are_orthogonal_and_average_a_matrix_to_its_trace():
    C, draws = psd(3, 3, seed=12), 600
    generator = torch.Generator().manual_seed(0)
    Q = torch.stack([haar_orthogonal(3, generator) for _ in range(draws)])
    eye = torch.eye(3).double()
    torch.testing.assert_close(Q @ Q.mT, eye.expand(draws, 3, 3))
    rotated = Q @ C @ Q.mT
    standard_error = rotated.std(dim=0) / math.sqrt(draws)
    assert ((rotated.mean(dim=0) - C.trace() / 3 * eye).abs() < 4 * standard_error).all()
