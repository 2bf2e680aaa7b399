"""C, N and G of layers in a file: they belong together, in the coordinates of the network."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import nfa
from nfa.ansatz.matrices import check_layers, check_size


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 24), torch.nn.Tanh(),
        torch.nn.Linear(24, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3),
    ).double()  # fmt: skip


@pytest.fixture(scope="module")
def audited():
    net, x = network(), torch.randn(40, 6, dtype=torch.float64)
    return net, nfa.audit(net, x), x


def close(a, b):
    return float((a - b).norm()) < 1e-9 * float(b.norm())


def sensitivity(net, x, layer):
    """C from the Jacobian of what follows the layer, with respect to its output."""
    z = net[: layer + 1](x).detach()
    J = torch.func.vmap(torch.func.jacrev(net[layer + 1 :]))(z)
    return (torch.einsum("nki,nkj->ij", J, J) / len(x)).detach()


def test_the_three_of_every_layer_belong_together(audited, tmp_path):
    net, report, x = audited
    report.save_matrices(tmp_path / "m.safetensors")
    found = load_file(tmp_path / "m.safetensors")
    assert set(found) == {f"{layer}/{kind}" for layer in "024" for kind in "CNG"}
    assert {matrix.dtype for matrix in found.values()} == {torch.float64}
    for layer in (0, 2):
        W, (C, N, G) = net[layer].weight.detach(), (found[f"{layer}/{kind}"] for kind in "CNG")
        on_range = W @ torch.linalg.pinv(W)
        assert close(N, W.mT @ W)
        assert close(C, on_range @ sensitivity(net, x, layer) @ on_range)
        assert close(G, W.mT @ C @ W)
        assert close(G, report.pair(str(layer)).agop())


def test_what_is_known_of_a_part_alone_says_so(audited, tmp_path):
    """Layer 0 has more outputs than inputs: C is known on the range of W."""
    _, report, _ = audited
    report.save_matrices(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        facts = file.metadata()
    assert "range of W" in facts["0/C"]
    assert "2/C" not in facts


def test_a_grouped_convolution_has_a_matrix_a_group(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(4, 6, 3, groups=2), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(24, 3)
    )
    report = nfa.audit(net, torch.randn(20, 4, 4, 4))
    report.save_matrices(tmp_path / "m.safetensors", "0")
    found = load_file(tmp_path / "m.safetensors")
    assert {name: tuple(matrix.shape) for name, matrix in found.items()} == {
        "0/C": (2, 3, 3), "0/N": (2, 18, 18), "0/G": (2, 18, 18)
    }  # fmt: skip
    W = net[0].weight.detach().double().reshape(2, 3, 18)
    assert close(found["0/G"], W.mT @ found["0/C"] @ W)


@pytest.mark.parametrize("layers", ["nothing*", "[0", "", [], ["2", "x"], 3, ["2", 3]])
def test_malformed_patterns_write_nothing(audited, tmp_path, layers):
    with pytest.raises(nfa.NfaError) as error:
        audited[1].save_matrices(tmp_path / "m.safetensors", layers)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_brackets_is_a_name():
    assert check_layers(["a[0]"], ["a[0]", "a0"]) == ["a[0]", "a0"]
    assert check_layers(["*.0", "b"], ["b", "a.1", "a.0"]) == ["b", "a.0"]


def test_more_than_was_agreed_to_is_refused(audited, tmp_path):
    _, report, _ = audited
    with pytest.raises(nfa.NfaError, match=r"limit of 1 kB \(0 alone 5.18 kB\).*max_bytes="):
        report.save_matrices(tmp_path / "m.safetensors", "0", max_bytes=1000)
    assert list(tmp_path.iterdir()) == []
    report.save_matrices(tmp_path / "m.safetensors", "0", max_bytes=8 * (24 * 24 + 2 * 6 * 6))
    for wrong in (0, -1, "much", float("nan")):
        with pytest.raises(nfa.NfaError, match="max_bytes"):
            report.save_matrices(tmp_path / "m.safetensors", max_bytes=wrong)


def test_sizes_are_told_in_units_that_are_read():
    with pytest.raises(nfa.NfaError, match=r"take 10.1 GB, more than the limit of 1 GB \(fc alone 10.1 GB\)"):
        check_size({"fc": (1, 100, 25088), "conv": (2, 4, 9)}, 1e9)


def test_a_report_without_matrices_says_so(audited, tmp_path):
    audited[1].save(tmp_path / "audit.json")
    with pytest.raises(nfa.NfaError, match="read from a file"):
        nfa.AnsatzReport.load(tmp_path / "audit.json").save_matrices(tmp_path / "m.safetensors")
    with pytest.raises(nfa.NfaError, match="no measured layer"):
        nfa.AnsatzReport().save_matrices(tmp_path / "m.safetensors")
