"""Options of the data sets: ``data.…``."""

from lab.options.kinds import (
    COUNT,
    COUNT_OR_ZERO,
    FLAG,
    PATH,
    POSITIVE,
    SEED,
    SHARE,
    TEXT,
    choice,
    number,
    whole,
)
from lab.options.option import Table

SAMPLES: Table = {  # of every data set
    "batch_size": COUNT,
    "passes": COUNT,
    "eval_batch_size": COUNT,
    "val_fraction": number(0, below=1),
    "n_train": COUNT.or_null(),
    "n_test": COUNT.or_null(),
    "normalize": choice("channel", "feature", "none"),
    "augment": choice("none", "shift", "shift_flip"),
    "seed": SEED.or_null(),
}

_SIGN = ("point", "comma")
_COLUMNS = TEXT.or_list() | whole().or_list()  # names, or positions

TABULAR: Table = {
    "path": PATH.or_null(),
    "target": (TEXT | whole()).or_null(),
    "name": TEXT.or_null(),
    "test_path": PATH.or_null(),
    "task": choice("auto", "classification", "regression"),
    "drop": _COLUMNS,
    "categorical": _COLUMNS,
    "header": FLAG,
    "decimal": choice(*_SIGN).or_null(),
    "thousands": choice(*_SIGN, "blank", "apostrophe").or_null(),
    "missing": (TEXT.or_list() | number().or_list()).or_null(),
    "root": PATH,
    "download": FLAG,
    "test_fraction": SHARE,
    "folds": whole(2),
    "fold": COUNT_OR_ZERO.or_null(),
    "normalize_target": FLAG,
}

TORCHVISION: Table = {
    "name": choice("MNIST", "FashionMNIST", "CIFAR10", "CIFAR100", "SVHN", "STL10", "GTSRB"),
    "root": PATH,
    "download": FLAG,
    "size": COUNT.or_null(),
}

IMAGE_FOLDER: Table = {"root": PATH, "size": COUNT.or_null(), "test_fraction": SHARE}

SYNTHETIC: Table = {"n": COUNT, "n_test": COUNT, "dim": COUNT, "noise": number(0)}
BITS: Table = SYNTHETIC | {"k": COUNT}
PARITY: Table = BITS | {"noise": number(0, 0.5), "task": choice("classification", "regression")}

MODULAR: Table = {
    "p": whole(3),
    "operation": choice("add", "subtract", "multiply", "divide"),
    "train_fraction": number(above=0, most=1),
    "hold_out": choice("none", "reflection"),
    "k": COUNT_OR_ZERO,
    "move": COUNT_OR_ZERO,
    "moved": choice("random", "symmetric"),
    "shuffle": FLAG,
    "inputs": choice("plain", "circulant", "reflection"),
}

LOCAL_SIGNAL: Table = {
    "n": COUNT,
    "n_test": COUNT,
    "size": COUNT,
    "noise": number(0),
    "strength": POSITIVE,
}

DATA: dict[str, Table] = {  # by class in datamodules
    "Digits": SAMPLES,
    "Tabular": SAMPLES | TABULAR,
    "TorchvisionSet": SAMPLES | TORCHVISION,
    "ImageFolderData": SAMPLES | IMAGE_FOLDER,
    "LowRank": SAMPLES | SYNTHETIC | {"dim": whole(2)},
    "TwoClusters": SAMPLES | SYNTHETIC | {"distance": number(0)},
    "SparseParity": SAMPLES | PARITY,
    "Staircase": SAMPLES | BITS,
    "Modular": SAMPLES | MODULAR,
    "Bars": SAMPLES | LOCAL_SIGNAL | {"size": whole(2), "bar": COUNT},
    "Star": SAMPLES | LOCAL_SIGNAL | {"star": whole(5)},
    "PastedDigits": SAMPLES | LOCAL_SIGNAL | {"digit": COUNT},
}
