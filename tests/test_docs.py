"""Every command and every Python block of README.md and docs/ is run, with small data and sizes."""

import ast
import gc
import glob
import importlib
import importlib.util
import itertools
import math
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import nfa
from tests.docs_place import ROOT, Stock, small, train_py
from tests.set_files import switch_off_checksums
from tests.waiting import HANGS

# Commands of the documentation that are yet to be built. They are not run.
PLANNED = []

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("python", "python3", "nfa", "make", "pip")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(?:\.venv/bin/)?((?:python|make|nfa \w+) [^`\n]+)`")
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b|…")  # FILE, RUN, K+: nothing to be typed as it is


# ---- what stands in the documentation ----------------------------------------------------------------------


def blocks(page, *languages):
    """(position, text) of the fenced blocks of some languages."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [(match.start(), match[2]) for match in found if match[1] in languages]


def typed(page):
    """Commands of a page: lines of ``bash`` blocks, and what looks like one in plain blocks and in text."""
    for language in ("bash", ""):
        for _, text in blocks(page, language):
            lines = re.sub(r" *\\\n *", " ", text).splitlines()
            lines = [re.sub(r"(^|\s)#.*", "", line).strip().removeprefix(".venv/bin/") for line in lines]
            yield from (x for x in lines if x and (language == "bash" or x.split()[0] in PROGRAMS))
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    yield from (text for text in INLINE.findall(prose) if not PLACEHOLDER.search(text))


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in typed(page)))


def shown_files():
    """Name to content of the files that the documentation shows.

    A Python block that begins with the comment ``# name.py``; a YAML block with a ``_target_``, named by the
    last path in the text before it.
    """
    files = {}
    for page in PAGES:
        for start, text in blocks(page, "python", "yaml"):
            before = re.findall(r"`([\w/]+\.yaml)`", page.read_text(encoding="utf-8")[:start])
            own = re.match(r"# (\w+\.py)\n", text)
            name = own[1] if own else before[-1] if text.startswith("_target_") else None
            if name is not None:
                assert files.setdefault(name, text) == text, f"{name} is shown twice, in two versions"
    return files


# ---- the place they are run in -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def stock(tmp_path_factory):
    gc.freeze()  # each run collects garbage, and pytest holds a lot that is none
    yield Stock(tmp_path_factory.mktemp("stock"), shown_files())
    gc.unfreeze()


@pytest.fixture
def place(tmp_path, monkeypatch, stock):
    """Function ``place(text)``: work in a folder that holds what the text names."""
    from nfa.kernels import KERNELS

    known = dict(KERNELS)
    switch_off_checksums(monkeypatch)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # train.py adds to it
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *filter(None, sys.path)])
    monkeypatch.chdir(tmp_path)

    def prepare(text):
        stock.lay(tmp_path, text)
        return tmp_path

    yield prepare
    for name in stock.files:
        sys.modules.pop(Path(name).stem, None)
    KERNELS.clear()
    KERNELS.update(known)


def no_network(*args, **kwargs):
    raise OSError("no network in tests")


# ---- how they are run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_command(place, capsys, command):
    if command in PLANNED:
        pytest.skip("planned")
    place(command)
    run(command, capsys)


def run(command, capsys):
    words = [word for part in shlex.split(command) for word in (sorted(glob.glob(part)) or [part])]
    match words:
        case ["make", target]:
            check_target(target)
        case ["nfa", *arguments]:
            run_nfa(arguments, capsys)
        case ["python" | "python3", "-m", "venv", _]:
            pass
        case ["python" | "python3", "train.py", *arguments]:
            run_train(arguments, capsys)
        case ["pip", "install", *arguments]:
            check_extras(arguments)
        case ["python" | "python3", "-m", module, *arguments]:
            code = importlib.import_module(module).main(arguments)
            check_end(words, code, capsys.readouterr().err)
        case _:
            pytest.fail(f"nobody knows how to run {command!r}")


def run_nfa(arguments, capsys):
    from nfa.command.cli import main

    if arguments[0] == "audit":
        arguments = [*arguments, *small_audit(arguments)]
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    if not check_end(arguments, code, captured.err):
        return
    if arguments[0] == "predict":
        assert Path(arguments[arguments.index("--out") + 1]).read_text().count("\n") > 1
    elif "--out" in arguments:
        written = {path.suffix for path in Path(arguments[arguments.index("--out") + 1]).iterdir()}
        assert written >= ({".csv"} if "--protocol" in arguments else {".csv", ".html"})
    else:
        assert captured.out.strip()


def small_audit(arguments):
    """Options that make an audit small; what was typed stays as it is."""
    options = {"--max-samples": 4, "--batch-size": 2, "--nulls": 2, "--pictures": 1}
    if not {"--tolerance", "--exact", "--probes", "--protocol"} & set(arguments):
        options["--probes"] = 2
    if arguments[1].startswith(("torchvision:", "timm:")):
        options["--size"] = 32
    if arguments[1].startswith("torchvision:resnet"):
        options["--layers"] = "layer1.0.*"  # the statistics of wide layers take their time
    if arguments[1].startswith("hf:"):
        options["--tokens"] = 8
    return [str(w) for pair in options.items() if pair[0] not in arguments for w in pair]


def run_train(arguments, capsys):
    arguments = [*arguments, *small(arguments)]
    before = results()
    if "trainer=ddp" in arguments:
        done = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *arguments],
            timeout=HANGS, capture_output=True, text=True, check=False,
        )  # fmt: skip
        code, out, err = done.returncode, done.stdout, done.stderr
    else:
        code = train_py(arguments)
        out, err = capsys.readouterr()
    if not check_end(arguments, code, err):
        return
    if "--help" in arguments:
        assert "Examples" in out
        return
    new = {path for path, time in results().items() if before.get(path) != time}
    assert len(new) == jobs(arguments) or (jobs(arguments) is None and new)
    trained = [path.parent for path in new if path.name == "summary.json"]
    assert all((folder / "report.html").is_file() for folder in trained)
    if len(trained) > 1:
        assert (trained[0].parent / "comparison.html").is_file()


def results():
    """What finished runs and audits left, and when."""
    found = itertools.chain(*(Path("runs").glob(f"**/{name}") for name in ("summary.json", "audit.json")))
    return {path: path.stat().st_mtime_ns for path in found}


def jobs(arguments):
    """Number of runs that a command line asks for; None if a file says so."""
    if any("experiment=" in a for a in arguments):
        return None
    values = [a.partition("=")[2] for a in arguments if "=" in a and "[" not in a and "-m" in arguments]
    return math.prod(len(value.split(",")) for value in values)


# What a command needs that is not everywhere: the word that tells, and what is said where it lacks.
NEEDED = {
    "trainer=gpu": (torch.cuda.is_available, "No supported gpu backend found"),
    "hydra/launcher=slurm": (lambda: False, "there is no srun here"),
    "cuda": (torch.cuda.is_available, "--device cuda cannot be used"),
    "callbacks.dashboard": (lambda: False, "a dashboard needs a W&B account"),
}


def check_end(words, code, err):
    """Whether the command did what it says; where something lacks that it needs, it has to say so."""
    for word, (is_there, sentence) in NEEDED.items():
        if word in words and not is_there():
            assert code != 0
            assert sentence in err
            assert "Traceback" not in err
            return False
    assert code == 0, err
    return True


def check_target(target):
    """The target is in the Makefile and its recipe calls what exists; what it trains is run."""
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n?)+)", makefile, re.MULTILINE)
    assert recipe, f"the Makefile has no target {target}"
    for line in recipe[1].strip().splitlines():
        match shlex.split(line.strip().lstrip("@-")):
            case ["$(RUN)", "train.py", *arguments]:
                assert train_py([*arguments, *small(arguments)]) == 0
            case ["$(RUN)" | "$(OLDEST)/bin/python", "-m", module, *_]:
                assert module in developers_tools(), module
            case ["$(RUN)", script, *_]:
                assert (ROOT / script).is_file(), script
            case words:
                pytest.fail(f"make {target} runs {words}, which is nothing known")


def developers_tools():
    """Names of what ``make`` installs: the environment's own modules, and the packages of the extras."""
    packages = itertools.chain(*extras().values())
    return {"venv", "pip", *(re.match(r"[\w-]+", package)[0] for package in packages)}


def extras():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def check_extras(arguments):
    """What is installed is this project, with extras that it has."""
    (project,) = [a for a in arguments if not a.startswith("-")]
    named = re.fullmatch(r"\.(?:\[([\w,]+)\])?", project)
    assert named, project
    assert set((named[1] or "").split(",")) - {""} <= set(extras())


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: page.name)
def test_python(place, page):
    """All blocks of a page, in order, in one namespace."""
    place("\n".join(text for _, text in blocks(page, "python")))
    namespace = given()
    for start, text in blocks(page, "python"):
        line = page.read_text(encoding="utf-8")[:start].count("\n") + 1
        code = compile("\n" * line + text, str(page), "exec")  # tracebacks tell the line of the page
        exec(code, namespace)


def given():
    """What the blocks take for granted."""
    from nfa.nets import ResNet

    generator = torch.Generator().manual_seed(0)
    x, points = torch.randn(4, 3, 8, 8, generator=generator), torch.randn(60, 6, generator=generator)
    targets = points[:, 0] * points[:, 1]
    return {
        "model": ResNet((3, 8, 8), 3, width=2),
        "batches": [(x[:2], torch.tensor([0, 1])), (x[2:], torch.tensor([2, 0]))],
        "X": points[:40], "y": targets[:40],
        "X_val": points[40:50], "y_val": targets[40:50],
        "X_test": points[50:],
    }  # fmt: skip


# ---- what the pages say ------------------------------------------------------------------------------------


def test_planned_commands_are_in_the_docs():
    assert set(PLANNED) <= set(COMMANDS)


def test_local_links_of_the_readme():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_option_of_an_audit_is_explained(capsys):
    from nfa.command.cli import main

    with pytest.raises(SystemExit):
        main(["audit", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert options - set(re.findall(r"--[a-z-]+", (ROOT / "docs" / "audit.md").read_text())) == set()


def test_messages_are_those_of_the_program():
    """Every message of errors.md, with … for what depends on the case, stands in the source."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^### `(.*)`$", page, re.MULTILINE))
    written = list(messages())
    unknown = [message for message in told if not any(is_written(message, template) for template in written)]
    assert unknown == []
    assert set(re.findall(r"^### (?!`.*`$).*", page, re.MULTILINE)) == set()


def messages():
    """All strings in the source, with … for each formatted value."""
    folders = ("nfa", "lab", "models", "datamodules", "callbacks")
    for path in [*itertools.chain(*((ROOT / f).rglob("*.py") for f in folders)), ROOT / "train.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values)


def is_written(message, template):
    """Whether the parts between … stand in the template, in this order."""
    parts = [re.escape(part) for part in message.strip("… ").split("…")]
    return re.search(".*?".join(parts), template, re.DOTALL) is not None


def test_benchmarks_tell_no_number_of_their_own():
    number = re.compile(r"\d[\d ]*(?:\.\d+)?(?:e-?\d+)?")

    def numbers(path):
        return {n.strip() for n in number.findall(path.read_text(encoding="utf-8"))}

    assert numbers(ROOT / "docs" / "benchmarks.md") - numbers(ROOT / "benchmarks" / "README.md") == set()


@pytest.mark.long
def test_site(tmp_path):
    """It builds without a warning, loads nothing from elsewhere, and is searched without a server."""
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr + done.stdout == ""
    pages = list(tmp_path.rglob("*.html"))
    assert {page.stem for page in pages} >= {page.stem for page in PAGES[2:]}
    loaded = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)")
    assert [url for page in pages for url in loaded.findall(page.read_text(encoding="utf-8"))] == []
    index = (tmp_path / "search" / "search_index.js").read_text(encoding="utf-8")  # which needs no server
    assert [name for name in nfa.__all__ if f'"api/{name}.html' not in index] == []
    assert '<script src="assets/iframe-worker.js">' in (tmp_path / "index.html").read_text(encoding="utf-8")
    styles = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.css"))
    assert re.findall(r"(?:@import|url\()[\s\"']*(?:https?:)?//[^\s\"')]+", styles) == []
