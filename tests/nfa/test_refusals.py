"""Refusals that nothing else meets: each is one line that says what was expected and what came."""

import pytest
import torch
from torch import nn

import nfa
from nfa.command.chosen_output import Choice
from nfa.errors import NfaError
from nfa.machines.normalization import symmetric_root
from nfa.machines.options import point_kernel
from nfa.machines.saved import expect_room
from nfa.nets.cnn import CNN
from nfa.nets.mlp import MLP
from nfa.nets.resnet import ResNet
from nfa.nets.vgg import VGG
from nfa.protocol import protocol
from nfa.zoo.weights import read_weights

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


class Unused(nn.Module):
    """Its layer is never called; its outputs depend on another parameter."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 2), nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.scale


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.inner(x, x, x)[0].mean(1)).tanh()


def of_attention(name, defect):
    net = Attention()
    before = {key: value + 0.1 for key, value in net.state_dict().items()}
    return protocol(net, torch.randn(3, 5, 4), name, before, defects=(defect,))


def side_by_side(*outputs):
    return Choice(None, None, True, None)(outputs)


REFUSED = {
    "an MLP without layers": (
        lambda: MLP((1, 4, 4), 3, depth=0), "an MLP needs depth and width of at least 1, got 0 and 256",
    ),
    "an MLP without width": (lambda: MLP((4,), 3, width=0), "got 3 and 0"),
    "a CNN without patches": (
        lambda: CNN((1, 8, 8), 3, patch_size=0), "a CNN needs depth, width and patch_size of at least 1, got",
    ),
    "a ResNet without width": (lambda: ResNet((1, 32, 32), 3, width=0), "width must be at least 1, got 0"),
    "a VGG without width": (lambda: VGG((1, 32, 32), 3, width=0), "width must be at least 1, got 0"),
    "a bandwidth of products": (
        lambda: nfa.RFM(kernel="quadratic", bandwidth=3.0),
        "the kernel 'quadratic' has no bandwidth, got 3.0: leave it out",
    ),
    "options of products": (
        lambda: point_kernel("linear", kernel_options={"nu": 1.5}),
        "the kernel 'linear' takes no options, got 'nu'",
    ),
    "no bandwidth": (lambda: nfa.RFM(bandwidth=()), "give at least one bandwidth and one ridge"),
    "a median of equal points": (
        lambda: nfa.RFM(bandwidth="median", rounds=0).fit(torch.ones(5, 3), torch.arange(5.0)),
        "all training points coincide in the metric",
    ),
    "a root of infinity": (lambda: symmetric_root(torch.full((2, 2), torch.inf), 1.0), "AGOP is not finite"),
    "a root of nothing": (lambda: symmetric_root(torch.zeros(2, 2), 1.0), "the AGOP is zero"),
    "a machine beyond the memory": (
        lambda: expect_room(10**16), "it takes 80.0 PB, more than the memory that is free",
    ),
    "layers that are not called": (
        lambda: nfa.agop(Unused(), X), "no measured layer was called in the forward pass",
    ),
    "no samples": (lambda: nfa.agop(nn.Linear(4, 2), [X[:0]]), "no samples to measure on"),
    "D1 of a part of a weight": (
        lambda: of_attention("nfa", "D1"), "is a part of a weight, of which D1 and C1 say nothing: choose",
    ),
    "C1 of a part of a weight": (lambda: of_attention("cnfa", "C1"), "is a part of a weight"),
    "outputs of other numbers of samples": (
        lambda: side_by_side(torch.ones(3, 2), torch.ones(4, 2)), "whose first dimension counts samples",
    ),
    "an output of no samples": (
        lambda: side_by_side(torch.ones(3, 2), torch.tensor(1.0)), "choose one with --output-index N",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused_in_a_line(what):
    call, words = REFUSED[what]
    with pytest.raises(NfaError) as refused:
        call()
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_several_outputs_side_by_side():
    found = side_by_side(torch.ones(3), 2 * torch.ones(3, 2, 2))
    assert found.tolist() == [[1, 2, 2, 2, 2]] * 3


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_script_is_no_file_of_weights(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "net.pt")
    with pytest.raises(
        NfaError, match=r"net.pt is a TorchScript archive: expected weights, torch.save\(model"
    ):
        read_weights(tmp_path / "net.pt")
