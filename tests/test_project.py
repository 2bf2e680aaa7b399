"""What the project says of itself: its names, its versions, its extras."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

import nfa

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOLDERS = ("nfa", "lab", "models", "datamodules", "callbacks", "docs")


def written():
    """Text of every file that users read or whose messages they see."""
    found = chain(*((ROOT / folder).rglob("*.*") for folder in FOLDERS), ROOT.glob("*.md"))
    return {path: path.read_text(encoding="utf-8") for path in found if path.suffix in (".py", ".md")}


def test_extras_are_asked_for_by_the_name_of_the_distribution():
    asked = re.compile(r"([A-Za-z][\w.-]*)\[([\w,]+)\]")
    named = [match for words in EXTRAS["dev"] for match in asked.findall(words)]
    for text in written().values():
        named += asked.findall(" ".join(re.findall(r"pip install[^\n`]*", text)))
    assert named
    assert {name for name, _ in named} == {PROJECT["name"]}
    assert {extra for _, extras in named for extra in extras.split(",")} <= set(EXTRAS)


@pytest.mark.long
def test_a_wheel_holds_the_library_alone(tmp_path):
    """All of ``nfa``, its marker of types, its licence, nothing of the lab; named and numbered as told."""
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    leave_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "nfa", source / "nfa", ignore=leave_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "lab").mkdir()
    (source / "lab" / "__init__.py").touch()
    command = "import sys; from setuptools.build_meta import build_wheel as b; b(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", command, str(tmp_path)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"{PROJECT['name'].replace('-', '_')}-{nfa.__version__}-py3-none-any.whl"
    held = set(zipfile.ZipFile(wheel).namelist())
    files = {str(path.relative_to(source)) for path in (source / "nfa").rglob("*") if path.is_file()}
    assert files <= held
    assert "nfa/py.typed" in held
    own = f"{PROJECT['name'].replace('-', '_')}-{nfa.__version__}.dist-info/"
    assert {name.partition("/")[0] for name in held} == {"nfa", own.rstrip("/")}
    assert f"{own}licenses/LICENSE" in held


def test_all_files_tell_the_same_version():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changes, re.MULTILINE)[0] == nfa.__version__
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [nfa.__version__]
    released = re.search(rf"^## \[{re.escape(nfa.__version__)}\] - (\S+)$", changes, re.MULTILINE)
    assert re.findall(r"^date-released: (.*)$", citation, re.MULTILINE) == [released[1]]


def test_every_paper_that_the_source_names_is_credited():
    named = re.compile(r"(?:arXiv[ :]*|abs/)(\d{4}\.\d{5})")
    files = chain(*((ROOT / "nfa").rglob(f"*.{ending}") for ending in ("py", "html")))
    sources = "".join(path.read_text(encoding="utf-8") for path in files)
    credited = named.findall((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert set(named.findall(sources)) <= set(credited)
