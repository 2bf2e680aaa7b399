"""Attempts to run code with a file that is only read: none runs, and each ends in one line."""

import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

import nfa
from nfa.command.cli import main
from tests.attacks import payloads
from tests.attacks.payloads import MARK, checkpoint, run_folder, source

ROOT = Path(__file__).parents[2]
FILE = ("audit", "file:x.ckpt", "--data", "digits", "--out", "o")
NET = (
    "audit",
    "own_net:build",
    "--weights",
    "w.pth",
    "--data",
    "digits",
    "--mean",
    "0",
    "--std",
    "1",
    "--out",
    "o",
)
DATA = ("audit", "own_net:build", "--mean", "0", "--std", "1", "--out", "o", "--data")
OWN = "import torch\ndef build(): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory from which, at worst, Python imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    (tmp_path / "own_net.py").write_text(OWN)
    (tmp_path / "evil.py").write_text(source(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def imported_from(place):
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    return sorted(Path(f).name for f in files if str(f).startswith(str(place)))


def nfa_says(place, capfd, *arguments):
    """What ``nfa`` prints, after a look at what it ran."""
    try:
        code = main(list(arguments))
    except SystemExit as stop:
        code = stop.code
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert code in (0, 2), err
    untouched(place)
    return code, out, err


def untouched(place):
    assert not (place / MARK).exists()
    assert set(imported_from(place)) <= {"own_net.py"}


# ---- names in checkpoints --------------------------------------------------------------------------------

TARGETS = {
    "a function of the project": {"_target_": "nfa.files.write_whole", "path": "evil2.py", "text": "x"},
    "one in another": {
        "_target_": "evil.build",
        "a": {"_target_": "nfa.files.write_whole", "path": "p.py", "text": "x"},
    },
    "own module": {"_target_": "evil.build"},
    "own class": {"_target_": "evil.Net"},
    "nested": {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "evil.build"}]},
    "as an argument": {
        "_target_": "torch.nn.Linear",
        "in_features": {"_target_": "evil.build"},
        "out_features": 1,
    },
    "deep in an argument": {"_target_": "nfa.nets.MLP", "activation": [{"a": [{"_target_": "evil.build"}]}]},
    "partial": {"_target_": "evil.build", "_partial_": True},
    "partial of a layer": {"_target_": "torch.nn.Linear", "_partial_": True},
    "shell": {"_target_": "os.system", "_args_": ["touch RAN"]},
    "subprocess": {"_target_": "subprocess.run", "args": ["touch", "RAN"]},
    "eval": {"_target_": "builtins.exec", "_args_": ["open('RAN', 'w')"]},
    "hydra": {"_target_": "hydra.utils.instantiate", "config": {"_target_": "evil.build"}},
    "hydra's import": {"_target_": "hydra.utils.get_object", "path": "evil.build"},
    "hub": {"_target_": "torch.hub.load", "repo_or_dir": ".", "model": "build", "source": "local"},
    "torch.load": {"_target_": "torch.load", "f": "x.ckpt", "weights_only": False},
    "jit": {"_target_": "torch.jit.load", "f": "x.pt"},
    "C++": {"_target_": "torch.utils.cpp_extension.load", "name": "x", "sources": ["x.cpp"]},
    "importlib": {"_target_": "importlib.import_module", "name": "evil"},
    "runpy": {"_target_": "runpy.run_path", "path_name": "evil.py"},
    "pip": {"_target_": "pip.main", "args": ["install", "evil"]},
    "the lab's builder": {
        "_target_": "models.build_model",
        "model": {"_target_": "evil.build"},
        "training": {},
        "data": None,
    },
    "the lab's module": {
        "_target_": "models.NeuralModule",
        "net": {"_target_": "evil.build"},
        "task": "x",
        "num_outputs": 1,
    },
    "an attribute": {"_target_": "models.mlp.nn.modules.sys.modules"},
    "timm's loader": {"_target_": "timm.models.load_checkpoint", "model": None, "checkpoint_path": "x.ckpt"},
    "timm from the hub": {
        "_target_": "timm.create_model",
        "model_name": "hf_hub:evil/evil",
        "pretrained": True,
    },
    "timm from a folder": {"_target_": "timm.create_model", "model_name": "local-dir:evil"},
    "timm with a path": {
        "_target_": "timm.create_model",
        "model_name": "test_vit",
        "act_layer": "evil.build",
    },
    "transformers": {"_target_": "transformers.pipeline", "model": "evil", "trust_remote_code": True},
    "a setter": {"_target_": "builtins.setattr", "_args_": []},
    "stringly": {"_target_": "nfa.nets.MLP", "input_shape": "__import__('evil')", "num_outputs": 1},
    "resolver": {
        "_target_": "nfa.nets.MLP",
        "input_shape": [64],
        "num_outputs": 10,
        "activation": "${evil:}",
    },
    "no name": {"_target_": ["evil.build"]},
    "main": {"_target_": "__main__.build"},
    "a script": {"_target_": "train.main"},
    "a test's": {"_target_": "tests.nets.Picky"},
}


@pytest.mark.parametrize("net", TARGETS.values(), ids=TARGETS)
def test_networks_that_a_checkpoint_names(place, capfd, net):
    checkpoint("x.ckpt", net)
    code, _, err = nfa_says(place, capfd, *FILE)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sorted(p.name for p in place.iterdir()) == ["evil.py", "own_net.py", "x.ckpt"]


@pytest.mark.parametrize("net", list(TARGETS.values())[:8], ids=list(TARGETS)[:8])
def test_arguments_that_a_run_kept(place, capfd, net):
    """The user's own function is named; the file still decides nothing but plain values."""
    (place / "own_net.py").write_text(OWN.replace("build()", "build(a=None, **more)"))
    checkpoint("w.pth", {**net, "_target_": "own_net.build"})
    code, _, _ = nfa_says(place, capfd, *NET)
    assert code == (0 if set(net) == {"_target_"} else 2)


def test_a_checkpoint_for_lightning(place):
    from models import NeuralModule

    plain = {"task": "classification", "num_outputs": 10}
    for hyper in ({"net": {"_target_": "evil.build"}}, {"net": [{"_target_": "evil.build"}]}):
        checkpoint("x.ckpt", None, hyper={**plain, **hyper})
        with pytest.raises(nfa.NfaError):
            NeuralModule.load_from_checkpoint("x.ckpt")
    for key in ("hparams", "module_arguments"):
        checkpoint("x.ckpt", None, hyper=plain, **{key: {"net": {"_target_": "evil.build"}}})
        with pytest.raises(nfa.NfaError):
            NeuralModule.load_from_checkpoint("x.ckpt")
    untouched(place)


LARGE = {
    "a picture blown up": ("Upsample", {"size": [20_000, 400_000]}),
    "padding": ("ConstantPad2d", {"padding": [0, 10**6, 0, 10**5], "value": 0.0}),
}


@pytest.mark.parametrize(("layer", "options"), LARGE.values(), ids=LARGE)
def test_a_network_that_takes_memory_when_it_is_called(place, capfd, layer, options):
    layers = [
        {"_target_": "torch.nn.Flatten"},
        {"_target_": "torch.nn.Linear", "in_features": 64, "out_features": 10},
        {"_target_": "torch.nn.Unflatten", "dim": 1, "unflattened_size": [1, 10, 1]},
        {"_target_": f"torch.nn.{layer}", **options},
        {"_target_": "torch.nn.AdaptiveAvgPool2d", "output_size": [10, 1]},
        {"_target_": "torch.nn.Flatten"},
    ]
    checkpoint("x.ckpt", {"_target_": "torch.nn.Sequential", "_args_": layers})
    code, _, err = nfa_says(place, capfd, *FILE)
    assert code == 2
    assert "calling the network would take" in err


NUMBERS = {
    "of a layer": {
        "net": {"_target_": "nfa.nets.MLP", "input_shape": [64], "num_outputs": 10, "depth": 10**400}
    },
    "of layers": {"net": {"_target_": "timm.models.convnext_tiny", "depths": [10**8] * 12}},
    "of a scale": {"hyper": {"init_scale": 10**400}},
    "of a mean": {"inputs": {"mean": [10**400], "std": [1.0], "size": [8, 8], "channels": 1}},
    "rows that are a tensor": {"callbacks": {"M": {"initial_rows": torch.ones(3, 2), "initial_weights": {}}}},
}


@pytest.mark.parametrize("change", NUMBERS.values(), ids=NUMBERS)
def test_numbers_without_bounds(place, capfd, change):
    net = {"_target_": "nfa.nets.MLP", "input_shape": [64], "num_outputs": 10, "depth": 1, "width": 4}
    checkpoint("x.ckpt", **{"net": net, **change})
    code, _, err = nfa_says(place, capfd, *FILE)
    assert code == 2
    assert err.count("\n") == 1


def test_a_folder_called_models_beside_a_run_is_the_strangers(place, capfd):
    for name in ("models", "nfa", "lab"):
        (place / name).mkdir()
        (place / name / "__init__.py").write_text(source(place))
        (place / name / "mlp.py").write_text(source(place))
    net = {"_target_": "models.MLP", "input_shape": [1, 8, 8], "num_outputs": 10, "depth": 1, "width": 4}
    good = nfa.nets.MLP([1, 8, 8], 10, 1, 4).state_dict()
    checkpoint("x.ckpt", net, state=good)
    assert nfa_says(place, capfd, *FILE, "--max-samples", "8", "--nulls", "2", "--pictures", "0")[0] == 0
    for target in ("models.evil.Net", "lab.Net", "nfa.evil.Net"):
        checkpoint("x.ckpt", {"_target_": target})
        assert nfa_says(place, capfd, *FILE)[0] == 2


# ---- files of weights, inputs, machines ------------------------------------------------------------------

PICKLES = {
    "archive": payloads.pickled,
    "old format": lambda path, folder: payloads.pickled(path, folder, old=True),
    "plain pickle": payloads.plain_pickle,
}


@pytest.mark.parametrize("make", PICKLES.values(), ids=PICKLES)
def test_weights_that_are_pickles(place, capfd, make):
    make("w.pth", place)
    make("x.ckpt", place)
    assert nfa_says(place, capfd, *NET)[0] == 2
    assert nfa_says(place, capfd, *FILE)[0] == 2


def test_a_scripted_network_in_a_file(place, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(torch.nn.Linear(3, 2)).save("w.pth")
    assert nfa_says(place, capfd, *NET)[0] == 2


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_arrays_of_objects(place, capfd, name):
    payloads.object_array(name, place)
    assert nfa_says(place, capfd, *DATA, name)[0] == 2


def test_an_archive_with_a_pickle(place, capfd):
    payloads.archive_with_pickle("x.npz", place)
    assert nfa_says(place, capfd, *DATA, "x.npz")[0] == 2


def test_a_set_of_torchvision_that_is_pickles(place, capfd):
    payloads.cifar_batches("data", place)
    assert nfa_says(place, capfd, *DATA, "cifar10")[0] == 2
    assert nfa_says(place, capfd, *DATA, "cifar10", "--root", "data")[0] == 2


def test_pictures_that_are_pickles(place, capfd):
    Path("photos/cat").mkdir(parents=True)
    Image.new("L", (8, 8)).save("photos/cat/0.png")
    payloads.plain_pickle("photos/cat/1.png", place)
    Path("photos/cat/evil.py").write_text(source(place))
    assert nfa_says(place, capfd, *DATA, "photos", "--size", "8")[0] == 2


MACHINES = {
    "a name": {"class": "evil.build", "options": "{}"},
    "a kernel": {"class": "RFM", "options": json.dumps({"kernel": "evil.build"})},
    "a target": {"class": "RFM", "options": json.dumps({"kernel": {"_target_": "evil.build"}})},
    "no JSON": {"class": "RFM", "options": "__import__('evil')"},
}


@pytest.mark.parametrize("metadata", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("machine", [nfa.RFM, nfa.DeepRFM, nfa.ConvRFM, nfa.DeepConvRFM])
def test_saved_machines(place, machine, metadata):
    payloads.machine("m.safetensors", **metadata)
    with pytest.raises(nfa.NfaError):
        machine.load("m.safetensors")
    payloads.plain_pickle("m.safetensors", place)
    with pytest.raises(nfa.NfaError):
        machine.load("m.safetensors")
    untouched(place)


# ---- folders of transformers -----------------------------------------------------------------------------

AUTO = {"AutoConfig": "evil.build", "AutoModel": "evil.Net", "AutoTokenizer": ["evil.build", None]}
FOLDERS = {
    "code for the class": {"config": {"auto_map": AUTO}},
    "code for an unknown type": {"config": {"model_type": "evil", "auto_map": AUTO}},
    "a class by path": {"config": {"architectures": ["evil.Net", "../evil.Net"]}},
    "weights of another repository": {"config": {"auto_map": {"AutoModel": "stranger/repo--evil.Net"}}},
    "a tokenizer with code": {"tokenizer_config__json": {"tokenizer_class": "Evil", "auto_map": AUTO}},
    "a processor with code": {
        "preprocessor_config__json": {"image_processor_type": "Evil", "auto_map": AUTO}
    },
}


@pytest.mark.parametrize("files", FOLDERS.values(), ids=FOLDERS)
def test_folders_of_transformers(place, capfd, monkeypatch, files):
    pytest.importorskip("transformers")
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("asked the network"))
    payloads.transformers_folder("hub", place, **files)
    Path("text.txt").write_text("some words " * 400)
    for name in ("hf:hub", "hf:hub@none"):
        nfa_says(place, capfd, "audit", name, "--data", "text.txt", "--tokens", "8", "--out", "o")


def test_weights_of_transformers_that_are_pickles(place, capfd):
    pytest.importorskip("transformers")
    files = {"pytorch_model__bin": pickle.dumps(payloads.Command(place))}
    payloads.transformers_folder("hub", place, **files)
    assert nfa_says(place, capfd, "audit", "hf:hub", "--data", "digits", "--out", "o")[0] == 2


# ---- run folders -----------------------------------------------------------------------------------------


def test_a_run_folder_brings_code(place, capfd):
    run_folder("runs/stranger", net={"_target_": "runs.stranger.evil.build"})
    for name in ("evil", "train", "nfa", "models", "sitecustomize", "usercustomize", "conftest", "setup"):
        Path(f"runs/stranger/{name}.py").write_text(source(place))
    code, _, err = nfa_says(place, capfd, "audit", "file:runs/stranger", "--data", "digits", "--out", "o")
    assert code == 2
    assert "nothing was imported" in err


@pytest.mark.parametrize(
    "summary",
    [
        {"model": {"_target_": "evil.build"}},
        {"settings": {"model._target_": "evil.build"}, "run": "a", "fit_seconds": 1, "test_split": "x"},
        {"model": "<script>alert(1)</script>", "data": "=cmd|' /C calc'!A0"},
        {"__class__": "evil.Net", "seed": {"__reduce__": "evil"}},
    ],
)
def test_comparisons_read_data_alone(place, capfd, summary):
    run_folder("runs/a", **summary)
    run_folder("runs/b", **summary)
    nfa_says(place, capfd, "compare", "runs/a", "runs/b", "--out", "o")


# ---- names that end up in terminals, tables and pages ----------------------------------------------------


def test_names_are_shown_and_not_acted_on(place, capfd):
    name = "\x1b]0;owned\x07\x1b[2J=HYPERLINK(1)\n</script><script>alert(1)</script>"
    numpy.savez("x.npz", inputs=numpy.ones((8, 3), dtype="float32"))
    (place / "named.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    net = nn.Sequential()\n"
        f"    net.add_module({name!r}, nn.Linear(3, 4))\n"
        "    net.add_module('=cmd', nn.Linear(4, 4))\n"
        "    net.add_module('last', nn.Linear(4, 2))\n"
        "    return net\n"
    )
    try:
        code = main(["audit", "named:build", "--data", "x.npz", "--out", "o"])
    except SystemExit as stop:
        code = stop.code
    out, err = capfd.readouterr()
    assert code == 0, err
    assert "\x1b" not in out + err
    assert "\x07" not in out + err
    assert "<script>alert" not in Path("o/audit.html").read_text()
    cells = [line.split(",")[0] for line in Path("o/audit.csv").read_text().splitlines()]
    assert not [cell for cell in cells if cell.lstrip('"')[:1] in "=+-@"]


# ---- in processes of their own: what is imported first is decided there ----------------------------------


def python(place, *arguments, cwd=None):
    """A process of Python in the folder of a stranger, with an empty home."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSTARTUP")}
    environment |= {"HOME": str(place / "home"), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    (place / "home").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd or place, env=environment, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert not (place / MARK).exists()
    return done


PACKAGES = ("torchvision", "timm", "models", "lab", "callbacks", "datamodules", "PIL", "sklearn", "wandb")
FIRST = (
    "numpy",
    "torch",
    "safetensors",
    "nfa",
    "hydra",
    "pandas",
)  # what `python -m nfa` itself looks for here


@pytest.mark.long
@pytest.mark.parametrize("way", ["module", "command"])
@pytest.mark.parametrize("target", ["torchvision.models.resnet18", "timm.models.resnet18", "models.MLP"])
def test_packages_of_the_working_folder_are_the_strangers(place, target, way):
    """``nfa`` where a stranger's torchvision, timm and models lie, beside the stranger's run."""
    run_folder("stranger", net={"_target_": target, "num_classes": 10})
    for name in PACKAGES + FIRST * (way == "command"):
        (place / name).mkdir()
        (place / name / "__init__.py").write_text(source(place))
    command = ["-m", "nfa"] if way == "module" else [str(Path(sys.executable).with_name("nfa"))]
    for arguments in (FILE, ("compare", "stranger", "--out", "o")):
        done = python(place, *command, *[a.replace("x.ckpt", "stranger") for a in arguments])
        assert done.returncode == 2


@pytest.mark.long
def test_in_the_checkout_of_the_project(place):
    """Where every file of the project counts as the user's own: nothing is written, nothing imported."""
    name = f"pwn_{os.getpid()}"
    text = source(place)
    net = {
        "_target_": f"{name}.build",
        "a": {"_target_": "nfa.files.write_whole", "path": f"{name}.py", "text": text},
    }
    checkpoint("x.ckpt", net)
    done = python(
        place,
        "-m",
        "nfa",
        "audit",
        f"file:{place}/x.ckpt",
        "--data",
        "digits",
        "--out",
        str(place / "o"),
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert not (ROOT / f"{name}.py").exists()
