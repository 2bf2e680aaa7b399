"""Audits on a card: the numbers of the CPU, the same again, and settings of precision that change none."""

import copy

import pytest
import torch
from torch import nn

import nfa
from tests.elsewhere.audits import NETS, OPTIONS, made
from tests.gpu.device import DEVICE, anywhere, card

COLUMNS = ("cosine", "alignment", "null_mean", "stderr", "pearson", "offdiag")


def audit(net, x, **options):
    options = dict(options)
    if options.pop("initial_state", False):
        options["initial_state"] = {k: v + 0.1 for k, v in net.state_dict().items()}
    return nfa.audit(net, [x[:6], x[6:]], nulls=4, **options)


def assert_same(found, expected, tolerance):
    assert [row.layer for row in found.rows] == [row.layer for row in expected.rows]
    for mine, theirs in zip(found.rows, expected.rows, strict=True):
        assert mine.status == theirs.status
        for column in COLUMNS:
            value = getattr(theirs, column)
            value = value if value is None else pytest.approx(value, abs=tolerance, nan_ok=True)
            assert getattr(mine, column) == value, (mine.layer, column)


@anywhere
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", NETS)
def test_numbers_are_those_of_the_cpu(name, options):
    net, x = made(name)
    here = audit(copy.deepcopy(net), x, **OPTIONS[options])
    there = audit(net.to(DEVICE), x, device=DEVICE, **OPTIONS[options])
    assert_same(there, here, 1e-4)


@anywhere
@pytest.mark.parametrize("options", [{}, {"probes": 2}], ids=["exact", "probes"])
@pytest.mark.parametrize("name", NETS)
def test_the_same_comes_again(name, options):
    net, x = made(name)
    net, x = net.to(DEVICE), x.to(DEVICE)
    first, again = (audit(net, x, **options) for _ in range(2))
    assert_same(again, first, 0.0)


@anywhere
def test_a_network_goes_there_and_back():
    net, x = made("cnn")
    before = copy.deepcopy(net.state_dict())
    audit(net, x, device=DEVICE)
    assert {p.device.type for p in net.parameters()} == {"cpu"}
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@card
@pytest.mark.parametrize("name", ["cnn", "resnet", "attention", "recurrent"])
def test_tf32_is_off_where_numbers_are_told(name):
    """However it was asked for."""
    net, x = made(name)
    net, x = net.to(DEVICE), x.to(DEVICE)
    expected = audit(net, x)
    backends = torch.backends
    settings = backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "tf32"
        assert_same(audit(net, x), expected, 0.0)
        assert [setting.fp32_precision for setting in settings] == ["tf32"] * 3
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


class Mixed(nn.Module):
    """A network whose forward asks for reduced precision itself."""

    def __init__(self, dtype):
        super().__init__()
        self.first, self.second, self.last, self.dtype = (
            nn.Linear(12, 20), nn.Linear(20, 20), nn.Linear(20, 4), dtype,
        )  # fmt: skip

    def forward(self, x):
        with torch.autocast(x.device.type, self.dtype):
            return self.last(self.second(self.first(x).tanh()).tanh()).float() * 1e-3


PLACES = ["cpu", pytest.param("cuda", marks=card)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_of_the_forward_is_right_to_its_digits(dtype, place):
    """Squares of small gradients would vanish in float16."""
    torch.manual_seed(0)
    net, x = Mixed(dtype), torch.randn(16, 12)
    exact = nfa.agop(nn.Sequential(net.first, nn.Tanh(), net.second, nn.Tanh(), net.last), x)
    found = nfa.agop(net.to(place), x.to(place))
    for name, G in zip(found, exact.values(), strict=True):
        assert float((1e6 * found[name].cpu() - G).norm() / G.norm()) < 0.02, name


@pytest.mark.parametrize("place", PLACES)
def test_an_autocast_around_it_changes_nothing(place):
    net, x = made("cnn")
    net, x = net.to(place), x.to(place)
    expected = audit(net, x)
    with torch.autocast(place, torch.bfloat16):
        assert_same(audit(net, x), expected, 0.0)


class Halves(nn.Module):
    """A network whose first half is on the CPU and whose second is on another device."""

    def __init__(self, there):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.there = there
        self.second.to(there), self.last.to(there)

    def forward(self, x):
        h = self.first(x).relu().to(self.there)
        return self.last(self.second(h).relu()).tanh()


@anywhere
@pytest.mark.parametrize("options", [{}, {"probes": 2}, {"power": 1.0}], ids=["exact", "probes", "power"])
def test_a_network_on_several_devices(options):
    torch.manual_seed(0)
    here = Halves("cpu")
    there = Halves(DEVICE)
    there.load_state_dict(here.state_dict())
    x = torch.randn(10, 6)
    assert_same(audit(there, x, **options), audit(here, x, **options), 1e-4)


@anywhere
@pytest.mark.parametrize("target", ["classes", "numbers"])
def test_losses_of_a_network_on_several_devices(target):
    torch.manual_seed(0)
    here, there, x = Halves("cpu"), Halves(DEVICE), torch.randn(10, 6)
    there.load_state_dict(here.state_dict())
    y = torch.arange(10) % 3 if target == "classes" else torch.randn(10, 3)
    expected = nfa.agop(here, [(x, y)], output="loss")
    for name, G in nfa.agop(there, [(x, y)], output="loss").items():
        assert torch.allclose(G.cpu(), expected[name], atol=1e-5), name


@anywhere
def test_a_network_on_several_devices_is_not_moved():
    with pytest.raises(nfa.NfaError, match="lies on several devices"):
        nfa.audit(Halves(DEVICE), torch.randn(10, 6), device=DEVICE)


@card
def test_a_network_that_a_device_map_splits():
    accelerate = pytest.importorskip("accelerate")
    net, x = made("cnn")
    expected = audit(copy.deepcopy(net), x)
    children = [name for name, _ in net.named_children()]
    places = {name: "cpu" if i < len(children) // 2 else 0 for i, name in enumerate(children)}
    split = accelerate.dispatch_model(net, places, main_device="cpu")
    assert_same(audit(split, x), expected, 1e-4)
