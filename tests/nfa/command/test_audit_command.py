"""An audit from the command line: which outputs, whether the network takes the data, and nothing is lost."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import nfa
from nfa.ansatz.row import read_csv
from nfa.command import audit_command, audit_files
from nfa.command.cli import main
from tests.nfa.audit_place import ROOT, audit, notes, place, refused
from tests.waiting import HANGS

__all__ = ["place"]

# ---- outputs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["Pair", "Named", "Keys"])
def test_several_outputs_are_never_cut_silently(place, capsys, net):
    error = refused(capsys, net)
    names = {"Pair": ("0", "1"), "Named": ("policy", "value"), "Keys": ("policy", "more.value")}[net]
    shown = ["" if name in "01" else f"{name} " for name in names]
    assert f"0: {shown[0]}(2, 3), 1: {shown[1]}(2, 2)" in error
    assert "--output-index" in error
    assert "--output-key" in error
    assert "--outputs all" in error
    for options, skipped in (
        (["--output-index", "0"], "b"),
        (["--output-index", "1"], "a"),
        (["--output-key", names[1]], "a"),
        (["--outputs", "all"], None),
    ):
        assert audit(net, "--exact", *options) == 0
        rows = {row.layer: row for row in read_csv("out/audit.csv")}
        assert {name for name in "ab" if rows[name].skipped} == ({skipped} if skipped else set())


def test_outputs_side_by_side_add_up(place):
    """C of the layers below is the sum of what each output gives."""
    from command_nets import Pair

    from nfa.zoo import load

    model, x = load("command_nets:Pair").model, numpy.load("x.npz")["inputs"]
    assert isinstance(model, Pair)
    batches = [nfa.audit.__globals__["torch"].from_numpy(x)]
    agops = [
        nfa.agop(model, batches, "body.0", output_fn=fn)["body.0"] for fn in (lambda r: r[0], lambda r: r[1])
    ]
    from nfa.command.chosen_output import Choice

    both = nfa.agop(model, batches, "body.0", output_fn=Choice(everything=True))["body.0"]
    assert (both - sum(agops)).abs().max() < 1e-6 * both.abs().max()


@pytest.mark.parametrize("net", ["Single", "Logits"])
def test_what_is_unambiguous_needs_no_option(place, net):
    assert audit(net) == 0
    assert {row.layer: row.skipped for row in read_csv("out/audit.csv")}["a"] is False


def test_wrong_choices_are_one_line(place, capsys):
    assert "returns 0: (2, 3), 1: (2, 2)" in refused(capsys, "Pair", "--output-index", "2")
    assert "returns 0: policy" in refused(capsys, "Keys", "--output-key", "polcy")
    assert "no floating tensor: it returned str" in refused(capsys, "Text")
    assert "not allowed with" in refused(capsys, "Pair", "--output-index", "0", "--outputs", "all")
    assert "softmax makes no sense" in refused(capsys, "Pair", "--outputs", "all", "--output", "softmax")


# ---- the first call ---------------------------------------------------------------------------------------

UNSUITED = {
    "squeezes": ("Squeezing", "x.npz", "squeeze(-1)"),
    "fixed batch": ("Fixed", "x.npz", "takes 16 samples at a time and no other number"),
    "no single sample": ("Pairs", "x.npz", "two samples and not one alone"),
    "no rows": ("Mixed", "x.npz", "expected outputs whose first dimension counts samples"),
    "integers": ("plain", "whole.npz", "the data holds integers of shape (8,): save them as float32"),
    "floats": ("Ids", "x.npz", "takes integers, such as token ids"),
    "too long": ("plain", "wide.npz", "takes vectors of 8 numbers, the inputs have shape (16,)"),
    "not flat": ("plain", "square.npz", "reshape them to (8,)"),
    "grey": ("image", "grey.npz", "takes 3 channels, the inputs of shape (1, 4, 4) have 1"),
    "channels last": ("image", "last.npz", "channels come first, transpose the data"),
    "no picture": ("image", "x.npz", "takes inputs of 3 dimensions, channels first, got (8,)"),
    "no derivative": ("without_derivative", "x.npz", "cannot be measured (NotImplementedError"),
}


@pytest.mark.parametrize("case", UNSUITED)
def test_what_the_network_does_not_take_is_said_with_what_to_do(place, capsys, case):
    net, data, words = UNSUITED[case]
    with pytest.raises(SystemExit) as status:
        audit(net, data=data)
    assert status.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0], errors[0]
    assert not Path("out").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "net", ["scripted", "traced", "exported", "meta", "bfloat", "quantised", "sparse", "complex_valued"]
)
def test_networks_without_derivatives_of_their_own_are_one_line(place, capsys, net):
    try:
        status = audit(net)
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    if status:
        assert status == 2
        assert sum(line.startswith("error: ") for line in error.splitlines()) == 1
        assert not Path("out").exists()


@pytest.mark.parametrize("error", ["LookupError", "RuntimeError"])
def test_an_error_of_the_network_while_it_is_measured_is_one_line(place, capsys, error):
    with pytest.raises(SystemExit) as status:
        audit(f"Failing{error.removesuffix('Error')}")
    assert status.value.code == 2
    told = [line for line in capsys.readouterr().err.splitlines() if "error" in line.lower()]
    assert told == [f"error: the network failed half-way through ({error}: a table)"]
    assert not Path("out").exists()


def test_a_layer_that_holds_others_offers_them(place, capsys):
    with pytest.raises(SystemExit):
        audit("Nested", "--layers", "layer1")
    assert "near ones: layer1.*" in capsys.readouterr().err


# ---- nothing is lost --------------------------------------------------------------------------------------


def test_initial_values_that_cannot_be_had_are_said_before_anything_is_measured(place, capsys, monkeypatch):
    monkeypatch.setattr(audit_command, "audit", None)
    error = refused(capsys, "loads_its_own", "--init")
    assert "--init: no randomly initialised network to compare with" in error
    assert "leave out --init" in error


def test_layers_that_load_their_own_weights_have_no_initial_values(place, capsys):
    import torch

    torch.save(torch.nn.Linear(8, 6).state_dict(), "w.pth")
    assert audit("loads_a_part", "--init", "--output", "softmax") == 0
    rows = {row.layer: row for row in read_csv("out/audit.csv")}
    assert {name: row.init_cosine == row.init_cosine for name, row in rows.items()} == {
        "0": False,  # of a file
        "2": True,
        "4": True,  # begins as an identity, and a layer of the same kind may well do
    }
    note = "Missing: the values at initialisation of 0 (the code that builds the network gives them the same"
    captured = capsys.readouterr()
    assert note in captured.err.split("samples at a time")[0]
    assert any(n.startswith(note) for n in notes())


def fails(*_, **__):
    raise RuntimeError("out of\nluck")


def interrupts(*_, **__):
    raise KeyboardInterrupt(130)


@pytest.mark.parametrize("failure", [fails, interrupts])
@pytest.mark.parametrize("part", ["values at initialisation", "pictures of layers", "page audit.html"])
def test_what_was_measured_is_written_whatever_fails_afterwards(place, monkeypatch, capsys, part, failure):
    assert audit("plain", "--init", "--exact") == 0
    whole = read_csv("out/audit.csv")
    real, count = audit_command.audit, []

    def second(*arguments, **options):
        count.append(1)
        return real(*arguments, **options) if len(count) == 1 else failure()

    if part.startswith("values"):
        monkeypatch.setattr(audit_command, "audit", second)
    elif part.startswith("pictures"):
        monkeypatch.setattr(audit_command, "layer_pictures", failure)
    else:
        monkeypatch.setattr(audit_files, "write_html", failure)
    assert audit("plain", "--init", "--exact") == 0
    rows = read_csv("out/audit.csv")
    assert [row.cosine for row in rows] == pytest.approx([row.cosine for row in whole], nan_ok=True)
    why = "stopped" if failure is interrupts else "RuntimeError: out of"
    if part.startswith("values") and failure is fails:
        why = "the network cannot be measured (RuntimeError: out of)"
    note = f"Missing: the {part} ({why})."
    assert note in notes()
    assert note in capsys.readouterr().out
    assert (rows[0].init_cosine == rows[0].init_cosine) == (not part.startswith("values"))
    assert Path("out/audit.html").exists() == (not part.startswith("page"))


def test_files_are_there_before_the_table_and_where_the_table_cannot_be_shown(place, monkeypatch):
    def no_terminal(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr(audit_files, "say", no_terminal)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    monkeypatch.setattr(type(sys.stdout), "fileno", lambda _: 1, raising=False)
    assert audit("plain") == 0
    assert len(read_csv("out/audit.csv")) == 3


def test_closed_streams_lose_no_files(place, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert audit("plain") == 0
    assert len(read_csv("out/audit.csv")) == 3


def process(net, *arguments, **environment):
    command = [sys.executable, "-m", "nfa", "audit", f"command_nets:{net}", "--data", "x.npz", "--out", "out"]
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([*command, *arguments], capture_output=True, env=known, timeout=HANGS, check=False)


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_writes_the_partial_audit(place, number, status):
    done = process("Stopping", "--exact", "--batch-size", "2", SIGNAL=str(int(number)))
    assert done.returncode == status, done.stderr
    assert b"Traceback" not in done.stderr
    meta = json.loads(Path("out/audit.json").read_text())["meta"]
    assert meta["stopped"] is True
    assert 0 < meta["samples"] < 24
    assert f"Partial: stopped after {meta['samples']} of 24 samples.".encode() in done.stdout


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_this_process_does_the_same(place, monkeypatch, number, status):
    monkeypatch.setenv("SIGNAL", str(int(number)))
    before = signal.getsignal(number)
    assert audit("Stopping", "--exact", "--batch-size", "2") == status
    assert any(note.startswith("Partial: stopped after") for note in notes())
    assert signal.getsignal(number) is before


@pytest.mark.long
def test_a_terminal_that_is_not_utf8_gets_files_and_table(place):
    done = process("plain", PYTHONIOENCODING="ascii", LANG="C")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert b"alignment" in done.stdout
    assert len(read_csv("out/audit.csv")) == 3


def test_ctrl_c_during_the_imports_is_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "nfa", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode in (130, -signal.SIGINT)
    assert done.stderr == "interrupted: nothing was written\n"


def test_version(capsys):
    with pytest.raises(SystemExit) as status:
        main(["--version"])
    assert status.value.code == 0
    assert capsys.readouterr().out.startswith(f"nfa {nfa.__version__}, torch ")
