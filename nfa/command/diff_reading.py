"""What ``nfa diff`` reads: the measurement of an audit or of a run, and what it tells of how it was taken."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nfa.ansatz.report import AnsatzReport
from nfa.ansatz.row import AnsatzRow
from nfa.compare.reading import holds_too_large, is_regular
from nfa.compare.runs import is_run, read_run
from nfa.errors import NfaError

AUDIT = "audit.json"
_USUAL = {"output": "logits", "centered": False}
_ERRORS = ("alignment_stderr", "stderr", "basis_stderr", "null_std")
_CORRELATIONS = ("alignment", "cosine", "best_alignment", "alpha_r")
_MOST = 1 + 1e-6  # of a correlation: with its rounding


@dataclass(frozen=True)
class Measurement:
    """One measurement of a network.

    Attributes:
        path: the file or folder that it was read from.
        what: what it is, in words.
        report: its rows.
        version: of nfa that wrote it; empty where the file does not tell.
        samples: what tells its samples: data, how many, and the seed; None where the file does not tell.
        of_probes: whether its errors are those of random probes on its samples, and not of the samples too.
        stopped: after how many samples it was stopped; None where it was not.
    """

    path: Path
    what: str
    report: AnsatzReport
    version: str
    samples: tuple[object, ...] | None
    of_probes: bool
    stopped: int | None = None


def read_measurement(given: str) -> Measurement:
    """An audit from its folder or its JSON file, or the last measurement of a finished run.

    A folder that holds both counts as the audit.

    Raises:
        NfaError: there is none, or its files cannot be read, or are damaged.
    """
    path = Path(given)
    try:
        if path.is_dir() and (path / AUDIT).exists():
            return _audit(path / AUDIT)
        if path.is_dir() and is_run(path):
            return _run(path)
        if path.is_dir():
            raise NfaError(
                f"{given or path} holds neither an audit ({AUDIT}) nor a run of train.py: give the folder of "
                "one, or a file that report.save wrote"
            )
        if not is_regular(path):
            raise NfaError(f"there is no {given}: give the folder of an audit or a run, or a JSON file")
        return _audit(path)
    except NfaError:
        raise
    except ValueError as error:  # also a zero in a name
        raise NfaError(f"cannot read {given} ({error})") from None


def check_alike(before: Measurement, after: Measurement) -> None:
    """Refuse measurements by versions of nfa whose numbers may mean something else, or of another C.

    Raises:
        NfaError: they are.
    """
    ours, theirs = _line_of(after.version), _line_of(before.version)
    if ours and theirs and ours != theirs:
        raise NfaError(
            f"{before.path} was written by nfa {before.version} and {after.path} by nfa {after.version}, "
            "whose statistics and errors are not the same: measure both with one version"
        )

    for name, usual in _USUAL.items():
        first, second = (one.report.meta.get(name, usual) for one in (before, after))
        if first != second:
            raise NfaError(
                f"{before.path} was measured with {name}={first!r} and {after.path} with {name}={second!r}, "
                "which have not the same C: measure both alike"
            )


def _line_of(version: str) -> tuple[str, ...]:
    """The versions that mean the same by their numbers: below 1.0 those of a minor version."""
    parts = version.split(".")
    return tuple(parts[:2]) if parts[0] == "0" else tuple(parts[:1]) if version else ()


def _audit(path: Path) -> Measurement:
    is_regular(path)  # before it is opened: a pipe has no end
    report = AnsatzReport.load(path)
    _check_rows(report.rows, path)
    meta = report.meta
    mode, network = str(meta.get("mode", "")), meta.get("network")
    what = f"audit of {network}" if network else "report"
    known = ("data", "samples", "seed")
    told = all(isinstance(meta.get(name), str | int) for name in known)
    return Measurement(
        path,
        what,
        report,
        _version(meta.get("versions")),
        tuple(meta[name] for name in known) if told else None,
        of_probes=mode.endswith("probes") and meta.get("tolerance") is None,
        stopped=meta["samples"] if meta.get("stopped") and isinstance(meta.get("samples"), int) else None,
    )


def _version(versions: object) -> str:
    version = versions.get("nfa") if isinstance(versions, Mapping) else None
    return version if isinstance(version, str) and re.match(r"\d+\.\d+", version, re.ASCII) else ""


def _run(path: Path) -> Measurement:
    run = read_run(path)
    if not run.last:
        raise NfaError(
            f"{path} holds no measurement: train with callbacks=default, or audit it (nfa audit file:{path})"
        )
    _check_rows(run.last, path / "ansatz.csv")
    epoch = run.last[0].epoch
    what = f"run of {run.model} on {run.summary['data']}, after epoch {epoch:g}"
    version = _version({"nfa": run.summary.get("nfa")})
    return Measurement(path, what, AnsatzReport(run.last), version, None, of_probes=False)


def _check_rows(rows: list[AnsatzRow], path: Path) -> None:
    """What is reckoned with has the size and the sign of what it stands for."""
    layers = [row.layer for row in rows]
    if not rows:
        raise NfaError(f"{path} has no layers: measure again")
    if len(set(layers)) < len(layers):
        twice = next(layer for layer in layers if layers.count(layer) > 1)
        raise NfaError(f"{path} is damaged: it has {twice!r} twice. Measure again")
    for row in rows:
        wrong = (
            holds_too_large(row)
            or any(getattr(row, name) < 0 for name in _ERRORS)
            or any(abs(getattr(row, name)) > _MOST for name in _CORRELATIONS)
            or row.basis > _MOST  # of equal singular values it may be less than -1
            or row.alpha_low > row.alpha_high
            or min(row.in_features, row.out_features, row.groups) < 0
        )
        if wrong:
            raise NfaError(f"{path} is damaged: {row.layer} has a number that is none. Measure again")
