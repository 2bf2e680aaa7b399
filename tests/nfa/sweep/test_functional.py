"""Attention, packed projections and recurrent layers against nets of plain linear layers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nfa
from nfa.layers.maps import find_maps


def relative(A, B):
    return float((A - B).norm() / B.norm())


def linear_like(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).to(weight.dtype)
    layer.weight.data = weight.detach().clone()
    if bias is not None:
        layer.bias.data = bias.detach().clone()
    return layer


class ExplicitAttention(nn.Module):
    """`nn.MultiheadAttention` (batch first) with four linear layers; returns (outputs, None)."""

    def __init__(self, original):
        super().__init__()
        self.heads, E = original.num_heads, original.embed_dim
        if original.in_proj_weight is not None:
            weights = original.in_proj_weight.split(E)
        else:
            weights = original.q_proj_weight, original.k_proj_weight, original.v_proj_weight
        biases = [None] * 3 if original.in_proj_bias is None else original.in_proj_bias.split(E)
        self.q, self.k, self.v = (linear_like(w, b) for w, b in zip(weights, biases, strict=True))
        self.out_proj = linear_like(original.out_proj.weight, original.out_proj.bias)
        for name in ("bias_k", "bias_v"):
            value = getattr(original, name)
            setattr(self, name, None if value is None else nn.Parameter(value.detach().clone()))
        self.zero = original.add_zero_attn

    def forward(self, query, key, value, mask=None, **_):
        q, k, v = self.q(query), self.k(key), self.v(value)
        if self.bias_k is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), -1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(len(v), -1, -1)], 1)
        if self.zero:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(mask, -torch.inf)
        return self.out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)), None


class AttentionNet(nn.Module):
    def __init__(self, attention, widths, need_weights=False, batch_first=True, mask=None):
        super().__init__()
        self.first = nn.Linear(5, widths[0])
        self.attention = attention
        self.last = nn.Linear(attention.out_proj.out_features, 3)
        self.widths, self.need_weights, self.batch_first, self.mask = widths, need_weights, batch_first, mask

    def forward(self, x):
        h = self.first(x).tanh()
        key, value = h[..., : self.widths[1]].sin(), h[..., : self.widths[2]].cos()
        if isinstance(self.attention, ExplicitAttention):
            out = self.attention(h, key, value, self.mask)[0]
        elif self.batch_first:
            out = self.attention(h, key, value, attn_mask=self.mask, need_weights=self.need_weights)[0]
        else:
            out = self.attention(*(t.transpose(0, 1) for t in (h, key, value)), attn_mask=self.mask)[0]
            out = out.transpose(0, 1)
        return self.last(out.tanh()).mean(1).square()


CAUSAL = torch.ones(4, 4, dtype=torch.bool).triu(1)


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize(
    ("options", "widths", "mask"),
    [
        ({"batch_first": True}, (6, 6, 6), None),
        ({"batch_first": True}, (6, 6, 6), CAUSAL),
        ({"batch_first": False}, (6, 6, 6), None),
        ({"batch_first": True, "bias": False}, (6, 6, 6), None),
        ({"batch_first": True, "kdim": 4, "vdim": 5}, (6, 4, 5), None),
        ({"batch_first": True, "add_bias_kv": True, "add_zero_attn": True}, (6, 6, 6), None),
        ({"batch_first": True, "need_weights": True}, (6, 6, 6), None),
    ],
    ids=["plain", "masked", "sequence-first", "no-bias", "kdim-vdim", "bias-kv-zero", "need-weights"],
)
def test_attention_equals_four_linear_layers(options, widths, mask, chunk):
    torch.manual_seed(0)
    options = dict(options)
    need_weights = options.pop("need_weights", False)
    fused = nn.MultiheadAttention(6, 2, **options).double()
    net = AttentionNet(fused, widths, need_weights, options["batch_first"], mask).double().eval()
    plain = AttentionNet(ExplicitAttention(fused), widths, mask=mask).double().eval()
    plain.first, plain.last = net.first, net.last
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    assert torch.allclose(net(x), plain(x), atol=1e-12)
    ours, theirs = nfa.agop(net, x, chunk=chunk), nfa.agop(plain, x)
    assert list(ours) == list(theirs)
    for name in ours:
        assert relative(ours[name], theirs[name]) < 1e-11, name


def test_heads_are_the_diagonal_blocks_of_the_projections():
    torch.manual_seed(0)
    fused = nn.MultiheadAttention(6, 2, batch_first=True).double()
    net = AttentionNet(fused, (6, 6, 6)).double()
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    whole, heads = nfa.audit(net, x), nfa.audit(net, x, per_head=True)
    names = [row.layer for row in heads.rows]
    assert names == [
        "first", *(f"attention.{p}.head{h}" for p in "qkv" for h in (0, 1)), "attention.out_proj", "last",
    ]  # fmt: skip
    for part in "qkv":
        pair = whole.pair(f"attention.{part}")
        for head, rows in ((0, slice(0, 3)), (1, slice(3, 6))):
            mine = heads.pair(f"attention.{part}.head{head}")
            W, C = pair.weight[0, rows], pair.sensitivity[0, rows, rows]
            assert relative(mine.nfm(), W.mT @ W) < 1e-12
            assert relative(mine.agop(), W.mT @ C @ W) < 1e-11


class Packed(nn.Module):
    """Attention in timm's style; ``style`` says how the packed weight is used."""

    def __init__(self, style):
        super().__init__()
        self.style, self.num_heads = style, 2
        self.first, self.qkv, self.proj = nn.Linear(5, 6), nn.Linear(6, 18), nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        h = self.first(x).tanh()
        qkv = self.qkv  # torchvision's Swin passes its weight to a function
        packed = qkv(h) if self.style == "module" else F.linear(h, qkv.weight, qkv.bias)
        q, k, v = packed.unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        out = (q @ k.transpose(-1, -2) / 3**0.5).softmax(-1) @ v
        out = out.transpose(1, 2).flatten(2)
        out = self.proj(out) if self.style == "module" else F.linear(out, self.proj.weight, self.proj.bias)
        return self.last(out.tanh()).mean(1).square()


@pytest.mark.parametrize("style", ["module", "function"])
def test_packed_projection_is_three_maps(style):
    torch.manual_seed(0)
    net = Packed(style).double()
    attention = nn.MultiheadAttention(6, 2, batch_first=True).double()
    attention.in_proj_weight.data, attention.in_proj_bias.data = net.qkv.weight.data, net.qkv.bias.data
    attention.out_proj = net.proj
    plain = AttentionNet(ExplicitAttention(attention), (6, 6, 6)).double()
    plain.forward = lambda x: plain.last(
        plain.attention(*[plain.first(x).tanh()] * 3)[0].tanh()
    ).mean(1).square()  # fmt: skip
    plain.first, plain.last = net.first, net.last
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    ours, theirs = nfa.agop(net, x), nfa.agop(plain, x)
    assert list(ours) == ["first", "qkv.q", "qkv.k", "qkv.v", "proj", "last"]
    for mine, other in zip(ours.values(), theirs.values(), strict=True):
        assert relative(mine, other) < 1e-11
    assert nfa.audit(net, x).meta["covered"] == 1.0


def test_interleaved_heads_stay_whole():
    net = Packed("module")
    net.head_first = True
    assert [m.name for m in find_maps(net)[0]] == ["first", "qkv", "proj", "last"]


class Conv1D(nn.Module):
    """GPT-2's linear layer: weight (in, out)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], self.nf)


def test_transposed_linear_layer():
    torch.manual_seed(0)
    net = nn.Sequential(Conv1D(4, 5), nn.Tanh(), Conv1D(3, 4), nn.Tanh()).double()
    plain = nn.Sequential(
        linear_like(net[0].weight.mT, net[0].bias),
        nn.Tanh(),
        linear_like(net[2].weight.mT, net[2].bias),
        nn.Tanh(),
    )
    x = torch.randn(6, 5, dtype=torch.float64)
    for name, G in nfa.agop(net, x).items():
        assert relative(G, nfa.agop(plain, x)[name]) < 1e-12
        W = plain.get_submodule(name).weight.detach()
        assert relative(nfa.neural_feature_matrix(net.get_submodule(name)), W.mT @ W) < 1e-12


class Cells(nn.Module):
    """A recurrent network of explicit linear layers with the weights of a fused one; every step anew."""

    def __init__(self, fused):
        super().__init__()
        self.kind, self.hidden = fused.mode, fused.hidden_size
        self.weights = nn.ModuleDict()
        for name, weight in fused.named_parameters():
            if name.startswith("weight"):
                bias = getattr(fused, name.replace("weight", "bias"), None) if "hr" not in name else None
                self.weights[name] = linear_like(weight, bias)
        self.layers, self.directions = fused.num_layers, 2 if fused.bidirectional else 1
        self.proj = fused.proj_size

    def step(self, suffix, x, state):
        h, c = state
        a, b = self.weights[f"weight_ih_{suffix}"](x), self.weights[f"weight_hh_{suffix}"](h)
        if self.kind == "LSTM":
            i, f, g, o = (a + b).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            return (self.weights[f"weight_hr_{suffix}"](h) if self.proj else h), c
        if self.kind == "GRU":
            (ra, za, na), (rb, zb, nb) = a.chunk(3, -1), b.chunk(3, -1)
            z = torch.sigmoid(za + zb)
            return (1 - z) * torch.tanh(na + torch.sigmoid(ra + rb) * nb) + z * h, c
        return (torch.tanh if self.kind == "RNN_TANH" else torch.relu)(a + b), c

    def forward(self, x):
        for layer in range(self.layers):
            outputs = []
            for direction in range(self.directions):
                suffix = f"l{layer}" + ("_reverse" if direction else "")
                steps = list(x.unbind(1))[:: -1 if direction else 1]
                state = (x.new_zeros(len(x), self.proj or self.hidden), x.new_zeros(len(x), self.hidden))
                seen = []
                for step in steps:
                    state = self.step(suffix, step, state)
                    seen.append(state[0])
                outputs.append(torch.stack(seen[:: -1 if direction else 1], 1))
            x = torch.cat(outputs, -1)
        return x, None


class RecurrentNet(nn.Module):
    def __init__(self, body, width):
        super().__init__()
        self.body, self.last = body, nn.Linear(width, 2)

    def forward(self, x):
        return self.last(self.body(x)[0]).mean(1).square()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (nn.RNN, {}), (nn.RNN, {"nonlinearity": "relu"}), (nn.GRU, {"num_layers": 2, "bidirectional": True}),
        (nn.LSTM, {}), (nn.LSTM, {"num_layers": 2, "bidirectional": True, "bias": False}),
        (nn.LSTM, {"proj_size": 2, "num_layers": 2}),
    ],
)  # fmt: skip
def test_recurrent_layers_equal_their_steps(make, options):
    torch.manual_seed(0)
    fused = make(3, 4, batch_first=True, **options).double()
    width = (options.get("proj_size") or 4) * (2 if options.get("bidirectional") else 1)
    net, plain = RecurrentNet(fused, width).double(), RecurrentNet(Cells(fused), width).double()
    plain.last = net.last
    x = torch.randn(2, 3, 3, dtype=torch.float64)
    assert torch.allclose(net(x), plain(x), atol=1e-12)
    ours, theirs = nfa.agop(net, x), nfa.agop(plain, x)
    assert len(ours) == len(theirs) > 2
    for name in ours:
        assert relative(ours[name], theirs[name.replace("body.", "body.weights.")]) < 1e-11, name


@pytest.mark.parametrize("make", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_cells_called_by_hand(make):
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.last = make(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            return self.last(state[0] if isinstance(state, tuple) else state).square()

    net = Net().double()
    fused = {nn.RNNCell: nn.RNN, nn.GRUCell: nn.GRU, nn.LSTMCell: nn.LSTM}[make](3, 4, batch_first=True)
    fused = fused.double()
    fused.load_state_dict({f"{name}_l0": value for name, value in net.cell.state_dict().items()})
    same = nn.Module()
    same.body, same.last = fused, net.last
    same.forward = lambda x: same.last(same.body(x)[0][:, -1]).square()
    x = torch.randn(2, 3, 3, dtype=torch.float64)
    ours, theirs = nfa.agop(net, x), nfa.agop(same, x)
    for mine, other in zip(ours.values(), theirs.values(), strict=True):
        assert relative(mine, other) < 1e-11


def test_packed_sequences_are_skipped_with_a_reason():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.rnn, self.last = nn.Linear(3, 3), nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            lengths = torch.full((len(x),), x.shape[1])
            packed = nn.utils.rnn.pack_padded_sequence(self.first(x), lengths, batch_first=True)
            return self.last(self.rnn(packed)[1][0]).square()

    status = {row.layer: row.status for row in nfa.audit(Net(), torch.randn(3, 4, 3)).rows}
    assert status["first"] == status["last"] == "ok"
    assert status["rnn.weight_ih_l0"].startswith("skipped: its weight_ih_l0 acts inside a fused call")


def test_tied_weights_are_named_and_counted_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body = nn.Embedding(7, 4), nn.Linear(4, 4)
            self.lm_head = nn.Linear(4, 7, bias=False)
            self.lm_head.weight = self.embed.weight

        def forward(self, tokens):
            return self.lm_head(self.body(self.embed(tokens)).tanh())

    report = nfa.audit(Tied(), torch.randint(0, 7, (4, 3)))
    assert report.meta["tied"] == {"embed.weight": ["lm_head.weight"]}
    assert report.meta["covered"] == 1.0
    assert report.row("lm_head").status == "trivial"
    assert "tied to lm_head" in report.row("embed").status


def test_padding_does_not_count():
    torch.manual_seed(0)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body, self.out = nn.Embedding(7, 4), nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, input_ids, attention_mask=None):
            return self.out(self.body(self.embed(input_ids)).tanh()).tanh()

    net = Encoder().double()
    tokens = torch.randint(0, 7, (3, 4))
    padded = torch.cat([tokens, torch.zeros(3, 2, dtype=torch.long)], 1)
    mask = (torch.arange(6) < 4).expand(3, 6).long()
    short = nfa.agop(net, [{"input_ids": tokens}])
    long = nfa.agop(net, [{"input_ids": padded, "attention_mask": mask}])
    for name in short:
        assert relative(long[name], short[name]) < 1e-12
