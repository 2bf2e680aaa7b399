"""Options of a run and of its trainer: ``seed``, ``training.…``, ``trainer.…``."""

from lab.options.kinds import COUNT, COUNT_OR_ZERO, FLAG, MAPPING, PATH, SEED, TEXT, choice, number, whole
from lab.options.option import Table

RUN: Table = {"seed": SEED.or_null(), "ckpt_path": PATH.or_null()}

TRAINING: Table = {
    "loss": choice("auto", "cross_entropy", "mse", "half_mse"),
    "optimizer": choice("sgd", "adam", "adamw"),
    "lr": number(0),
    "momentum": number(0),
    "weight_decay": number(0),
    "schedule": choice("constant", "cosine", "one_cycle"),
    "init_scale": number(),
    "lr_over_critical": number(above=0).or_null(),
    "betas": number(0, below=1).or_list(),
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
