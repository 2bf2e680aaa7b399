"""What files and folders of others may not have opened, allocated or told anybody."""

import contextlib
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import nfa
from nfa.inputs import load_inputs
from nfa.inputs.image_files import read_header
from nfa.integrations import wandb_sink
from nfa.zoo.hf_folder import check_folder

SERVER = "https://api.wandb.ai"


# ---- Weights & Biases --------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return tmp_path


def settings(folder, text):
    Path(folder).mkdir(exist_ok=True)
    (Path(folder) / "settings").write_text(text)


@pytest.mark.parametrize("folder", ["wandb", ".wandb"])
@pytest.mark.parametrize(
    "text",
    [
        "[default]\nbase_url = http://127.0.0.1:1\n",
        "[default]\nentity = me\nhttps_proxy = http://127.0.0.1:1\n",
        "[client]\napi_key = 1\n",
        "no settings",
        "\x00",
    ],
)
def test_a_folder_does_not_say_where_the_key_is_sent(place, folder, text):
    settings(folder, text)
    with pytest.warns(UserWarning, match="logging offline"):
        assert wandb_sink.default_mode() == "offline"


def test_what_a_folder_may_say(place, monkeypatch):
    settings("wandb", f"[default]\nentity = me\nproject = p\nbase_url = {SERVER}/\n")
    assert wandb_sink.default_mode() == "online"
    settings("home", "[default]\nbase_url = https://own.example\n")  # of the user
    with pytest.warns(UserWarning, match="base_url"):
        assert wandb_sink.default_mode() == "offline"
    settings("wandb", "[default]\nbase_url = https://own.example\n")
    assert wandb_sink.default_mode() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://other.example")
    with pytest.warns(UserWarning, match="base_url"):
        assert wandb_sink.default_mode() == "offline"


# ---- images, arrays ----------------------------------------------------------------------------------------


def test_no_postscript_is_run_for_an_image(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", lambda self: pytest.fail("was opened"))
    path = tmp_path / "0.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(nfa.NfaError, match="could not decode"):
        read_header(path)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "PPM", "BMP", "TIFF", "WEBP"])
def test_images_of_known_kinds_are_read(tmp_path, format):
    path = tmp_path / f"0.{format.lower()}"
    Image.new("RGB", (8, 6)).save(path, format)
    assert read_header(path).shape == (6, 8)


def test_a_header_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x02\x00" + (3 * 10**9).to_bytes(4, "little") + b" " * 100)
    with pytest.raises(nfa.NfaError, match="header of more than"):
        load_inputs(str(path))


# ---- folders of transformers -------------------------------------------------------------------------------


def folder(path, **files):
    path.mkdir()
    for name, content in {"config__json": {"model_type": "vit"}, **files}.items():
        (path / name.replace("__", ".")).write_text(json.dumps(content))
    return path


ELSEWHERE = {
    "above": {"model__safetensors__index__json": {"weight_map": {"w": "../secret.safetensors"}}},
    "absolute": {"pytorch_model__bin__index__json": {"weight_map": {"w": "/secret.bin"}}},
    "a number": {"model__safetensors__index__json": {"weight_map": {"w": 5}}},
    "no map": {"model__safetensors__index__json": {"weight_map": ["x"]}},
    "a processor": {"preprocessor_config__json": {"repo_path": "/abs", "class_info_file": "s.json"}},
    "labels": {"config__json": {"num_labels": 10**7}},
    "a size": {"config__json": {"hidden_size": 10**400}},
}


@pytest.mark.parametrize("files", ELSEWHERE.values(), ids=ELSEWHERE)
def test_folders_that_name_files_elsewhere_or_claim_too_much(tmp_path, files):
    with pytest.raises(nfa.NfaError):
        check_folder(folder(tmp_path / "hub", **files))


def test_folders_in_several_files_are_read(tmp_path):
    parts = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    check_folder(folder(tmp_path / "hub", model__safetensors__index__json=parts))


DAMAGED = {
    "architectures": ({"architectures": [5]}, {}),
    "a size": ({}, {"size": {"height": 10**400, "width": "x"}}),
    "a factor": ({}, {"rescale_factor": 0}),
    "a mean": ({}, {"image_mean": ["x"], "image_std": [0]}),
}


@pytest.mark.parametrize(("config", "processor"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_configurations_are_one_line(tmp_path, config, processor):
    transformers = pytest.importorskip("transformers")
    from nfa import zoo

    plain = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        image_size=8,
        patch_size=4,
    ).to_dict()
    kind = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}
    path = folder(
        tmp_path / "hub",
        config__json={**plain, **config},
        preprocessor_config__json={**kind, **processor},
    )
    with contextlib.suppress(nfa.NfaError):  # or it is built, where what is damaged is not needed
        zoo.load(f"hf:{path}@none")


def test_tables_of_a_set_name_files_of_the_set(tmp_path):
    from types import SimpleNamespace

    datasets = pytest.importorskip("torchvision.datasets")
    from nfa.inputs.torchvision_sets import files

    class Set(datasets.GTSRB):
        def __init__(self, *samples):
            self._base_folder, self._samples = tmp_path / "gtsrb", samples

    assert files(SimpleNamespace()) is None
    inside = str(tmp_path / "gtsrb" / "0.ppm")
    assert files(Set((inside, 0))) == [Path(inside)]
    for name in ("/etc/passwd", str(tmp_path / "gtsrb" / ".." / "x.png")):
        with pytest.raises(nfa.NfaError, match="elsewhere"):
            files(Set((inside, 0), (name, 1)))
