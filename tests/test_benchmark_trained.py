"""benchmarks/trained.py on tiny networks: rows, tables, and what is left out."""

import sys

import pytest
import torch
from torch import nn

from benchmarks import trained as benchmark
from nfa.ansatz.row import read_csv
from nfa.errors import NfaError

networks = sys.modules["trained_networks"]


def tiny(sources):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    return networks.Trained(net, torch.randn(24, 4).split(6), "24 samples", "exact")


def missing(sources):
    raise NfaError("its package is not installed")


def test_rows_and_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "NETWORKS", {"tiny": ("Tiny", tiny), "gone": ("Gone", missing)})
    monkeypatch.setattr(sys, "argv", ["trained.py", "--out", str(tmp_path / "o")])
    benchmark.main()
    out = capsys.readouterr().out
    assert "left out: Gone: its package is not installed" in out
    assert "| Tiny | 2 | " in out  # the last map, on raw logits, is left out
    assert [row.layer for row in read_csv(tmp_path / "o" / "tiny.csv")] == ["0", "2", "4"]
    assert "| `0` | " in benchmark.by_layer(read_csv(tmp_path / "o" / "tiny.csv")[:2])


def test_a_name_that_is_none(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["trained.py", "--out", "o", "alexnet"])
    with pytest.raises(SystemExit):
        benchmark.main()


def test_a_folded_normalisation_gives_the_same_outputs():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    )
    for norm in (net[1], net[4]):
        norm.running_var.uniform_(0.5, 2)
        norm.weight.data.uniform_(0.5, 2)
    x = torch.randn(2, 2, 9, 9)
    expected, before = net.eval()(x), net[0].weight.clone()
    folded = networks.folded(networks.Trained(net, [x], "two", "exact")).model
    torch.testing.assert_close(folded(x), expected)
    assert isinstance(folded[1], nn.Identity)
    assert not torch.allclose(folded[0].weight, before)


def test_a_layer_norm_of_constant_scale_gives_the_same_and_another_gradient():
    norm, constant = nn.LayerNorm(5), networks.ConstantLayerNorm(5)
    x = torch.randn(3, 5, requires_grad=True)
    torch.testing.assert_close(constant(x), norm(x))
    (free,) = torch.autograd.grad(norm(x)[:, 0].sum(), x)
    (fixed,) = torch.autograd.grad(constant(x)[:, 0].sum(), x)
    assert float(free.sum(1).abs().max()) < 1e-6
    assert float(fixed.sum(1).abs().max()) > 0.1


def test_sounds_have_bands():
    mels = networks.mel_spectrogram(networks.tones(2, 4000))
    assert mels.shape == (2, 26, 40)
    assert bool((mels >= 0).all() and (mels.sum((0, 1)) > 0).all())
    embedding = networks.VoiceEncoder(normalised=True)(mels)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    assert networks.Crepe()(networks.tones(2, 1024)).shape == (2, 360)
