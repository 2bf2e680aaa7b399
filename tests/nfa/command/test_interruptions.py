"""Ctrl-C and SIGTERM in this process: what they ask for, and with which status they end it."""

import io
import signal
import sys
import threading

import pytest

from nfa.command import interrupted
from nfa.command.cli import main
from nfa.command.console import ConsoleObserver


@pytest.mark.parametrize(("kind", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_asks_and_the_second_interrupts(kind, status):
    before, stream = signal.getsignal(kind), io.StringIO()
    watch = ConsoleObserver(20, 4, stream=stream)
    with watch.interruptible():
        assert (watch.stop(), watch.status) == (False, 0)
        signal.raise_signal(kind)
        assert (watch.stop(), watch.status) == (True, status)
        assert "stopping: the samples under way are finished first" in stream.getvalue()
        with pytest.raises(KeyboardInterrupt) as stop:
            signal.raise_signal(kind)
        assert stop.value.args == (status,)
    assert signal.getsignal(kind) is before


def test_in_another_thread_signals_are_left_alone():
    before, seen = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)], []

    def work():
        with ConsoleObserver(20, 4, stream=io.StringIO()).interruptible():
            seen.extend(signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before


@pytest.mark.parametrize(("told", "status"), [((), 130), ((143,), 143)])
def test_an_interrupted_command_ends_with_one_line_and_the_status(monkeypatch, capsys, told, status):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt(*told)

    monkeypatch.setattr("nfa.command.audit_command.load", interrupt)
    assert main(["audit", "torchvision:resnet18@none", "--data", "digits", "--out", "o"]) == status
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "\ninterrupted: nothing was written\n")


@pytest.mark.parametrize(
    ("words", "brief"),
    [
        (["python", "/bin/nfa", "audit"], True),
        (["python", "-m", "nfa"], True),
        (["python", "train.py"], False),
        (["python", "-m", "pytest"], False),
        (["python"], False),
    ],
)
def test_only_the_command_itself_is_brief(monkeypatch, capsys, words, brief):
    def plain(*arguments):
        raise AssertionError

    monkeypatch.setattr("sys.excepthook", plain)
    monkeypatch.setattr("sys.orig_argv", words)
    interrupted.be_brief()
    assert (sys.excepthook is not plain) == brief
    if brief:
        sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert capsys.readouterr().err == "interrupted: nothing was written\n"
        sys.excepthook(ValueError, ValueError("another"), None)
        assert "ValueError: another" in capsys.readouterr().err
