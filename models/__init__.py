"""Lightning modules: one base for metrics and logging, and the plain networks of `nfa.nets`."""

from models.base import LabModule
from models.build import build_model
from models.conv_rfm import ConvRFM
from models.deep_conv_rfm import DeepConvRFM
from models.deep_rfm import DeepRFM
from models.neural import NeuralModule
from models.rfm import RFM
from nfa.nets import CNN, MLP, VGG, ResNet

__all__ = [
    "CNN",
    "MLP",
    "RFM",
    "VGG",
    "ConvRFM",
    "DeepConvRFM",
    "DeepRFM",
    "LabModule",
    "NeuralModule",
    "ResNet",
    "build_model",
]
