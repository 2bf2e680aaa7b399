"""An audit leaves the model and the random states as they were, also when the model raises."""

import random
from contextlib import contextmanager

import numpy
import pytest
import torch
from torch import nn

import nfa
from nfa.sweep import recurrent
from nfa.sweep.untouched import undoing

PRECISIONS = [
    torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn,
    torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn,
]  # fmt: skip


class Explosive(nn.Module):
    def __init__(self):
        super().__init__()
        self.fuse = False

    def forward(self, x):
        torch.rand(3), random.random(), numpy.random.rand()  # a model that draws random numbers
        if self.fuse:
            raise RuntimeError("bang")
        return x


def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(36, 8)), Explosive(), nn.Linear(8, 3),
    )  # fmt: skip
    net.train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    net[7].weight.grad = torch.ones_like(net[7].weight)
    return net


def snapshot(net):
    return {
        "state": {k: v.clone() for k, v in net.state_dict().items()},
        "modes": [m.training for m in net.modules()],
        "flags": [p.requires_grad for p in net.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()],
        "identity": [id(p) for p in (*net.parameters(), *net.buffers())],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": numpy.random.get_state()[1].tolist(),
        "switches": (torch.backends.mha.get_fastpath_enabled(), torch.get_float32_matmul_precision()),
        "precision": [setting.fp32_precision for setting in PRECISIONS],
        "cudnn": [getattr(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")],
        "grad mode": torch.is_grad_enabled(),
    }


def equal(a, b):
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize("options", [{}, {"probes": 2}, {"initial_state": None}, {"device": "cpu"}])
def test_nothing_changes(options):
    net, x = network(), torch.randn(6, 1, 5, 5)
    before = snapshot(net)
    nfa.audit(net, [x], **options)
    nfa.agop(net, [x])
    assert equal(snapshot(net), before)


def test_nothing_changes_when_the_model_raises():
    net, x = network(), torch.randn(6, 1, 5, 5)
    net[6].fuse = True
    before = snapshot(net)
    with pytest.raises(RuntimeError, match="bang"):
        nfa.audit(net, [x])
    assert equal(snapshot(net), before)


def test_training_mode_and_caller_contexts_do_not_matter():
    net, x = network(), torch.randn(6, 1, 5, 5)
    expected = nfa.agop(net.eval(), [x])
    net.train()
    with torch.no_grad():
        quiet = nfa.agop(net, [x])
    with torch.inference_mode():
        inference = nfa.agop(net, [x * 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = nfa.agop(net, [x])
    for name in expected:
        for other in (quiet, inference, mixed):
            assert torch.allclose(other[name], expected[name], rtol=1e-5, atol=1e-9)


def test_module_that_counts_its_calls_in_a_buffer_is_put_back():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return x

    net = nn.Sequential(Counter(), nn.Linear(3, 2))
    nfa.agop(net, torch.ones(2, 3))
    assert float(net[0].calls) == 0


# ---- made under inference mode ----------------------------------------------------------------------------


IMAGES = torch.linspace(-1, 1, 150).reshape(6, 1, 5, 5)


def made_in_inference_mode(make):
    torch.manual_seed(0)
    with torch.inference_mode():
        inference = make().train()
    torch.manual_seed(0)
    return inference, make().train()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.c = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return torch.tanh(self.c(self.cell(x[:, None])[0][:, -1]))


def normed():
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 3))


def parametrised():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 6)), nn.Tanh(), nn.Linear(6, 3))


@pytest.mark.parametrize("make", [normed, Tied, Recurrent, parametrised])
@pytest.mark.parametrize("options", [{}, {"memory": 1e9}, {"probes": 2}])
def test_a_network_made_under_inference_mode_is_measured(make, options):
    inference, plain = made_in_inference_mode(make)
    inference.eval(), inference.train()
    x = torch.randn(8, 5)
    before = snapshot(inference)
    found, expected = nfa.audit(inference, x, **options), nfa.audit(plain, x, **options)
    assert equal(snapshot(inference), before)
    assert all(p.is_inference() for p in inference.parameters())
    for a, b in zip(found.rows, expected.rows, strict=True):
        assert (a.layer, a.status) == (b.layer, b.status)
        assert a.cosine == pytest.approx(b.cosine, rel=1e-5, nan_ok=True)


def test_inference_tensors_that_are_no_buffers_are_refused_in_one_line():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(5, 3)
            with torch.inference_mode():
                self.scale = torch.ones(3)

        def forward(self, x):
            return self.a(x) * self.scale

    net = Hidden()
    before = snapshot(net)
    with pytest.raises(nfa.NfaError, match=r"made under torch[.]inference_mode") as raised:
        nfa.audit(net, torch.ones(4, 5))
    assert len(str(raised.value).splitlines()) == 1
    assert equal(snapshot(net), before)


# ---- something fails while all is put back ----------------------------------------------------------------


def _fails_once_measured(monkeypatch, owner, name):
    """Let the last of two calls of a function fail: that which puts something back."""
    real, calls = getattr(owner, name), []

    def failing(*args, **kwargs):
        calls.append(args)
        result = real(*args, **kwargs)
        if len(calls) == 2:
            raise RuntimeError(f"no {name}")
        return result

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(torch.backends.mha, "set_fastpath_enabled"), (torch, "set_float32_matmul_precision")],
)
def test_all_is_put_back_though_a_switch_fails(monkeypatch, owner, name):
    torch.set_float32_matmul_precision("high")
    try:
        net = network()
        before = snapshot(net)
        _fails_once_measured(monkeypatch, owner, name)
        with pytest.raises(RuntimeError, match=f"no {name}"):
            nfa.agop(net, IMAGES)
        assert equal(snapshot(net), before)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("failing", [random, numpy.random, torch])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_all_is_put_back_though_random_states_fail(monkeypatch, failing, error):
    name = {random: "setstate", numpy.random: "set_state", torch: "set_rng_state"}[failing]
    net, real = network(), getattr(failing, name)
    before = snapshot(net)

    def fails(state):
        real(state)
        raise error("state")

    monkeypatch.setattr(failing, name, fails)
    with pytest.raises(error, match="state"):
        nfa.agop(net, IMAGES)
    assert equal(snapshot(net), before)


class Stubborn(nn.Module):
    """Cannot be put back: its flag fails when set to True, and so does that of its parameter."""

    def __init__(self, error):
        super().__init__()
        self.weight, self.error = Frozen(torch.ones(3)), error

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name == "training" and value and "error" in self.__dict__:
            raise self.error("mode")

    def forward(self, x):
        return x * self.weight


class Frozen(nn.Parameter):
    def requires_grad_(self, flag=True):
        result = super().requires_grad_(flag)
        if flag:
            raise RuntimeError("flag")
        return result


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_all_is_put_back_though_modules_and_parameters_fail(error):
    net = nn.Sequential(*network(), Stubborn(error))
    before = snapshot(net)
    with pytest.raises((error, RuntimeError), match=r"mode|flag"):
        nfa.agop(net, IMAGES)
    assert equal(snapshot(net), before)


def test_what_raised_first_is_told_and_what_came_after_is_noted():
    net = nn.Sequential(*network(), Stubborn(RuntimeError))
    net[6].fuse = True
    before = snapshot(net)
    with pytest.raises(RuntimeError, match="bang") as raised:
        nfa.audit(net, IMAGES)
    assert any("not everything could be put back" in note for note in raised.value.__notes__)
    assert equal(snapshot(net), before)


@pytest.mark.parametrize("where", ["forward", "backward", "batches", "watch"])
def test_ctrl_c_half_way(where):
    net, x = network(), IMAGES

    def stop(*_):
        raise KeyboardInterrupt

    class Stop(nfa.sweep.observer.Observer):
        progress = stop

    def batches():
        yield x
        if where == "batches":
            stop()

    if where == "forward":
        net[6].register_forward_hook(stop)
    if where == "backward":
        net[6].register_forward_hook(lambda module, inputs, out: out.register_hook(stop) and None)
    before = snapshot(net)
    with pytest.raises(KeyboardInterrupt):
        nfa.audit(net, batches(), **({"watch": Stop()} if where == "watch" else {}))
    assert equal(snapshot(net), before)


def test_a_train_method_of_the_users_own_that_fails_changes_nothing():
    class Picky(nn.Module):
        def train(self, mode=True):
            raise RuntimeError("never in eval mode")

    net = nn.Sequential(*network(), Picky())
    before = snapshot(net)
    with pytest.raises(RuntimeError, match="never in eval mode"):
        nfa.audit(net, IMAGES)
    assert equal(snapshot(net), before)


@pytest.mark.parametrize("failing", [[0], [2], [0, 1], [0, 1, 2, 3]])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_every_step_back_is_taken_and_the_first_error_told(failing, error):
    taken = []

    def step(index):
        taken.append(index)
        if index in failing:
            raise error(f"step {index}")

    def all_steps():
        with undoing() as undo:
            for index in range(4):
                undo.later(step, index)

    with pytest.raises(error, match=f"step {max(failing)}"):
        all_steps()
    assert taken == [3, 2, 1, 0]


class Settings(nn.Module):
    """Notes the settings under which it is called."""

    def __init__(self):
        super().__init__()
        self.last, self.seen = nn.Linear(4, 3), set()

    def forward(self, x):
        cudnn = torch.backends.cudnn
        self.seen |= {setting.fp32_precision for setting in PRECISIONS}
        self.seen |= {("deterministic", cudnn.deterministic), ("benchmark", cudnn.benchmark)}
        return self.last(x).tanh()


def test_no_setting_takes_digits_from_what_is_measured():
    """However they were asked for: convolutions take TF32 by default."""
    before = [setting.fp32_precision for setting in PRECISIONS]
    benchmark = torch.backends.cudnn.benchmark
    try:
        for setting in PRECISIONS[:3]:
            setting.fp32_precision = "tf32"
        torch.backends.cudnn.benchmark = True
        net = Settings()
        nfa.audit(net, torch.randn(4, 4))
        assert net.seen == {"ieee", ("deterministic", True), ("benchmark", False)}
        assert [setting.fp32_precision for setting in PRECISIONS[:3]] == ["tf32"] * 3
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = benchmark
        for setting, precision in zip(PRECISIONS, before, strict=True):
            setting.fp32_precision = precision


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_that_are_not_measured_have_gradients_in_eval_mode(monkeypatch, layer):
    """Those of cuDNN have none: they are not called."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.read, self.last = nn.Linear(4, 4), layer(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            packed = nn.utils.rnn.pack_padded_sequence(self.first(x), [3] * len(x), True)
            return self.last(self.read(packed)[1][0].reshape(len(x), 4)).tanh()

    real, enabled = recurrent.differentiable, []

    @contextmanager
    def noting():
        with real():
            enabled.append(torch.backends.cudnn.enabled)
            yield

    monkeypatch.setattr(recurrent, "differentiable", noting)
    G = nfa.agop(Net(), torch.randn(5, 3, 4), layers="first")["first"]
    assert G.abs().sum() > 0
    assert set(enabled) == {False}
    assert torch.backends.cudnn.enabled
