"""Files that try to run code when they are read. Whatever runs leaves a file RAN behind."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file

MARK = "RAN"
WEIGHTS = {"1.weight": torch.ones(10, 64) / 64, "1.bias": torch.zeros(10)}
INPUTS = {"mean": [0.5], "std": [0.2], "size": [8, 8], "channels": 1}


def source(folder, body=""):
    """Python that leaves the mark when it is imported, and again when any of its functions is called."""
    return (
        f"open({str(Path(folder, MARK))!r}, 'w').close()\n"
        "import torch\n"
        "def build(*args, **options):\n"
        f"    open({str(Path(folder, MARK))!r}, 'w').close()\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
        f"Net = MLP = ResNet = load = resnet18 = create_model = build\n{body}"
    )


class Command:
    """Pickles as a call of a shell."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.system, (f"touch {Path(self.folder, MARK)}",)


def checkpoint(path, net, *, state=None, hyper=(), **more):
    """What a run of the lab keeps, of a network called ``net``."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    content = {
        "pytorch-lightning_version": "2.6.0",
        "hyper_parameters": {"net": net, **dict(hyper)},
        "state_dict": state or WEIGHTS,
        "inputs": INPUTS,
        **more,
    }
    torch.save(content, path)


def pickled(path, folder, old=False):
    """A checkpoint that is a call."""
    torch.save({"state_dict": Command(folder)}, path, _use_new_zipfile_serialization=not old)


def plain_pickle(path, folder):
    """No archive, a pickle alone."""
    Path(path).write_bytes(pickle.dumps(Command(folder)))


def object_array(path, folder):
    """An ``.npz`` or ``.npy`` of objects, which numpy unpickles where it is allowed to."""
    array = numpy.empty(4, dtype=object)
    array[:] = [Command(folder)] * 4
    if str(path).endswith(".npz"):
        numpy.savez(path, inputs=array)
    else:
        numpy.save(path, array)


def archive_with_pickle(path, folder):
    """An ``.npz`` whose member is a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inputs.npy", pickle.dumps(Command(folder)))


def cifar_batches(root, folder):
    """What torchvision's CIFAR-10 would unpickle, if its checksum were right."""
    place = Path(root) / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        (place / name).write_bytes(pickle.dumps(Command(folder)))


def machine(path, **metadata):
    """A saved kernel machine with other metadata."""
    save_file({"centers": torch.ones(3, 2), "coefficients": torch.ones(3, 1)}, path, metadata)


def transformers_folder(folder, mark, config=None, **files):
    """A folder that transformers would load, with code in it."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    plain = {
        "model_type": "bert", "architectures": ["BertModel"], "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**plain, **(config or {})}))
    (folder / "evil.py").write_text(source(mark))
    for name, content in files.items():
        target = folder / name.replace("__", ".")
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            target.write_text(json.dumps(content))


def bytes_of(obj):
    """A file of torch in memory."""
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    return buffer.getvalue()


def run_folder(folder, overrides=(), net=None, **summary):
    """A folder that looks like a finished run."""
    folder = Path(folder)
    checkpoint(folder / "checkpoints" / "last.ckpt", net or {"_target_": "nfa.nets.MLP"})
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {json.dumps(o)}\n" for o in overrides))
    (folder / "summary.json").write_text(json.dumps({"model": "mlp", "data": "digits", "seed": 0, **summary}))
    return folder
