"""Which modules are measured, which are skipped and why, and how layers are chosen."""

import pytest
import torch
from torch import nn

import nfa
from nfa.layers.maps import find_maps, weight_blocks


class Masked(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight.tril())


class Zoo(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.masked = Masked(6, 6)
        self.norm = nn.LayerNorm([3, 6])
        self.up = nn.ConvTranspose1d(3, 3, 1)
        self.rnn = nn.GRU(6, 6, batch_first=True)
        self.free = nn.Parameter(torch.ones(6, 6))
        self.used = nn.Linear(6, 4)
        self.unused = nn.Linear(6, 4)
        self.half = nn.Linear(6, 6).half()
        self.aside = nn.Linear(6, 2)

    def forward(self, tokens):
        x = self.embed(tokens)
        x = self.attention(x, x, x, need_weights=False)[0]
        x, _ = self.rnn(self.up(self.norm(self.masked(x)) @ self.free))
        self.aside(x)
        return self.used(x).mean(1)


@pytest.fixture(scope="module")
def statuses():
    torch.manual_seed(0)
    report = nfa.audit(Zoo(), torch.randint(0, 10, (5, 3)))
    return {row.layer: row.status for row in report.rows}


@pytest.mark.parametrize(
    ("layer", "status"),
    [
        ("used", "ok"),
        ("unused", "skipped: not called in the forward pass"),
        ("aside", "skipped: the output does not depend on it"),
        ("embed", "skipped: its input is an index"),
        ("attention.q", "ok"),
        ("attention.k", "ok"),
        ("attention.v", "ok"),
        ("attention.out_proj", "ok"),
        ("masked", "skipped: Masked replaces the forward"),
        ("norm", "skipped: its weight is elementwise"),
        ("up", "skipped: a transposed convolution"),
        ("rnn.weight_ih_l0", "ok"),
        ("rnn.weight_hh_l0", "ok"),
        ("", "skipped: Zoo.free is not the weight of a linear map"),
        ("half", "skipped: weight of dtype torch.float16"),
    ],
)
def test_every_weight_has_a_row(statuses, layer, status):
    assert statuses[layer].startswith(status)


def test_rows_come_in_the_order_of_the_network(statuses):
    assert list(statuses)[:4] == ["", "embed", "attention.q", "attention.k"]


def test_attention_takes_no_fused_path_around_the_hooks():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    report = nfa.audit(nn.Sequential(layer), torch.randn(4, 3, 8), output_fn=lambda out: out.mean(1))
    measured = [row.layer for row in report.rows if row.measured]
    attention = [f"0.self_attn.{part}" for part in ("q", "k", "v", "out_proj")]
    assert measured == [*attention, "0.linear1", "0.linear2"]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [("*", ["0", "1.0", "1.2"]), ("1.*", ["1.0", "1.2"]), (["0", "1.2"], ["0", "1.2"])],
)
def test_patterns(patterns, names):
    net = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)))
    assert [m.name for m in find_maps(net, patterns)[0]] == names


def test_pattern_that_matches_nothing_names_near_layers():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    with pytest.raises(nfa.NfaError, match=r"'2' matches none of the 2 weights.*0, 1"):
        nfa.audit(net, torch.ones(2, 3), layers="2")


def test_network_without_maps():
    with pytest.raises(nfa.NfaError, match="no linear map to measure"):
        nfa.audit(nn.Sequential(nn.ReLU()), torch.ones(2, 3))


def test_weight_blocks():
    conv = nn.Conv2d(4, 6, (3, 2), groups=2)
    W = weight_blocks(conv)
    assert W.shape == (2, 3, 12)
    assert torch.equal(W[1, 0], conv.weight[3].flatten())
    with pytest.raises(nfa.NfaError, match=r"expected an nn.Linear.*got ReLU"):
        weight_blocks(nn.ReLU())
    with pytest.raises(nfa.NfaError, match="this LazyLinear has no weight yet: call it with an input first"):
        weight_blocks(nn.LazyLinear(3))


def test_reading_a_spectral_norm_does_not_move_it():
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)).train()
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    nfa.neural_feature_matrix(layer)
    find_maps(nn.Sequential(layer))
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [
        ({"num_heads": 4}, {"q": 4, "k": 4, "v": 4}),
        ({"num_heads": 4, "head_dim": 3}, {"q": 4, "k": 2, "v": 2}),  # grouped queries: fewer keys and values
        ({"num_heads": 4, "head_dim": 5}, {"q": 1, "k": 1, "v": 1}),  # heads of a size that does not divide
        ({}, {"q": 1, "k": 1, "v": 1}),
    ],
)
def test_heads_of_separate_projections(sizes, rows):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            vars(self).update(sizes)
            keys = 6 if rows["k"] == 2 else 12
            self.q_proj, self.k_proj, self.v_proj = nn.Linear(8, 12), nn.Linear(8, keys), nn.Linear(8, keys)

    net = Attention()
    maps, _ = find_maps(net, per_head=True)
    for part, count in rows.items():
        own = [m for m in maps if m.module is getattr(net, f"{part}_proj")]
        assert len(own) == count
        assert torch.equal(torch.cat([m.weight()[0] for m in own]), getattr(net, f"{part}_proj").weight)
        assert len({m.out_features for m in own}) == 1
