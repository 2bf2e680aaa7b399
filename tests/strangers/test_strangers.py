"""Projects of people who know nothing of this one: a few lines of ours, and their training as before."""

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

from tests.waiting import HANGS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
NEEDS = {
    "plain_loop": (),
    "pl_images": ("pytorch_lightning",),
    "lightning_series": ("lightning",),
    "bert_sentences": ("transformers", "accelerate"),
    "timm_images": ("timm",),
}
MEASURED = {
    "plain_loop": [0, 6, 12, 18, 24],
    "pl_images": [0, 1, 2, 3],
    "lightning_series": [0, 2, 4],
    "bert_sentences": [0, 1, 2],
    "timm_images": [0, 6, 12],
}


def needed(project):
    for package in NEEDS[project]:
        pytest.importorskip(package)


def project_of(name):
    spec = importlib.util.spec_from_file_location(f"stranger_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("project", NEEDS)
@pytest.mark.filterwarnings("ignore")  # of the frameworks, each has its own
def test_their_training_is_untouched(project, capsys, monkeypatch, tmp_path):
    needed(project)
    monkeypatch.chdir(tmp_path)
    main = project_of(project).main
    alone = main(False)
    capsys.readouterr()
    watched = main(True)
    assert len(alone) == len(watched)
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    out = capsys.readouterr().out
    assert "measuring takes" in out
    assert "Of " in out
    assert str([float(epoch) for epoch in MEASURED[project]]) in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("project", NEEDS)
def test_few_lines_are_ours(project):
    text = (HERE / f"{project}.py").read_text()
    ours = [line for line in text.splitlines() if "# nfa" in line]
    assert 3 <= len(ours) <= 15
    assert all(
        "# nfa" in line for line in text.splitlines() if "nfa" in line or "monitor" in line.split("=")[0]
    )


def test_every_project_is_run():
    assert sorted(NEEDS) == sorted(p.stem for p in HERE.glob("*.py") if not p.stem.startswith("test_"))


# ---- the wheel alone --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python that has the wheel, sees what is installed here, and knows nothing of this checkout."""
    folder = tmp_path_factory.mktemp("strangers")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    source = folder / "source"  # a build leaves files behind
    for path in (
        ROOT / "pyproject.toml",
        *ROOT.glob("README*"),
        *ROOT.glob("LICEN*"),
        *ROOT.glob("nfa/**/*"),
    ):
        if path.is_file() and "__pycache__" not in path.parts:
            copy = source / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    output(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    site = output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    output(*pip, "install", "--no-deps", "--target", site, wheel)
    # folders on the path; the .pth files in them, of which one may name the checkout, are not read
    Path(site, "installed.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    return python


def output(*command, cwd=None):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=HANGS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_the_wheel_is_what_is_imported(python, tmp_path):
    show = "import sys, nfa; print(nfa.__file__, *sys.path, sep='\\n'); print(*sys.modules, sep='\\n')"
    file, *lines = output(python, "-c", show, cwd=tmp_path).splitlines()
    assert str(python.parent.parent) in file
    assert not {str(ROOT), "lightning", "pytorch_lightning", "transformers", "timm", "wandb"} & set(lines)
    names = ("callbacks", "lab", "models", "datamodules", "train")
    found = f"from importlib.util import find_spec; print([n for n in {names} if find_spec(n)])"
    assert output(python, "-c", found, cwd=tmp_path).strip() == "[]"


@pytest.mark.long
@pytest.mark.parametrize("project", NEEDS)
def test_from_the_wheel(project, python, tmp_path):
    needed(project)
    script = tmp_path / f"{project}.py"
    script.write_text((HERE / script.name).read_text())
    alone = output(python, script.name, cwd=tmp_path).splitlines()
    watched = output(python, script.name, "measure", cwd=tmp_path).splitlines()
    assert alone[-1].startswith("left behind:")
    assert watched[-1] == alone[-1]
    assert watched[-2] == str([float(epoch) for epoch in MEASURED[project]])
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == [script.name]
