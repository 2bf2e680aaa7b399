"""One row a layer and measurement: the columns of ``ansatz.csv`` and ``audit.csv``, and nothing else."""

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from nfa.errors import NfaError
from nfa.files import csv_text, text_of, write_whole

NAN = math.nan
CLEAR, CHANCE = 5.0, 2.0  # |z| up to 2 is what chance gives in 19 of 20 layers; beyond 5 it hardly ever does
BASIS_CHANCE = (
    3.0  # z of the basis, which is skew to the right: beyond by chance in one layer of 100 or fewer
)
BASIS_PERCENTILE = 99.0
EFFECTS = ((0.6, "strong"), (0.3, "moderate"), (0.1, "weak"), (0.0, "negligible"))  # by size, at least
OK, TRIVIAL = "ok", "trivial"


@dataclass(frozen=True)
class AnsatzRow:
    """What was measured in one linear map. Numbers that are undefined or were not asked for are NaN.

    Attributes:
        layer: dotted module name.
        kind: ``linear``, ``conv1d``, ``conv2d``, ``conv3d``, or the class name of a skipped module.
        in_features: length of the vectors the map acts on, per group (a patch for a convolution).
        out_features: outputs of the map, all groups together.
        groups: number of independent blocks of the map.
        power: exponent α of ``N ∝ G^α`` used by `cosine`, `pearson`, `offdiag` and the nulls.
        alignment: cosine of the traceless parts of C and WWᵀ on the range of W; 0 on average by chance.
        z: alignment over its closed-form standard deviation under a Haar-rotated C.
        alpha_fit: exponent fitted to ``C ∝ (WWᵀ)^(1/α - 1)`` over W's left singular directions.
        alpha_r: correlation of that fit.
        cosine: cosine of the neural feature matrix N with ``G^α``, the published NFA / CNFA correlation.
        null_mean: mean of `cosine` when C is rotated at random.
        null_std: its standard deviation.
        null_isotropic: `cosine` when C is the identity.
        pearson: Pearson correlation of the entries of N and ``G^α``.
        offdiag: the same without the diagonal.
        cnfc: cosine of ``ΔWᵀΔW`` with ``ΔWᵀCΔW``, ``ΔW = W - W₀`` (arXiv 2402.05271).
        alignment_stderr: standard error of `alignment`; two of them to either side hold the truth in 19 of
            20 layers.
        drift: how far the mean cosine of the two halves of the samples is from that of all, where asked for.
        basis: share of C that is diagonal in the eigenbasis of WWᵀ, beyond chance: 1 where the ansatz holds
            with any exponent, 0 on average by chance.
        basis_z: that of C as measured over its closed-form standard deviation under rotation. By chance it is
            skew: beyond 2 in 3 to 5 of 100 layers, below -2 in none to 2.
        alpha_low: lower end of the interval around `alpha_fit` that holds the exponent of many more samples
            in 19 of 20 layers; NaN where the samples were not measured in groups.
        alpha_high: its upper end; infinite where no power of the AGOP may be the neural feature matrix.
        best_alignment: alignment of C with the power of WWᵀ that it goes with best.
        best_z: how many standard deviations that is above what chance gives with the same choice.
        basis_stderr: standard error of `basis`, as that of the alignment.
        basis_percentile: per cent of rotations of C, drawn where the range of W has fewer than 64 directions,
            whose basis is smaller.
        rank_correlation: Spearman's, of ``‖w_g‖²`` with ``c_g`` over the groups of a depthwise map, or of any
            other whose groups have one direction.
        uc_nfc: cosine of ``WᵀW`` with ``WᵀCW``, whatever the power (arXiv 2402.05271).
        cnfc_null: mean of `cnfc` when the units of C are dealt out anew; NaN where C was measured in the
            range of the weights alone, in which there are no units.
        cnfc_null_std: its standard deviation.
        fact: Pearson correlation of the entries of ``WᵀW`` and FACT, ``−Wᵀ∇L / λ`` for the loss L of the data
            and weight decay λ, where a run has that: about 0 for random weights, 1 at a stationary point by
            construction (arXiv 2507.05644).
        fact_cosine: their cosine.
        fact_residual: ``‖∇L + λ W‖ / (λ ‖W‖)``, how far from stationary the weights are. These three are of
            the mean gradient of training since the measurement before.
        fact_snapshot: `fact` of the gradient as the network is now.
        fact_snapshot_residual: `fact_residual`, likewise.
        init_nfm_cosine: cosine of the neural feature matrix with the one at initialisation.
        init_cosine: `cosine` at initialisation.
        init_alignment: `alignment` at initialisation.
        stderr: standard error of `cosine`, as that of the alignment. With probes it is that of an estimate of
            the exact value on the same samples, where each probe has its own group (`audit` with ``probes``);
            else that of the samples for what more of them would give, the bias of few among it.
        status: ``ok``, or ``ok: note`` with what a reader should know; ``trivial`` where C is the identity
            by construction, as at the last linear map of raw logits; or ``skipped: reason``.
        epoch: epochs trained when measured; NaN outside training.

    Example:
        >>> from nfa import AnsatzRow
        >>> row = AnsatzRow("conv1", "conv2d", 27, 64, alignment=0.43, z=19.5)
        >>> row.verdict, row.cosine
        ('above null', nan)
    """

    layer: str
    kind: str
    in_features: int
    out_features: int
    groups: int = 1
    power: float = NAN
    alignment: float = NAN
    z: float = NAN
    alpha_fit: float = NAN
    alpha_r: float = NAN
    cosine: float = NAN
    null_mean: float = NAN
    null_std: float = NAN
    null_isotropic: float = NAN
    pearson: float = NAN
    offdiag: float = NAN
    cnfc: float = NAN
    alignment_stderr: float = NAN
    drift: float = NAN
    basis: float = NAN
    basis_z: float = NAN
    alpha_low: float = NAN
    alpha_high: float = NAN
    best_alignment: float = NAN
    best_z: float = NAN
    basis_stderr: float = NAN
    basis_percentile: float = NAN
    rank_correlation: float = NAN
    uc_nfc: float = NAN
    cnfc_null: float = NAN
    cnfc_null_std: float = NAN
    fact: float = NAN
    fact_cosine: float = NAN
    fact_residual: float = NAN
    fact_snapshot: float = NAN
    fact_snapshot_residual: float = NAN
    init_nfm_cosine: float = NAN
    init_cosine: float = NAN
    init_alignment: float = NAN
    stderr: float = NAN
    status: str = OK
    epoch: float = NAN

    @property
    def measured(self) -> bool:
        """Whether the row takes part in counts, medians and charts (its status begins with ``ok``)."""
        return self.status == OK or self.status.startswith(f"{OK}: ")

    @property
    def trivial(self) -> bool:
        """Whether its C is the identity by construction: there are numbers, but they say nothing."""
        return self.status == TRIVIAL

    @property
    def skipped(self) -> bool:
        """Whether there are no numbers."""
        return not (self.measured or self.trivial)

    @property
    def verdict(self) -> str:
        """The layer against chance, in two words; one of `VERDICTS`. `decided_by` says by which statistic.

        Not settled where two standard errors reach across the border between chance and more.
        """
        if not self.measured:
            return "trivial" if self.trivial else "skipped"
        return self._decision[0]

    @property
    def decided_by(self) -> str:
        """What the verdict is about: ``alignment``, ``basis`` or ``ranks``; empty where there is none.

        The basis decides where it is beyond chance and the alignment is not; the ranks of its groups in a map
        whose groups have one direction, where the alignment hangs on the largest few.
        """
        return self._decision[1] if self.measured else ""

    @property
    def effect(self) -> str:
        """The size of the statistic that decided, in a word of `EFFECTS`, whatever its z; empty without."""
        value = {"alignment": self.alignment, "basis": self.basis, "ranks": self.rank_correlation}.get(
            self.decided_by, NAN
        )
        return next((word for least, word in EFFECTS if abs(value) >= least), "")

    @property
    def _decision(self) -> tuple[str, str]:
        if not math.isnan(self.rank_correlation):
            z = self.rank_correlation * math.sqrt(max(self.groups - 1, 0))  # exact for groups dealt out anew
            return _words(z, self.alignment_stderr * math.sqrt(max(self.groups - 1, 0))), "ranks"
        verdict = "undefined" if math.isnan(self.z) else _words(self.z, self.z_stderr)
        open_upwards = verdict == "within null" or (verdict == "not settled" and self.z > 0)
        if open_upwards and self._basis_beyond_chance:
            return "above null", "basis"
        return verdict, "" if verdict == "undefined" else "alignment"

    @property
    def _basis_beyond_chance(self) -> bool:
        """By its percentile or, where none is drawn, its z; and by two errors, where they are known."""
        if math.isnan(self.basis_percentile):
            beyond = self.basis_z > BASIS_CHANCE
        else:
            beyond = self.basis_percentile > BASIS_PERCENTILE
        return beyond and not self.basis <= 2 * self.basis_stderr

    @property
    def z_stderr(self) -> float:
        """Standard error of `z`: that of the alignment, in the same unit."""
        return self.alignment_stderr * abs(self.z / self.alignment) if self.alignment else NAN

    @property
    def chance_sd(self) -> float:
        """Standard deviation of the alignment by chance, the unit of `z`; unknown where that is 0."""
        return abs(self.alignment / self.z) if self.z else NAN


def _words(z: float, error: float) -> str:
    if abs(abs(z) - CHANCE) < 2 * error:
        return "not settled"
    return "above null" if z > CHANCE else "below null" if z < -CHANCE else "within null"


VERDICTS = ("above null", "within null", "below null", "not settled", "undefined", "trivial", "skipped")
AUDIT_COLUMNS = tuple(f.name for f in fields(AnsatzRow) if f.name != "epoch")
TRAIN_COLUMNS = ("epoch", *AUDIT_COLUMNS)
_NO_FLOATS = ("layer", "kind", "in_features", "out_features", "groups", "status")


def above_null(rows: Iterable[AnsatzRow]) -> tuple[int, int]:
    """How many layers are above their null, and of how many that can be told: those with a z.

    Models are compared by this and not by z, which grows with the size of a layer.
    """
    told = [row for row in rows if row.measured and not math.isnan(row.z)]
    return sum(row.verdict == "above null" for row in told), len(told)


def write_csv(path: str | os.PathLike, rows: Iterable[AnsatzRow], *, with_epoch: bool = False) -> None:
    """Write rows to ``path``, whole or not at all; an undefined number is an empty cell."""
    columns = TRAIN_COLUMNS if with_epoch else AUDIT_COLUMNS
    write_whole(path, csv_text(columns, ([getattr(row, c) for c in columns] for row in rows)))


def read_csv(path: str | os.PathLike) -> list[AnsatzRow]:
    """Read what `write_csv` wrote, with or without the ``epoch`` column.

    Raises:
        NfaError: the file holds something else.
        OSError: it cannot be read.
    """
    with Path(path).open(newline="", encoding="utf-8") as handle:
        try:
            text = handle.read()
            if not text.endswith("\n"):  # the last number may have lost digits
                raise ValueError("the last line has no end")
            records = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
            return [_row(record) for record in records]
        except (csv.Error, KeyError, TypeError, ValueError, AttributeError) as error:
            raise NfaError(
                f"{path} is cut off or damaged ({error}): expected a row a layer, as nfa writes them"
            ) from None


def _row(record: Mapping[str, str]) -> AnsatzRow:
    numbers = {c: float(text) if text else NAN for c, text in record.items() if c not in _NO_FLOATS}
    return AnsatzRow(
        layer=text_of(record["layer"]),
        kind=text_of(record["kind"]),
        in_features=int(record["in_features"]),
        out_features=int(record["out_features"]),
        groups=int(record["groups"]),
        status=text_of(record["status"]),
        **numbers,
    )
