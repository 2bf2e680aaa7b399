"""Lightning modules: one base for metrics and logging, and the plain networks of `nfa.nets`."""

from models.base import LabModule
from models.build import build_model
from models.kernel_machine import RFM, ConvRFM, DeepConvRFM, DeepRFM, KernelMachine
from models.neural import NeuralModule
from nfa.nets import CNN, MLP, VGG, ResNet

__all__ = [
    "CNN",
    "MLP",
    "RFM",
    "VGG",
    "ConvRFM",
    "DeepConvRFM",
    "DeepRFM",
    "KernelMachine",
    "LabModule",
    "NeuralModule",
    "ResNet",
    "build_model",
]
