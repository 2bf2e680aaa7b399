"""Lightning modules: one base for metrics and logging, and the networks to train."""

from models.base import LabModule
from models.build import build_model
from models.cnn import CNN
from models.conv_rfm import ConvRFM
from models.deep_conv_rfm import DeepConvRFM
from models.deep_rfm import DeepRFM
from models.mlp import MLP
from models.neural import NeuralModule
from models.resnet import ResNet
from models.rfm import RFM
from models.vgg import VGG

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
