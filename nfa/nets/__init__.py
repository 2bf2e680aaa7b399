"""Plain networks, and the registry of those that a file may name."""

from typing import TYPE_CHECKING, Any

from nfa.nets.balance import balanced
from nfa.nets.cnn import CNN
from nfa.nets.expansion import Expansion
from nfa.nets.mlp import MLP
from nfa.nets.parameterization import ntk

if TYPE_CHECKING:
    from nfa.nets.resnet import ResNet
    from nfa.nets.vgg import VGG

__all__ = ["CNN", "MLP", "VGG", "Expansion", "ResNet", "balanced", "ntk"]


def __getattr__(name: str) -> Any:
    """ResNet and VGG are built on torchvision, which is needed only where they are."""
    if name == "ResNet":
        from nfa.nets.resnet import ResNet

        return ResNet
    if name == "VGG":
        from nfa.nets.vgg import VGG

        return VGG
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
