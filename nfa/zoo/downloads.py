"""Downloads: from the cache first, one sentence where there is no network, and no minutes of retries."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TypeVar

from nfa.errors import NfaError

T = TypeVar("T")
_TIMEOUT = 30.0  # seconds without an answer, after which a download is given up
_FIRST_ANSWER = 10.0  # seconds for the hub to show that it is there


@contextmanager
def downloading(spec: str) -> Iterator[None]:
    """Context in which a failing download becomes one sentence, and a silent server does not block."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    except (OSError, EOFError, RuntimeError) as error:  # RuntimeError: the hash of the file is another
        raise no_download(spec, error) from error
    finally:
        socket.setdefaulttimeout(before)


def no_download(spec: str, error: BaseException) -> NfaError:
    """The sentence for weights that cannot be had."""
    line = (str(error).splitlines() or [type(error).__name__])[0].strip("<>")
    plain = spec.partition("@")[0]
    way_out = (
        "go on with hf:FOLDER, a folder that holds its files"
        if spec.startswith("hf:")
        else f"go on with {plain}@none for random weights, or with {plain} --weights FILE"
    )
    return NfaError(f"{spec} could not be downloaded ({line}): {way_out}")


def cached_file(repo: str, names: list[str]) -> str | None:
    """Path of the first of some files of a repository that is in the cache."""
    import huggingface_hub

    for name in names:
        path = huggingface_hub.try_to_load_from_cache(repo, name)
        if isinstance(path, str):
            return path
    return None


def check_reachable(spec: str) -> None:
    """Ask the hub for one answer.

    Raises:
        NfaError: none came.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_FIRST_ANSWER)
    except Exception as error:
        raise no_download(spec, error) from error


def cached_or_fetched(get: Callable[[bool], T], spec: str) -> T:
    """``get(True)``, from the cache; failing that ``get(False)``, over the network.

    Raises:
        NfaError: the network is needed and there is none, or it has not what is wanted.
    """
    try:
        return get(True)
    except OSError:
        check_reachable(spec)
    try:
        return get(False)
    except OSError as error:
        raise no_download(spec, error) from error


def quietly(transformers: ModuleType, call: Callable[[], T]) -> T:
    """Call without the progress bars and tables of transformers."""
    logging = transformers.utils.logging
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        return call()
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
