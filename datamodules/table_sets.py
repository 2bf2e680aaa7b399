"""Tables by name: those bundled with scikit-learn, California housing, and OpenML."""

import hashlib
import io
import re
import tarfile
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nfa.errors import NfaError
from nfa.inputs.tables import ENDINGS, Table, objects, read_table
from nfa.inputs.torchvision_sets import NETWORK_TIMEOUT, network_timeout

BUNDLED = ("breast_cancer", "diabetes", "iris", "wine")
_CHOICES = (*BUNDLED, "california_housing", "openml:NUMBER")

_HOUSING_FILE = "cal_housing.tgz"
_HOUSING_URL = "https://ndownloader.figshare.com/files/5976036"
_HOUSING_SHA256 = "aaa5c9a6afe2225cc2aed2723682ae403280c4a3695a2ddda4ffb5d8215ea681"
_HOUSING_MEMBER = "CaliforniaHousing/cal_housing.data"


@dataclass(frozen=True)
class NamedTable:
    """A table that knows what it is for.

    Attributes:
        table: inputs and target.
        target: name of the target column.
        task: ``classification``, ``regression`` or ``auto``.
        class_names: the order of the classes, if it is known.
    """

    table: Table
    target: str
    task: str
    class_names: tuple[str, ...] = ()


def check_name(name: str) -> None:
    """Refuse a name that `open_named` does not know."""
    if name not in BUNDLED and name != "california_housing" and openml_number(name) is None:
        raise NfaError(f"unknown data.name={name!r}: expected one of {', '.join(_CHOICES)}")


def openml_number(name: str) -> int | None:
    """Number of a data set of OpenML, ``openml:31`` -> 31; None for other names."""
    match = re.fullmatch(r"openml:([1-9]\d*)", name)
    return int(match[1]) if match else None


def open_named(name: str, root: Path, *, download: bool, target: str | int | None = None) -> NamedTable:
    """Read a table by name.

    Args:
        name: one of `BUNDLED`, ``california_housing``, ``openml:NUMBER``.
        root: folder of files that are not bundled.
        download: fetch what is missing there.
        target: column of an OpenML set to predict, if not the one said there.

    Raises:
        NfaError: files are missing or damaged and cannot be fetched: the message says which belong where.
    """
    number = openml_number(name)
    if number is not None:
        return _openml(number, root, download, target)
    if target is not None:
        raise NfaError(f"data.name={name} has its own target: leave data.target={target} out")
    return _housing(root, download) if name == "california_housing" else _bundled(name)


def _bundled(name: str) -> NamedTable:
    from sklearn import datasets

    # diabetes comes scaled with the statistics of all rows, those for test included
    bunch = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    columns = _columns(bunch.data, bunch.feature_names)
    if name == "diabetes":
        return NamedTable(Table({**columns, "progression": bunch.target}, name), "progression", "regression")
    classes = tuple(map(str, bunch.target_names))
    target = objects(classes[i] for i in bunch.target)
    return NamedTable(Table({**columns, "class": target}, name), "class", "classification", classes)


def _columns(x: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    return {
        str(name): np.ascontiguousarray(values, dtype=np.float64)
        for name, values in zip(names, x.T, strict=True)
    }


# ---- California housing -----------------------------------------------------------------------------------


def _housing(root: Path, download: bool) -> NamedTable:
    """Inputs and target as of scikit-learn's ``fetch_california_housing``, of the same archive."""
    raw = _housing_rows(root, download)
    longitude, latitude, age, rooms, bedrooms, population, households, income, value = raw.T
    columns = {
        "MedInc": income,
        "HouseAge": age,
        "AveRooms": rooms / households,
        "AveBedrms": bedrooms / households,
        "Population": population,
        "AveOccup": population / households,
        "Latitude": latitude,
        "Longitude": longitude,
        "MedHouseVal": value / 100_000,
    }
    table = Table({name: np.ascontiguousarray(column) for name, column in columns.items()}, _HOUSING_FILE)
    return NamedTable(table, "MedHouseVal", "regression")


def _housing_rows(root: Path, download: bool) -> np.ndarray:
    """Read the 9 columns of the archive: float64 (20640, 9)."""
    path = root / _HOUSING_FILE
    try:
        if download and not path.is_file():
            _fetch_housing(path)
        with tarfile.open(path, "r:gz") as archive:
            member = archive.extractfile(_HOUSING_MEMBER)
            return np.loadtxt(io.TextIOWrapper(member, "ascii"), delimiter=",", ndmin=2).reshape(-1, 9)
    except Exception as error:  # readers raise nearly anything on damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    state = "and cannot be downloaded" if download else "and was not downloaded"
    then = "run again" if download else "run again, or pass data.download=true"
    raise NfaError(
        f"california_housing is missing or damaged in {root.absolute()} {state} ({reason}): save "
        f"{_HOUSING_URL} as {path.absolute()} and {then}"
    )


def _fetch_housing(path: Path) -> None:
    with urllib.request.urlopen(_HOUSING_URL, timeout=NETWORK_TIMEOUT) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != _HOUSING_SHA256:
        raise OSError("what was downloaded has another checksum")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


# ---- OpenML -----------------------------------------------------------------------------------------------


def _openml(number: int, root: Path, download: bool, target: str | int | None) -> NamedTable:
    """A file put there by hand, else what scikit-learn's ``fetch_openml`` has or gets."""
    stem = root / "openml" / str(number)
    by_hand = [stem.with_suffix(ending) for ending in ENDINGS]
    path = next((path for path in by_hand if path.is_file()), None)
    if path is not None:
        table = read_table(path)
        if target is None:
            raise NfaError(f"pass data.target=COLUMN: the file {path} does not say what to predict")
        return NamedTable(table, table.find(target, "data.target"), "auto")
    if not download:
        reason = "was not downloaded"
    else:
        try:
            return _from_bunch(_fetch_openml(number, root, target), number)
        except NfaError:
            raise
        except Exception as error:  # readers raise nearly anything on damaged files
            reason = f"cannot be read ({(str(error).strip() or type(error).__name__).splitlines()[0]})"
    then = "pass data.target=COLUMN" + ("" if download else ", or pass data.download=true")
    raise NfaError(
        f"data set {number} of OpenML {reason}: save it from https://www.openml.org/d/{number} as "
        f"{by_hand[0].absolute()} (or .parquet) and {then}"
    )


def _fetch_openml(number: int, root: Path, target: str | int | None) -> Any:
    from sklearn.datasets import fetch_openml

    options = {} if target is None else {"target_column": str(target)}
    with network_timeout(NETWORK_TIMEOUT), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A network error occurred")  # the error itself is shown
        return fetch_openml(
            data_id=number, data_home=root, as_frame=False, parser="liac-arff", n_retries=1, **options
        )


def _from_bunch(bunch: Any, number: int) -> NamedTable:
    """Texts in place of the numbers that stand for them."""
    if np.ndim(bunch.target) != 1:
        raise NfaError(
            f"data set {number} of OpenML has the targets {', '.join(bunch.target_names) or '(none)'}: pass "
            "one column as data.target"
        )
    if not isinstance(bunch.data, np.ndarray):
        raise NfaError(f"data set {number} of OpenML is sparse, which is not supported: pass another")
    columns = _columns(bunch.data, bunch.feature_names)
    for name, levels in bunch.categories.items():
        if name in columns:
            codes = columns[name]
            columns[name] = objects(None if np.isnan(c) else str(levels[int(c)]) for c in codes)
    (target,) = bunch.target_names
    numeric = np.issubdtype(np.asarray(bunch.target).dtype, np.number)
    values = np.asarray(bunch.target, np.float64) if numeric else objects(bunch.target)
    task = "regression" if numeric else "classification"
    return NamedTable(Table({**columns, target: values}, f"openml:{number}"), target, task)
