"""Options of the models: ``model.…``."""

from lab.options.kinds import COUNT, COUNT_OR_ZERO, FLAG, LAYERS, MAPPING, POSITIVE, SEED, choice, number
from lab.options.option import Table

_ACTIVATION = choice("relu", "leaky_relu", "gelu", "tanh", "softplus", "quadratic", "linear")
_RIDGE = number(0).or_list()

KERNEL_MACHINE: Table = {  # of every one
    "ridge": _RIDGE,
    "power": POSITIVE | choice("auto"),
    "solver": choice("auto", "cholesky", "cg"),
    "patience": COUNT.or_null(),
    "memory_gb": POSITIVE.or_null(),
    "offset": choice("mean", "none"),
    "learn": choice("agop", "fact", "none"),
    "seed": SEED,
}

_RADIAL: Table = KERNEL_MACHINE | {
    "kernel": choice("laplace", "gaussian", "matern", "exponential", "linear", "quadratic"),
    "bandwidth": POSITIVE.or_list() | choice("median").or_list(),
    "centering": choice("none", "output", "pooled"),
    "normalization": choice("max", "trace", "none"),
    "agop_samples": COUNT.or_null(),
    "metric": choice("full", "diagonal"),
    "kernel_options": MAPPING.or_null(),
}

_CONVOLUTIONAL: Table = KERNEL_MACHINE | {
    "power": POSITIVE,
    "learn": choice("agop", "none"),
    "patch_size": COUNT,
    "depth": LAYERS,
    "agop_images": COUNT.or_null(),
    "agop_draw": choice("random", "first"),
    "stride": COUNT,
    "padding": choice("none", "zero"),
    "head": choice("flatten", "pool"),
    "kind": choice("ntk", "nngp"),
}

VARIANTS: Table = {  # of every network
    "expand": choice("linear", "quadratic").or_null(),
    "parameterization": choice("standard", "ntk"),
    "initialization": choice("standard", "balanced"),
}

MODEL: dict[str, Table] = {  # by class in models
    "MLP": {"depth": LAYERS, "width": COUNT, "activation": _ACTIVATION, "bias": FLAG},
    "CNN": {
        "depth": LAYERS,
        "width": COUNT,
        "patch_size": COUNT,
        "padding": choice("zeros", "circular", "reflect", "replicate", "none"),
        "downsample": choice("max_pool", "stride", "none"),
        "head": choice("pool", "flatten"),
        "activation": _ACTIVATION,
        "batch_norm": FLAG,
        "bias": FLAG,
    },
    "ResNet": {
        "arch": choice("resnet10", "resnet18", "resnet34", "resnet50", "resnet101"),
        "width": COUNT,
    },
    "VGG": {"arch": choice("vgg11", "vgg13", "vgg16", "vgg19"), "width": COUNT, "batch_norm": FLAG},
    "RFM": _RADIAL | {"refit": FLAG},
    "DeepRFM": _RADIAL
    | {
        "depth": LAYERS,
        "width": COUNT,
        "activation": choice("relu", "laplace"),
        "rounds": COUNT_OR_ZERO,
        "gamma": POSITIVE,
        "norm": choice(1, 2),
        "bias": FLAG,
        "unit_norm": FLAG,
    },
    "ConvRFM": _CONVOLUTIONAL | {"refit": FLAG},
    "DeepConvRFM": _CONVOLUTIONAL
    | {
        "layers": LAYERS.or_null(),
        "width": COUNT,
        "activation": choice("none", "relu"),
        "conv_padding": choice("none", "zero").or_null(),
        "conv_stride": COUNT,
        "pool": COUNT,
        "rounds": COUNT_OR_ZERO,
    },
}
