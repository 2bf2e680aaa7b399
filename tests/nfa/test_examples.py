"""The examples in docstrings do what they show, and each public name has one and a page of its own."""

import doctest
import importlib
from pathlib import Path

import pytest
import torch

import nfa

ROOT = Path(__file__).parent.parent.parent


SOURCES = [
    path for path in sorted((ROOT / "nfa").rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")
]
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    with torch.random.fork_rng():
        found = doctest.testmod(importlib.import_module(name), report=True)
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize("name", nfa.__all__)
def test_public_names_have_an_example_and_a_page(name):
    """A new one: an ``Example:`` in its docstring, a page ``docs/api/NAME.md``, a line in ``mkdocs.yml``."""
    assert doctest.DocTestParser().get_examples(getattr(nfa, name).__doc__)
    page = ROOT / "docs" / "api" / f"{name}.md"
    text = page.read_text(encoding="utf-8")  # a module of the same name makes the longer path necessary
    assert text.startswith(f"::: nfa.{name}") or f"heading: nfa.{name}\n" in text
