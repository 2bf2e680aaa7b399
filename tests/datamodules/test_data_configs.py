from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import MissingMandatoryValue, OmegaConf

from datamodules import TensorDataModule, TorchvisionSet

FOLDER = Path(__file__).parents[2] / "configs" / "data"
FILES = sorted(FOLDER.glob("*.yaml"))


def read(file, **overrides):
    config = OmegaConf.create({"seed": 3, "data": OmegaConf.load(file)})
    config.data.update(overrides)
    return config.data


def test_all_data_sets_have_a_file():
    images = "cifar10 cifar100 digits fashion_mnist gtsrb image_folder mnist stl10 svhn"
    tables = "breast_cancer california_housing diabetes tabular wine"
    synthetic = "low_rank modular sparse_parity staircase two_clusters"
    local = "bars pasted_digits star"
    assert [f.stem for f in FILES] == sorted(f"{images} {tables} {synthetic} {local}".split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_builds_its_datamodule(path):
    needed = {"image_folder": {"root": "somewhere"}, "tabular": {"path": "some.csv", "target": "y"}}
    data = instantiate(read(path, **needed.get(path.stem, {})))
    assert isinstance(data, TensorDataModule)
    assert data.seed == 3
    assert path.read_text().startswith("# ")


def test_the_data_folder_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("NFA_DATA", "elsewhere")
    data = instantiate(read(FOLDER / "cifar10.yaml"))
    assert isinstance(data, TorchvisionSet)
    assert data.root == Path("elsewhere")


def test_image_folder_has_to_be_told_where():
    with pytest.raises(MissingMandatoryValue, match="root"):
        _ = read(FOLDER / "image_folder.yaml").root
