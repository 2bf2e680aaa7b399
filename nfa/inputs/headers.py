"""What a file of arrays says of itself, held against the file and the memory before it is read."""

import math
import os
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nfa.device import check_fits
from nfa.errors import NfaError

if TYPE_CHECKING:
    from numpy import dtype

_LONGEST_HEADER = 2**16
_ADVICE = "give fewer samples, or smaller ones"


def check_npz(path: Path, archive: zipfile.ZipFile) -> None:
    """Check every array of a .npz archive: of numbers, and no more than file and memory hold.

    Raises:
        NfaError: an array is none of that.
        ValueError, OSError, EOFError, zipfile.BadZipFile: a header cannot be read.
    """
    total = 0
    for member in archive.infolist():
        if not member.filename.endswith(".npy"):
            raise NfaError(f"expected numbers, got bytes for {member.filename!r} in {path}")
        name = member.filename.removesuffix(".npy")
        with archive.open(member) as handle:
            shape, dtype = _npy_header(handle)
            begins = handle.tell()
        title = f"{name!r} in {path}"
        if dtype.hasobject:
            raise NfaError(
                f"expected arrays of numbers in {path}: Object arrays such as {name!r} run code when they "
                "are read"
            )
        if dtype.kind not in "biufc":
            raise NfaError(f"expected numbers, got {dtype} for {title}")
        if any(size < 0 for size in shape):
            raise NfaError(f"expected samples along the first dimension of {title}, got shape {shape}")
        held, claimed = member.file_size - begins, math.prod(shape) * dtype.itemsize
        if claimed > held:
            raise NfaError(
                f"{title} is cut off: its header tells of {claimed} bytes, of shape {shape}, the file "
                f"holds {held}"
            )
        total += math.prod(shape) * (dtype.itemsize + 8 * (dtype.kind in "iu" and dtype.itemsize < 8))
    check_fits(total, f"{path}", _ADVICE)


def check_size(path: Path, factor: int = 1) -> None:
    """Check that a file that is read whole fits into memory, ``factor`` times."""
    check_fits(factor * path.stat().st_size, f"{path}", _ADVICE)


def _npy_header(handle: IO[bytes]) -> tuple[tuple[int, ...], "dtype"]:
    from numpy.lib import format as npy

    version = npy.read_magic(handle)
    length = 2 if version == (1, 0) else 4  # bytes that tell how long the header is
    told = handle.read(length)
    if int.from_bytes(told, "little") > _LONGEST_HEADER:
        raise ValueError(f"a header of more than {_LONGEST_HEADER} bytes")
    handle.seek(-len(told), os.SEEK_CUR)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(handle)
    return shape, dtype
