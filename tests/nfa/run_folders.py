"""Finished run folders, written by hand."""

import csv
import json
import secrets

import torch
from safetensors.torch import save_file

from nfa.ansatz.row import AnsatzRow, write_csv

PATCH = {"layer": "conv1", "kind": "conv2d", "patch": "1x2x2", "input_shape": "1x3x3"}


def spd(size, seed, rank=None):
    """A random positive semi-definite matrix."""
    factor = torch.randn(size, rank or 2 * size, generator=torch.Generator().manual_seed(seed))
    return factor @ factor.mT


def make_run(folder, model="mlp", seed=0, accuracy=0.9, *, features=True, facts=None, **summary):
    """Write the files of a run; what is None in ``summary`` is left out of it."""
    folder.mkdir(parents=True)
    known = {
        "model": model, "data": "digits", "seed": seed, "options": [], "run": secrets.token_hex(4),
        "test/accuracy": accuracy, "test_split": "f" * 16, "normalize": "channel", "n_train": 90, "n_val": 10,
        "n_test": 100, "epochs": 2, "fit_seconds": 1.5, "fit_memory_mb": 300.0, "kind": "net",
        "num_parameters": 1000, "nfa": "0.2.0", "torch": "2.15.0",
    }  # fmt: skip
    known = {k: v for k, v in (known | summary).items() if v is not None}
    (folder / "summary.json").write_text(json.dumps(known))
    with (folder / "metrics.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        names = [name for name in ("test/accuracy", "test/mse") if name in known]
        score = [known[name] for name in names]
        none = [""] * len(names)
        writer.writerow(["epoch", "step", "seconds", "train/loss", "val/accuracy", *names])
        writer.writerows(
            [[1, 10, 0.5, 1.0, 0.5, *none], [2, 20, 1.0, 0.5, 0.8, *none], [2, 20, 1.0, "", "", *score]]
        )
    rows = [
        AnsatzRow("conv1", "conv2d", 4, 8, alignment=0.5 * epoch, z=3.0 * epoch, cosine=0.9, null_mean=0.8,
                  null_std=0.01, alpha_fit=0.6, epoch=epoch)
        for epoch in (0.0, 1.0, 2.0)
    ]  # fmt: skip
    write_csv(folder / "ansatz.csv", rows, with_epoch=True)
    if features:
        tensors = {
            "nfm": spd(4, 10 * seed + 1), "agop": spd(4, 10 * seed + 2), "patch_covariance": spd(4, 3),
            "input_agop": spd(9, 10 * seed + 4), "inputs": torch.randn(20, 9),
        }  # fmt: skip
        save_file(tensors, folder / "features.safetensors", PATCH if facts is None else facts)
    return folder
