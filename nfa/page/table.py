"""The tables of a page: their cells, and the one of all numbers, which sorts and filters."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nfa.ansatz.row import CHANCE, CLEAR, TRAIN_COLUMNS, VERDICTS, AnsatzRow
from nfa.ansatz.words import alignment_words, finite, show
from nfa.page.text import minus

_LONG = 12  # rows beyond which there is something to filter
_OTHERS = "Other correlations"
# Tables by their titles, the first of which stands for itself: each is to be as wide as a screen at most.
_TABLES = {
    "": (
        *("kind", "in_features", "out_features", "groups", "alignment", "z", "verdict", "alpha_fit"),
        *("cosine", "null_mean", "null_std", "init_alignment", "init_cosine"),
    ),
    "Exponent and eigenvectors": (
        *("alpha_r", "alpha_low", "alpha_high", "best_alignment", "best_z"),
        *("basis", "basis_z", "basis_percentile", "rank_correlation"),
    ),
    _OTHERS: (),  # all that are in no other table
    "FACT": ("fact", "fact_cosine", "fact_residual", "fact_snapshot", "fact_snapshot_residual"),
    "Precision": ("alignment_stderr", "basis_stderr", "drift", "stderr"),
}
_ALWAYS = ("in_features", "out_features", "alignment", "z", "cosine")
TEXT_COLUMNS = ("layer", "kind", "verdict")
# column of the table: heading, format, explanation
NUMBER_COLUMNS = {
    "epoch": ("epoch", "g", "epochs trained when measured"),
    "in_features": ("in", "d", "length of the vectors the map acts on, per group"),
    "out_features": ("out", "d", "outputs of the map, all groups together"),
    "groups": ("groups", "d", "independent blocks of the map"),
    "power": ("power", "g", "exponent of the AGOP in cosine, pearson, offdiag and the nulls"),
    "alignment": ("alignment", "+.3f", "cosine of the traceless parts of C and WWᵀ, ± its standard error"),
    "z": (
        "z",
        ".1f",
        "alignment over its standard deviation by chance; below, how large what decided the verdict is",
    ),
    "alpha_fit": ("α fit", ".2f", "fitted exponent of the ansatz"),
    "alpha_r": ("α r", "+.2f", "correlation of that fit"),
    "cosine": ("cosine", ".3f", "cosine of NFM and AGOP to the power"),
    "null_mean": ("null", ".3f", "mean cosine with C rotated at random"),
    "null_std": ("null sd", ".3f", "its standard deviation"),
    "null_isotropic": ("isotropic", ".3f", "cosine with C the identity"),
    "pearson": ("pearson", ".3f", "Pearson correlation of the entries"),
    "offdiag": ("off-diag", ".3f", "Pearson correlation of the off-diagonal entries"),
    "cnfc": ("C-NFC", ".3f", "cosine of ΔWᵀΔW with ΔWᵀCΔW, ΔW the change since initialisation"),
    "alignment_stderr": ("align. error", ".2g", "standard error of the alignment"),
    "drift": ("drift", ".2g", "change of the cosine when the samples are halved"),
    "basis": ("basis", "+.3f", "share of C that is diagonal in the eigenbasis of WWᵀ, beyond chance"),
    "basis_z": ("basis z", ".1f", "basis over its standard deviation by chance"),
    "alpha_low": ("α low", ".2f", "lower end of the 95 % interval of the fitted exponent"),
    "alpha_high": ("α high", ".2f", "its upper end"),
    "best_alignment": ("best align.", "+.3f", "alignment with the power of WWᵀ that C goes with best"),
    "best_z": ("best z", ".1f", "that over what chance gives with the same choice of exponents"),
    "basis_stderr": ("basis error", ".2g", "standard error of the basis"),
    "basis_percentile": ("basis %", ".1f", "per cent of drawn rotations whose basis is smaller"),
    "rank_correlation": ("ranks", "+.3f", "rank correlation of ‖w_g‖² with c_g over groups of one row"),
    "uc_nfc": ("UC-NFC", ".3f", "cosine of WᵀW with WᵀCW"),
    "cnfc_null": ("C-NFC null", ".3f", "mean C-NFC with the units of C dealt out anew"),
    "cnfc_null_std": ("C-NFC null sd", ".3f", "its standard deviation"),
    "fact": ("FACT", ".3f", "Pearson correlation of the entries of the NFM and FACT; 1 where training rests"),
    "fact_cosine": ("FACT cosine", ".3f", "cosine of the NFM and FACT"),
    "fact_residual": ("FACT residual", ".2g", "how far from resting the weights are, 0 where they do"),
    "fact_snapshot": ("FACT now", ".3f", "FACT of the gradient as the network is now"),
    "fact_snapshot_residual": ("residual now", ".2g", "its residual"),
    "init_nfm_cosine": ("NFM vs init", ".3f", "cosine of the NFM with the one at initialisation"),
    "init_cosine": ("init cosine", ".3f", "cosine at initialisation"),
    "init_alignment": ("init alignment", "+.3f", "alignment at initialisation"),
    "stderr": ("std. error", ".2g", "standard error of the cosine"),
}


@dataclass(frozen=True)
class Number:
    """A cell that shows ``text`` and is sorted by ``value``.

    Attributes:
        value: NaN comes last.
        text: what is shown.
        kind: class of the cell.
        remark: a second line.
        remark_kind: its class.
    """

    value: float
    text: str
    kind: str = ""
    remark: str = ""
    remark_kind: str = ""

    @property
    def exact(self) -> str:
        """The value to be sorted by, empty where it is undefined."""
        return f"{self.value:.7g}" if math.isfinite(self.value) else ""


@dataclass(frozen=True)
class Heading:
    """The heading of a column, with its explanation and its class."""

    label: str
    explanation: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Some columns of the numbers.

    Attributes:
        headings: after the one that counts the layers.
        rows: with their cells behind the name of the layer.
        title: of the table; the first one has none.
    """

    headings: Sequence[Heading]
    rows: Sequence[tuple[AnsatzRow, Sequence[str | Number]]]
    title: str = ""


@dataclass(frozen=True)
class Tables:
    """All numbers, in tables that are as wide as a screen.

    Attributes:
        all: the ansatz, and what else is known of it, by kind; those without a column are left out.
        left_out: headings of columns that would hold nothing.
        verdicts: how many layers have each, where there are enough layers to filter them.
        has_errors: whether a standard error is behind some alignment.
    """

    all: Sequence[Table]
    left_out: Sequence[str]
    verdicts: dict[str, int]
    has_errors: bool


def tables_of(rows: Sequence[AnsatzRow]) -> Tables:
    """Lay out all numbers, a row a layer in each table."""
    columns, left_out = _columns(rows)
    known = [column for column in columns if column != "layer"]
    title_of = {column: title for title, own in _TABLES.items() for column in own}
    parts = {title: [c for c in known if title_of.get(c, _OTHERS) == title] for title in _TABLES}
    counts = Counter(row.verdict for row in rows) if len(rows) > _LONG else {}
    return Tables(
        [_table(rows, part, title) for title, part in parts.items() if part],
        left_out if rows else [],
        {verdict: counts[verdict] for verdict in VERDICTS if verdict in counts},
        any(math.isfinite(row.alignment_stderr) for row in rows),
    )


def table_of(rows: Sequence[AnsatzRow], chosen: Collection[str]) -> Table:
    """Lay out chosen numbers, a row a layer, with kind and verdict."""
    columns, _ = _columns(rows)
    return _table(rows, [c for c in columns[1:] if c in TEXT_COLUMNS or c in chosen])


def _table(rows: Sequence[AnsatzRow], columns: Sequence[str], title: str = "") -> Table:
    cells = [(row, [_cell(row, column) for column in columns]) for row in rows]
    return Table(list(map(_heading, ("layer", *columns))), cells, title)


def _columns(rows: Sequence[AnsatzRow]) -> tuple[list[str], list[str]]:
    """Columns of the tables in their order, and headings of those left out since they would hold nothing."""
    columns, left_out = ["layer", "kind"], []
    for column in TRAIN_COLUMNS:
        if column not in NUMBER_COLUMNS:
            continue
        values = [getattr(row, column) for row in rows]
        if column in _ALWAYS or (any(v != 1 for v in values) if column == "groups" else finite(values)):
            columns.append(column)
        elif column not in ("epoch", "groups"):
            left_out.append(NUMBER_COLUMNS[column][0])
        if column == "z":
            columns.append("verdict")
    return columns, left_out


def _heading(column: str) -> Heading:
    if column in TEXT_COLUMNS:
        return Heading(column, kind="text name" if column == "layer" else "text")
    label, _, explanation = NUMBER_COLUMNS[column]
    return Heading(label, explanation)


def _cell(row: AnsatzRow, column: str) -> str | Number:
    value = getattr(row, column)
    if column in TEXT_COLUMNS:
        return value
    if column == "alignment":
        return Number(value, minus(alignment_words(row)))
    if column == "z":
        emphasis = _emphasis(value) if math.isfinite(value) else ""
        size = f"{row.effect} {row.decided_by}" if row.effect else ""
        return Number(value, minus(show(value, ".1f")), emphasis, remark=size)
    return Number(value, minus(show(value, NUMBER_COLUMNS[column][1])))


def _emphasis(z: float) -> str:
    return "clear" if z > CLEAR else "chance" if abs(z) <= CHANCE else "some"
