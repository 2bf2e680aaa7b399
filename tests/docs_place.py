"""What the commands of the documentation need around them, small, and made only where it is named."""

import importlib
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy
import pytest
import torch
import yaml
from PIL import Image

import nfa
import train
from tests.set_files import MAKERS

ROOT = Path(__file__).parent.parent
SAMPLES = {"n_train": 40, "n_test": 20}  # what the sets of tests/set_files.py have


# ---- train.py in this process ------------------------------------------------------------------------------


def train_py(arguments):
    """``python train.py …`` in this process; returns the exit status."""
    before = sys.argv, signal.getsignal(signal.SIGINT)
    sys.argv = ["train.py", *arguments]
    try:
        train.main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = before[0]
        signal.signal(signal.SIGINT, before[1])  # Lightning ignores further Ctrl-C after the first
    return 0


PROBE = {"samples": 8, "batch_size": 8, "every_n_epochs": 0, "nulls": 2, "pictures": 1}
AUDIT = {"max_samples": 4, "layers": "layer1.0.*", "size": 32, "nulls": 2, "pictures": 1}


def small(arguments):
    """Options that make a run small; what was typed stays as it is, the number of runs too."""
    typed = {a.lstrip("+~").split("=")[0] for a in arguments}
    if "--help" in arguments:
        return []
    if "ckpt_path" in typed:  # takes the options of the run over
        return [] if "-m" in arguments else ["trainer.max_epochs=2"]
    chosen = [a.split("=")[1] for a in arguments if a.startswith("+experiment=")]
    experiment = _yaml(f"experiment/{chosen[0]}") if chosen else {}
    options = _sizes(arguments, typed, experiment)
    return [f"{key}={value}" for key, value in options.items() if key.lstrip("+") not in typed]


def _sizes(arguments, typed, experiment):
    if "audit" in experiment:
        return {f"++audit.{key}": value for key, value in AUDIT.items()}
    options = {"logger": "csv", **{f"++data.{name}": n for name, n in SAMPLES.items()}}
    if "data=star" in arguments or {"override /data": "star"} in experiment.get("defaults", []):
        options["data.size"] = 16
    if "passes" in experiment.get("data", {}):
        options["data.passes"] = 2
    if "callbacks" not in typed and experiment.get("callbacks", {}).get("ansatz", {}) is not None:
        options |= {f"callbacks.ansatz.{key}": value for key, value in PROBE.items()}
    if "trainer" not in typed:
        options["trainer.accelerator"] = "cpu"
    if "epochs" in experiment:
        return options | {f"epochs.{model}": min(n, 2) for model, n in experiment["epochs"].items()}
    named = [a.removeprefix("model=").split(",") for a in arguments if a.startswith("model=")]
    models = named[-1] if named else ["resnet"]
    if experiment:
        options["trainer.max_epochs"] = 2
    elif not any("rfm" in model for model in models):
        options["trainer.max_epochs"] = 1
    if not experiment and all("width" in _model(model) for model in models):
        options["model.width"] = 8
    return options


def _model(name):
    """Options of a model; none of one that is not of the project."""
    content = _yaml(f"model/{name}")
    return content.get("model", content)


def _yaml(name):
    path = ROOT / "configs" / f"{name}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


# ---- what is prepared --------------------------------------------------------------------------------------


class Stock:
    """Files by the name that commands call them, made when first asked for and kept for the session."""

    def __init__(self, folder, files):
        self.folder, self.files = folder, files

    def lay(self, place, command):
        """Put what a command names into a folder, and the files that the documentation shows."""
        for name, text in self.files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
        for name, (path, make) in {**{name: (name, make) for name, make in MADE.items()}, **SETS}.items():
            if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", command):
                self.put(place, path, make)
        for name in re.findall(r"torchvision:(\w+)(?![\w@])", command):
            self.put(place, f"hub/checkpoints/{_weights(name).url.rpartition('/')[2]}", _published(name))
        if "ckpt_path=last" in command:
            name = "runs/my_sweep" if "-m" in command.split() else "runs/my_run"
            self.put(place, name, MADE[name])
            if "-m" in command.split():
                _kill_last_job(place / name)

    def put(self, place, name, make):
        """Make the file or folder if it is not there yet, and copy it."""
        source, target = self.folder / name, place / name
        if not source.exists():
            source.parent.mkdir(parents=True, exist_ok=True)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(self.folder)
                patch.setenv("PYTHONPATH", str(ROOT))  # train.py adds to it
                make(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            return
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.symlink_to(source)


def photos(folder):
    rng = numpy.random.default_rng(0)
    for part, count in zip(("train", "test"), SAMPLES.values(), strict=True):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for i in range(count // 2):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=numpy.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")


def torchvision_set(name):
    return lambda path: MAKERS[name](path.parent)


def table(path):
    rng = numpy.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'red' if a > 0 else 'blue'},{a - b:.4f}" for a, b in rng.normal(size=(100, 2))]
    path.write_text("\n".join(["length,width,colour,price", *rows]) + "\n")


def of_price(folder):
    table(Path("table.csv"))
    run("model=mlp", "data=tabular", "data.path=table.csv", "data.target=price")(folder)


def inputs(path):
    rng = numpy.random.default_rng(0)
    numpy.savez(path, x=rng.normal(size=(16, 3, 32, 32)).astype("float32"), y=numpy.arange(16) % 10)


def own_weights(path):
    """Of ``my_nets.build``, which the documentation shows."""
    from safetensors.torch import save_file

    save_file(importlib.import_module("my_nets").build().state_dict(), path)


def gpt2(folder):
    """A language model with random weights, and a tokenizer whose tokens are bytes."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=256, n_positions=128)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    bytes_only = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    bytes_only.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=bytes_only).save_pretrained(folder)


def run(*arguments):
    """A finished run, trained in the folder it is asked for in."""

    def make(folder):
        where = f"hydra.run.dir={folder.relative_to(Path.cwd())}"
        assert train_py([*arguments, *small(arguments), where]) == 0

    return make


def sweep(folder):
    arguments = ["-m", "model=mlp,rfm", "seed=0,1", f"hydra.sweep.dir={folder.relative_to(Path.cwd())}"]
    assert train_py([*arguments, *small(arguments)]) == 0


def _kill_last_job(folder):
    """As if the sweep had died in its last job."""
    (sorted(folder.glob("*/summary.json"))[-1]).unlink()


def _weights(name):
    return pytest.importorskip("torchvision.models").get_model_weights(name).DEFAULT


def _published(name):
    """Random weights in the place of those that torchvision would download."""

    def make(path):
        model = importlib.import_module("torchvision.models").get_model(name)
        torch.save(model.state_dict(), path)

    return make


SETS = {
    "cifar10": ("data/cifar-10-batches-py", torchvision_set("CIFAR10")),
    "mnist": ("data/MNIST", torchvision_set("MNIST")),
}


def report(path):
    """An audit in a folder, or a report in a file."""
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    if not path.suffix:
        path.mkdir()
    nfa.audit(net, list(torch.randn(4, 8, 6))).save(path if path.suffix else path / "audit.json")


MADE = {
    "photos": photos,
    "table.csv": table,
    "new_table.csv": table,
    "inputs.npz": inputs,
    "text.txt": lambda path: path.write_text("The quick brown fox jumps over the lazy dog. " * 30),
    "net.safetensors": own_weights,
    "gpt2": gpt2,
    "runs/my_run": run("model=mlp"),
    "runs/my_rfm": run("model=rfm"),
    "runs/of_mine": run(
        "model=mlp", "model._target_=my_nets.MyNet", "~model.depth", "~model.activation", "~model.bias"
    ),
    "runs/of_price": of_price,
    "runs/my_sweep": sweep,
    "audits/before": report,
    "audits/after": report,
    "report.json": report,
}
