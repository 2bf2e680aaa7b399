"""``nfa audit --matrices``: what is asked for is checked first, and nothing is lost for it."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

import nfa
from tests.nfa.audit_place import audit, notes, place, refused

__all__ = ["place"]

FILE = Path("out/matrices.safetensors")


def test_matrices_of_the_chosen_layers(place, capsys):
    assert audit("plain", "--exact", "--matrices", "0", "2") == 0
    assert set(load_file(FILE)) == {f"{layer}/{kind}" for layer in "02" for kind in "CNG"}
    assert f"matrices {FILE}" in capsys.readouterr().out


def test_a_later_audit_leaves_none_that_are_not_its_own(place):
    assert audit("plain", "--exact", "--matrices", "0") == 0
    assert audit("plain", "--exact") == 0
    assert not FILE.exists()


def test_a_file_of_that_name_that_no_audit_wrote_is_left_alone(place):
    FILE.parent.mkdir()
    FILE.write_text("mine")
    assert audit("plain", "--exact") == 0
    assert FILE.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--matrices", "conv*"], "none of the 3 measured layers"),
        (["--matrices", "[0"], "none of the 3"),
        (["--matrices", ""], "pattern of layer names"),
        (["--matrices", "0", "--layers", "2"], "none of the 1 measured"),
        (["--matrices", "*", "--matrices-size", "0.0000001"], "more than the limit of 0.1 kB"),
        (["--matrices", "*", "--matrices-size", "much"], "expected a size like 2GB"),
        (["--matrices-size", "2GB"], "give both"),
        (["--matrices"], "expected at least one argument"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(place, capsys, options, words):
    assert words in refused(capsys, "plain", *options)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), MemoryError(), KeyboardInterrupt()]
)
def test_the_numbers_are_not_lost_for_matrices_that_fail(place, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(nfa.AnsatzReport, "save_matrices", fail)
    assert audit("plain", "--exact", "--matrices", "0") == 0
    assert Path("out/audit.csv").is_file()
    assert Path("out/audit.html").is_file()
    assert any("matrices.safetensors" in note for note in notes())
    assert not FILE.exists()
