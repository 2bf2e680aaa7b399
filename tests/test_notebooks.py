"""The notebooks of docs/: what is saved in them is whole, and they run."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
LARGEST = 500_000  # bytes of a notebook with its outputs
# What a reader is shown in each: words of the printed or drawn outputs.
SHOWN = {
    "audit_a_network": ["test accuracy 0.9", 'class="nfa-report"', "above null", "step 270", "image/png"],
    "compare_with_rfm": ["test error of the RFM", "AGOP of the network", "by chance", "image/png"],
}

nbformat = pytest.importorskip("nbformat")


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook):
    """All outputs as text."""
    return "\n".join(str(output) for cell in code_cells(notebook) for output in cell.outputs)


def check_outputs(notebook, name):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds <= {"stream", "execute_result", "display_data"}  # no error
    assert {output.name for cell in cells for output in cell.outputs if "name" in output} <= {"stdout"}
    assert [words for words in SHOWN[name] if words not in shown(notebook)] == []


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_saved_notebook(path):
    """It was run from top to bottom without an error, is small, and tells nothing of the machine."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    check_outputs(notebook, path.stem)
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < LARGEST
    assert not {part for part in ("/root", "/home", "/tmp", "/work") if f"{part}/" in text}
    assert "<script" not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_page_of_a_notebook(path):
    """It holds every cell with its output."""
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("notebook_pages", ROOT / "docs" / "notebook_pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    notebook, page = nbformat.read(path, as_version=4), pages.markdown_of(path)
    assert page.startswith("# ")
    assert f"]({path.name})" in page
    assert [cell.source for cell in notebook.cells if cell.source not in page] == []
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    printed = [output.text.rstrip() for output in outputs if output.output_type == "stream"]
    assert printed
    assert [text for text in printed if text not in page] == []
    drawn = ["image/png" in output.get("data", ()) for output in outputs]
    assert page.count("data:image/png;base64,") == sum(drawn)


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    """All of it in a kernel of its own, in an empty folder, without an error and with the key outputs."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    notebook = nbformat.read(path, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3", resources=resources).execute()
    check_outputs(notebook, path.stem)
