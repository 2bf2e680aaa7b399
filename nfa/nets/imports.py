"""Importing by name: installed packages without the working directory, and a user's own code with it."""

import importlib
import importlib.machinery
import os
import socket
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from nfa.checks import near
from nfa.errors import NfaError


@contextmanager
def importable_from_here() -> Iterator[None]:
    """Context in which modules of the working directory can be imported."""
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
        importlib.invalidate_caches()
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


@contextmanager
def installed_alone() -> Iterator[None]:
    """Context in which nothing of the working directory is imported, whatever ``sys.path`` says.

    Packages of the working directory that are imported already stay so.
    """
    before, here = list(sys.path), Path.cwd().resolve()
    sys.path[:] = [place for place in before if place and Path(place).resolve() != here]
    try:
        yield
    finally:
        sys.path[:] = before


def import_installed(module: str) -> ModuleType:
    """An installed package or module, never one of the working directory.

    Raises:
        ImportError: it is not installed, or cannot be imported.
    """
    with installed_alone():
        return importlib.import_module(module)


def is_installed(package: str) -> bool:
    """Whether a package of that name stands outside the working directory; nothing is imported."""
    with installed_alone():
        return importlib.machinery.PathFinder.find_spec(package) is not None


def is_own_code(target: object) -> bool:
    """Whether a class or function is the user's: neither of the standard library nor an installed package."""
    module = sys.modules.get(getattr(target, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if module is None or not file or not callable(target) or module.__name__.split(".")[0] == "nfa":
        return False
    place = Path(file).resolve()
    library = [Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")]
    installed = {"site-packages", "dist-packages"} & set(place.parts)
    return not installed and not any(place.is_relative_to(folder) for folder in library)


@contextmanager
def without_network(place: str | os.PathLike) -> Iterator[None]:
    """Context in which nothing can ask a network, whatever a file names and whichever library reads it."""
    before = socket.getaddrinfo

    def refuse(host: object, *_: object, **__: object) -> NoReturn:
        raise OSError(f"{place} asks for {host}, and a file or folder brings all it needs")

    socket.getaddrinfo = refuse
    try:
        yield
    finally:
        socket.getaddrinfo = before


def import_attribute(module: str, path: str) -> object:
    """The attribute ``path`` (dotted) of a module.

    Raises:
        NfaError: the module cannot be imported or has no such attribute.
    """
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise NfaError(
            f"cannot import {module} ({type(error).__name__}: {_line(error)}); modules are looked for in the "
            f"working directory {os.getcwd()} and among the installed packages"
        ) from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise NfaError(f"{module} has no {path!r}{near(name, [n for n in dir(found) if n[0] != '_'])}")
        found = getattr(found, name)
    return found


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or ["no message"])[0]
