"""A page of the documentation for every notebook in it, with the outputs that it was saved with."""

from collections.abc import Iterator
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put a page beside every notebook; MkDocs calls this before it reads the pages."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = str(Path(notebook.src_uri).with_suffix(".md").as_posix())
        files.append(File.generated(config, page, content=markdown_of(Path(notebook.abs_src_path))))
    return files


def markdown_of(path: Path) -> str:
    """The notebook as Markdown: text as it is, code and printed lines fenced, what is shown as HTML.

    A link to the notebook itself stands below its heading.
    """
    heading, *cells = nbformat.read(path, as_version=4).cells
    link = f"The [notebook]({path.name}) itself, to run and to change."
    return "\n\n".join([heading.source, link, *(part for cell in cells for part in _parts(cell))]) + "\n"


def _parts(cell: nbformat.NotebookNode) -> Iterator[str]:
    if cell.cell_type == "markdown":
        yield cell.source
        return
    yield _fenced(cell.source, "python")
    for output in cell.outputs:
        yield _shown(output)


def _shown(output: nbformat.NotebookNode) -> str:
    if output.output_type == "stream":
        return _fenced(output.text, "text")
    if "text/html" in output.data:  # as one block: Markdown ends one at a blank line
        return "\n".join(line for line in output.data["text/html"].splitlines() if line.strip())
    text = output.data["text/plain"]
    if "image/png" in output.data:
        return f'<img alt="{text}" src="data:image/png;base64,{output.data["image/png"].strip()}">'
    return _fenced(text, "text")


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"
