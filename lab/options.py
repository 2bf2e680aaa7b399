"""Every option of ``train.py``: its type, its range and its choices, said once.

A table gives an `Option` to every name. The check before a run looks into all of them; the constructors that
take the options look into the same ones, so that they mind them in a library too. Where a class of the user's
own stands in ``_target_``, its options are free.
"""

from lab.option import ANY, FLAG, MAPPING, PATH, TEXT, Option, choice, number, whole

Table = dict[str, Option]

COUNT = whole(1)
COUNT_OR_ZERO = whole(0)
POSITIVE = number(above=0)
SHARE = number(above=0, below=1)
SEED = whole(0, 2**32 - 1)
LAYERS = whole(1, 10_000)  # each is a module of its own

# ---- the run -----------------------------------------------------------------------------------------------

RUN: Table = {"seed": SEED.or_null(), "ckpt_path": PATH.or_null()}

TRAINING: Table = {
    "loss": choice("auto", "cross_entropy", "mse"),
    "optimizer": choice("sgd", "adam", "adamw"),
    "lr": number(0),
    "momentum": number(0),
    "weight_decay": number(0),
    "schedule": choice("constant", "cosine", "one_cycle"),
    "init_scale": number(),
}

_BATCHES = COUNT_OR_ZERO | number(0, 1)  # so many, or that share of them
_DURATION = TEXT | MAPPING  # 00:12:00:00, or days, hours, minutes
_PRECISIONS = (
    "16", "16-true", "16-mixed", "bf16", "bf16-true", "bf16-mixed", "32", "32-true", "64", "64-true",
    "transformer-engine", "transformer-engine-float16",
)  # fmt: skip

TRAINER: Table = {  # arguments of pytorch_lightning.Trainer
    "accelerator": TEXT,
    "strategy": TEXT | MAPPING,
    "devices": whole(-1) | whole(0).or_list() | TEXT,
    "num_nodes": COUNT,
    "precision": choice(*_PRECISIONS, 16, 32, 64).or_null(),
    "fast_dev_run": FLAG | COUNT_OR_ZERO,
    "max_epochs": whole(-1).or_null(),
    "min_epochs": COUNT_OR_ZERO.or_null(),
    "max_steps": whole(-1).or_null(),
    "min_steps": COUNT_OR_ZERO.or_null(),
    "max_time": _DURATION.or_null(),
    "limit_train_batches": _BATCHES.or_null(),
    "limit_val_batches": _BATCHES.or_null(),
    "limit_test_batches": _BATCHES.or_null(),
    "limit_predict_batches": _BATCHES.or_null(),
    "overfit_batches": _BATCHES,
    "val_check_interval": (COUNT | number(above=0, most=1) | _DURATION).or_null(),
    "check_val_every_n_epoch": COUNT.or_null(),
    "num_sanity_val_steps": whole(-1).or_null(),
    "log_every_n_steps": COUNT_OR_ZERO.or_null(),
    "enable_checkpointing": FLAG.or_null(),
    "enable_model_summary": FLAG.or_null(),
    "accumulate_grad_batches": COUNT,
    "gradient_clip_val": number(0).or_null(),
    "gradient_clip_algorithm": choice("norm", "value").or_null(),
    "deterministic": (FLAG | choice("warn")).or_null(),
    "benchmark": FLAG.or_null(),
    "inference_mode": FLAG,
    "use_distributed_sampler": FLAG,
    "profiler": (TEXT | MAPPING).or_null(),
    "detect_anomaly": FLAG,
    "barebones": FLAG,
    "plugins": (TEXT | MAPPING).or_list().or_null(),
    "sync_batchnorm": FLAG,
    "reload_dataloaders_every_n_epochs": COUNT_OR_ZERO,
    "default_root_dir": PATH.or_null(),
    "enable_autolog_hparams": FLAG,
    "model_registry": TEXT.or_null(),
}

ANSATZ: Table = {  # callbacks.ansatz, of callbacks.AnsatzMonitor
    "every_n_epochs": COUNT_OR_ZERO,
    "every_n_steps": COUNT.or_null(),
    "samples": COUNT,
    "batch_size": COUNT,
    "layers": TEXT.or_list().or_null(),
    "power": POSITIVE,
    "probes": COUNT.or_null(),
    "nulls": whole(0, 1_000_000),
    "chunk": COUNT,
    "pictures": COUNT_OR_ZERO,
    "seed": SEED,
}

# ---- data --------------------------------------------------------------------------------------------------

SAMPLES: Table = {  # of every data set
    "batch_size": COUNT,
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
    "SparseParity": SAMPLES | PARITY,
    "Staircase": SAMPLES | BITS,
    "Bars": SAMPLES | LOCAL_SIGNAL | {"size": whole(2), "bar": COUNT},
    "Star": SAMPLES | LOCAL_SIGNAL | {"star": whole(5)},
    "PastedDigits": SAMPLES | LOCAL_SIGNAL | {"digit": COUNT},
}

# ---- models ------------------------------------------------------------------------------------------------

_ACTIVATION = choice("relu", "leaky_relu", "gelu", "tanh", "softplus", "quadratic", "linear")
_RIDGE = number(0).or_list()

KERNEL_MACHINE: Table = {  # of every one
    "ridge": _RIDGE,
    "power": POSITIVE,
    "solver": choice("auto", "cholesky", "cg"),
    "patience": COUNT.or_null(),
    "memory_gb": POSITIVE.or_null(),
    "offset": choice("mean", "none"),
    "seed": SEED,
}

_RADIAL: Table = KERNEL_MACHINE | {
    "kernel": choice("laplace", "gaussian", "matern", "exponential"),
    "bandwidth": POSITIVE.or_list() | choice("median").or_list(),
    "centering": choice("none", "output", "pooled"),
    "normalization": choice("max", "trace", "none"),
    "agop_samples": COUNT.or_null(),
    "kernel_options": MAPPING.or_null(),
}

_CONVOLUTIONAL: Table = KERNEL_MACHINE | {
    "patch_size": COUNT,
    "depth": LAYERS,
    "agop_images": COUNT.or_null(),
    "agop_draw": choice("random", "first"),
    "padding": choice("none", "zero"),
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
        "unit_norm": FLAG,
    },
    "ConvRFM": _CONVOLUTIONAL
    | {
        "stride": COUNT,
        "head": choice("flatten", "pool"),
        "kind": choice("ntk", "nngp"),
        "refit": FLAG,
    },
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

# ---- loggers and audits: those named here are checked, others are passed on --------------------------------

LOGGER: dict[str, Table] = {  # by class; wandb.init and the writer of TensorBoard take more than these
    "LabWandbLogger": {
        "save_dir": PATH,
        "project": TEXT,
        "mode": choice("auto", "online", "offline", "disabled", "dryrun"),
        "name": TEXT.or_null(),
        "group": TEXT.or_null(),
        "max_artifact_mb": number(0),
        "entity": TEXT.or_null(),
        "job_type": TEXT.or_null(),
        "tags": TEXT.or_list().or_null(),
        "notes": TEXT.or_null(),
        "log_model": FLAG | choice("all"),
    },
    "TensorBoardLogger": {
        "save_dir": PATH,
        "name": ANY,
        "version": ANY,
        "log_graph": FLAG,
        "default_hp_metric": FLAG,
        "prefix": ANY,
        "sub_dir": PATH.or_null(),
    },
}

AUDIT: Table = {  # of ``nfa audit``, which checks all of its options itself
    "spec": TEXT,
    "data": TEXT,
    "max_samples": COUNT.or_null(),
    "tolerance": SHARE.or_null(),
    "layers": TEXT.or_list().or_null(),
    "init": FLAG,
    "wandb": TEXT.or_null(),
    "probes": COUNT.or_null(),
    "power": POSITIVE,
    "nulls": COUNT_OR_ZERO,
    "seed": SEED,
    "batch_size": COUNT.or_null(),
    "exact": FLAG,
    "per_head": FLAG,
    "pictures": COUNT_OR_ZERO,
}
