"""Whose code a class or a function is, and what is imported from where."""

import json
import socket
import sys
from functools import partial

import pytest
import torch

import nfa
from nfa.nets.imports import import_installed, is_installed, is_own_code, without_network


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a module of one's own and one that is called like a package, in which one works."""
    (tmp_path / "own_nets.py").write_text("class Net:\n    pass\n\n\ndef build():\n    return Net()\n")
    (tmp_path / "timm.py").write_text("raise SystemExit('the user has a module of this name')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_nets", None)


def test_own_code(here):
    import own_nets

    assert is_own_code(own_nets.Net)
    assert is_own_code(own_nets.build)


@pytest.mark.parametrize(
    "target", [torch.nn.Linear, json.dumps, nfa.RFM, len, partial(print), 3, None], ids=lambda t: repr(t)[:20]
)
def test_code_of_others(target):
    assert not is_own_code(target)


def test_what_is_installed_stands_outside_the_working_directory(here):
    assert is_installed("torch")
    assert not is_installed("own_nets")
    with pytest.raises(ImportError, match="own_nets"):
        import_installed("own_nets")
    assert sys.path[0] == str(here)


def test_a_network_is_refused_and_given_back():
    before = socket.getaddrinfo
    with pytest.raises(OSError, match=r"net.ckpt asks for example.org"), without_network("net.ckpt"):
        socket.getaddrinfo("example.org", 80)
    assert socket.getaddrinfo is before
