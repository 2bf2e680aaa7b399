"""Ways of networks and of measurements that are seldom taken: each against the same thing done plainly."""

import contextlib
import dataclasses
import functools
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import nfa
from nfa.sweep import recurrent
from nfa.sweep.measure import _on_device

D = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def relative(A, B):
    return float((A - B).detach().norm() / B.detach().norm())


def seeded(build):
    torch.manual_seed(0)
    return build().double()


# ---- losses of padded tokens -------------------------------------------------------------------------------


class Tagger(nn.Module):
    """A class for each token, from the token and the mean of those that count before it."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.mix, self.head = nn.Linear(6, 7), nn.Linear(7, 4)

    def forward(self, input_ids, attention_mask=None):
        h = self.embed(input_ids)
        return self.head(self.mix(h.cumsum(1) / torch.arange(1, h.shape[1] + 1)[:, None]).tanh())


@pytest.mark.parametrize("options", [{}, {"chunk": 4}], ids=str)
def test_losses_of_padding_do_not_count(options):
    net = seeded(Tagger)
    ids = torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(1))
    labels = torch.randint(4, (2, 5), generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    found = nfa.agop(net, [batch], output="loss", **options)
    alone = [
        nfa.agop(net, [{"input_ids": ids[i : i + 1, :n], "labels": labels[i : i + 1, :n]}], output="loss")
        for i, n in ((0, 3), (1, 5))
    ]
    unmasked = nfa.agop(net, [{"input_ids": ids, "labels": labels}], output="loss")
    for layer in ("mix", "head"):
        assert relative(found[layer], sum(one[layer] for one in alone) / 2) < 1e-12
        assert relative(unmasked[layer], found[layer]) > 1e-2


# ---- layers that are called in another way -----------------------------------------------------------------


class OneByOne(nn.Module):
    """Convolutions that are given each image by itself, without the axis of samples."""

    def __init__(self, alone):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, groups=2)
        self.head, self.alone = nn.Linear(24, 3), alone

    def forward(self, x):
        def features(image):
            return self.second(self.first(image).relu()).relu()

        h = torch.stack([features(image) for image in x]) if self.alone else features(x)
        return self.head(h.flatten(1)).tanh()


def test_images_without_an_axis_of_samples():
    net, plain, x = seeded(lambda: OneByOne(True)), seeded(lambda: OneByOne(False)), randn(5, 2, 6, 6)
    found, expected = nfa.agop(net, x), nfa.agop(plain, x)
    assert found.keys() == expected.keys() == {"first", "second", "head"}
    for layer, G in expected.items():
        assert relative(found[layer], G) < 1e-12


class Checkpointed(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.below, self.inside, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.how = how

    def forward(self, x):
        return self.last(self.how(self.inside, self.below(x).tanh()).tanh()).tanh()


class RunAgain(torch.autograd.Function):
    """Checkpointing of somebody's own: nothing is kept, and the backward runs the layer once more."""

    @staticmethod
    def forward(ctx, h, layer):
        ctx.layer = layer
        ctx.save_for_backward(h)
        return layer(h)

    @staticmethod
    def backward(ctx, gradient):
        h = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            ctx.layer(h).backward(gradient)
        return h.grad, None


def test_what_is_run_again_in_the_backward_is_followed_or_said():
    ways = {
        "plain": lambda layer, h: layer(h),
        "again": functools.partial(checkpoint, use_reentrant=False),
        "own": lambda layer, h: RunAgain.apply(h, layer),
    }
    x = randn(10, 6)
    plain, again, own = (nfa.audit(seeded(lambda how=how: Checkpointed(how)), x) for how in ways.values())
    for row in plain:
        assert again[row.layer].cosine == pytest.approx(row.cosine, abs=1e-12)
    assert "not all of its use can be followed: it is run again in the backward" in own["inside"].status
    for layer in ("below", "last"):
        assert own[layer].cosine == pytest.approx(plain[layer].cosine, abs=1e-12)


def test_reentrant_checkpoints_are_refused_in_a_line():
    net = seeded(lambda: Checkpointed(functools.partial(checkpoint, use_reentrant=True)))
    with pytest.raises(nfa.NfaError, match="use_reentrant=False") as refused:
        nfa.audit(net, randn(10, 6))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_recurrent_layer_with_dropout_step_by_step(kind, batch_first):
    layer = seeded(lambda: kind(5, 7, num_layers=3, dropout=0.4, batch_first=batch_first, bidirectional=True))
    seen = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if not recurrent.follows(func, args, kwargs or {}):
                return func(*args, **(kwargs or {}))
            seen.append(func)
            torch.manual_seed(3)
            return recurrent.unrolled(func, args, lambda x, W, b: F.linear(x, W, b))

    x = randn(4, 6, 5)
    torch.manual_seed(3)
    expected = layer(x)[0]
    with Watch():
        found = layer(x)[0]
    assert seen
    assert relative(found, expected) < 1e-12
    assert relative(layer.eval()(x)[0], expected) > 0.1


# ---- devices -----------------------------------------------------------------------------------------------


class Moved(nn.Linear):
    """Keeps the places it was moved to."""

    def to(self, place):
        self.places = [*getattr(self, "places", ()), str(place)]
        return self


def test_a_network_is_moved_back_whatever_happens():
    net, home, away = Moved(2, 2), torch.device("cpu"), torch.device("cuda", 1)
    with _on_device(net, home, home):
        assert not hasattr(net, "places")
    with contextlib.suppress(KeyError), _on_device(net, home, away):
        assert net.places == ["cuda:1"]
        raise KeyError
    assert net.places == ["cuda:1", "cpu"]


def test_a_network_on_several_devices_is_not_moved():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
    words = r"lies on several devices \(cpu, meta\).*leave device out"
    with pytest.raises(nfa.NfaError, match=words), _on_device(net, torch.device("cpu"), torch.device("cuda")):
        pytest.fail("it was let in")
    assert [p.device.type for p in itertools.islice(net.parameters(), 3)] == ["cpu", "cpu", "meta"]


# ---- what goes in and what comes out -----------------------------------------------------------------------


@dataclasses.dataclass
class Output:
    """What a network returns: its outputs, and what is none."""

    scores: torch.Tensor
    labels: torch.Tensor
    name: str = "output"


class TimeFirst(nn.Module):
    """Takes (time, samples, features) in a dictionary of its own, and an option that is no tensor."""

    def __init__(self):
        super().__init__()
        self.lin, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, left, parts, scale):
        h = (self.lin(left) * scale + self.lin(parts["right"])).tanh()
        return self.last(h.mean(0)).tanh()


def test_a_dataclass_of_outputs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 3)

        def forward(self, x):
            scores = self.lin(x).tanh()
            return Output(scores, scores.argmax(1))

    net, x = seeded(Net), randn(6, 4)
    found = nfa.agop(net, x)["lin"]
    assert torch.equal(found, nfa.agop(net, x, output_fn=lambda out: out.scores)["lin"])


def test_nested_inputs_with_time_first():
    net, left, right = seeded(TimeFirst), randn(7, 5, 4), randn(7, 5, 4, seed=1)
    batch = {"left": left, "parts": {"right": right}, "scale": 2.0}
    whole = nfa.agop(net, [batch], batch_dim=1)
    one_by_one = [{"left": left[:, [i]], "parts": {"right": right[:, [i]]}, "scale": 2.0} for i in range(5)]
    parts = nfa.agop(net, one_by_one, batch_dim=1)
    for layer in ("lin", "last"):
        assert relative(whole[layer], parts[layer]) < 1e-12


# ---- values that are not finite ----------------------------------------------------------------------------


def test_a_weight_or_a_gradient_beyond_numbers_is_said():
    class Net(nn.Module):
        def __init__(self, inside):
            super().__init__()
            self.lin, self.other, self.last = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 2)
            self.inside = inside

        def forward(self, x):
            return self.last((self.inside(self.lin(x)) + self.other(x)).tanh()).tanh()

    x = randn(9, 4)
    net = seeded(lambda: Net(lambda z: torch.where(z.isfinite(), z, 0.0).sigmoid()))
    with torch.no_grad():
        net.lin.weight[0, 0] = torch.inf
    rows = nfa.audit(net, x, nulls=0)
    assert rows["lin"].status == "skipped: its weight is not finite"
    assert rows["other"].status == "ok"
    net = seeded(lambda: Net(lambda z: (z - z.detach()).abs().sqrt()))  # of 0, with an infinite slope
    rows = nfa.audit(net, x, nulls=0)
    assert rows["lin"].status == "skipped: its gradients are not finite"
    assert rows["other"].status == "ok"
