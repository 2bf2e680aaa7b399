"""What an audit found: a row a layer, and the pairs behind them."""

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

import nfa
from nfa.ansatz.contradictions import contradiction_sentence
from nfa.ansatz.difference import LayerDifference, differences
from nfa.ansatz.matrices import MOST_BYTES, check_layers, save_matrices
from nfa.ansatz.pair import FeaturePair
from nfa.ansatz.precision import Precision
from nfa.ansatz.report_file import DRAWS, read_json, write_json
from nfa.ansatz.row import AnsatzRow
from nfa.ansatz.sensitivity import Sensitivity
from nfa.ansatz.words import UNIT_LENGTH, format_table, noise_sentence, summary_sentence
from nfa.checks import positive
from nfa.errors import NfaError
from nfa.layers.maps import patterns_of

if TYPE_CHECKING:
    import numpy
    import pandas
    from matplotlib.axes import Axes

_TOLERANCE = 0.01  # what a note counts as settled


@dataclass(repr=False)
class AnsatzReport:
    """What an audit found. Its length is the number of layers, and it goes through their rows.

    In a notebook it shows itself as a table with the charts by depth.

    Attributes:
        rows: one a layer, in the order of the network; see `nfa.ansatz.row.AnsatzRow` for the columns.
        weights: for each measured layer its weight at the time, (groups, out, in).
        null_draws: for each measured layer how many draws its null has: random rotations, or of wide layers
            what two spectra give (see `nfa.ansatz.wide_nulls`).
        precision: for each measured layer how well the samples pin its statistics down.
        meta: samples, outputs, probes, seconds of the sweep and of the statistics, seed.

    Example:
        >>> import torch, nfa
        >>> net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> report = nfa.audit(net, torch.randn(32, 6))
        >>> report
        AnsatzReport(1 of 2 layers measured on 32 samples)
        >>> report["0"].out_features, tuple(report.pair("0").agop().shape)
        (8, (6, 6))
        >>> len(report), [row.layer for row in report], "0" in report
        (2, ['0', '2'], True)
    """

    rows: list[AnsatzRow] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    null_draws: dict[str, int] = field(default_factory=dict)
    precision: dict[str, Precision] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    _sensitivities: dict[str, Sensitivity] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        measured = sum(row.measured for row in self.rows)
        samples = self.meta.get("samples")
        return f"AnsatzReport({measured} of {len(self.rows)} layers measured on {samples} samples)"

    def __str__(self) -> str:
        noise = self.meta.get("noise")
        told = (
            summary_sentence(self.rows),
            contradiction_sentence(self),
            noise and noise_sentence(noise),
            self.meta.get("unit length") and UNIT_LENGTH,
        )
        return "\n".join([format_table(self.rows), "", *filter(None, told)])

    def _repr_html_(self) -> str:
        from nfa.page.notebook import fragment  # templates are read where a page is asked for

        return fragment(self.rows, self.notes())

    # ---- layers ------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.rows)

    def __bool__(self) -> bool:
        return True  # a report, with layers or without

    def __iter__(self) -> Iterator[AnsatzRow]:
        return iter(self.rows)

    def __contains__(self, layer: object) -> bool:
        return any(layer in (row, row.layer) for row in self.rows)

    def __getitem__(self, layer: str) -> AnsatzRow:
        return self.row(layer)

    def row(self, layer: str) -> AnsatzRow:
        """The row of one layer; ``report[layer]`` is the same.

        Raises:
            NfaError: there is none of that name.
        """
        for row in self.rows:
            if row.layer == layer:
                return row
        raise NfaError(f"no layer {layer!r}; {_near(layer, [row.layer for row in self.rows])}")

    def pair(self, layer: str) -> FeaturePair:
        """The measured pair of one layer.

        Where the layer has more outputs than inputs, weight and sensitivity come in an orthonormal basis
        of the range of the weight, which changes no statistic and neither of the feature matrices.

        Raises:
            NfaError: no such layer was measured, or the report was read from a file, which has numbers only.
        """
        if isinstance(layer, str) and layer in self._sensitivities:
            return self._sensitivities[layer].pair(self.weights[layer])
        if not self._sensitivities and layer in [row.layer for row in self.rows if row.measured]:
            raise NfaError(
                f"the report was read from a file, which keeps no matrices of {layer}: audit again"
            )
        raise NfaError(f"no measured layer {layer!r}; {_near(layer, list(self._sensitivities), 'measured')}")

    def diff(self, other: "AnsatzReport") -> list[LayerDifference]:
        """What changed, layer by layer, since another report of the same network, or against other data.

        Args:
            other: with layers of the same names and sizes; what only one of them measured is left out.

        Raises:
            NfaError: it is of another network, or used another power.

        Example:
            >>> import torch, nfa
            >>> net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
            >>> before = nfa.audit(net, torch.randn(32, 6))
            >>> (change,) = before.diff(before)
            >>> change.layer, change.alignment
            ('0', 0.0)
        """
        return differences(self, other)

    # ---- elsewhere ---------------------------------------------------------------------------------------

    def notes(self) -> list[str]:
        """Sentences that a reader should know beside the numbers, the most important first."""
        from nfa.ansatz.notes import notes  # the rows that it tells of are gathered into reports

        kept = self.meta.get("notes")
        if kept is not None:
            return list(kept)
        if "mode" not in self.meta:  # no audit's
            return []
        return list(notes(self, self.meta["samples"], self.meta["power"], _TOLERANCE))

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows as a table of pandas: the columns of ``audit.csv``, and the verdict.

        Raises:
            NfaError: pandas is not installed.

        Example:
            >>> import torch, nfa
            >>> net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU())
            >>> report = nfa.audit(net, torch.randn(32, 6))
            >>> report.to_pandas()[["layer", "in_features", "out_features"]].values.tolist()
            [['0', 6, 8]]
        """
        from nfa.ansatz.frame import frame_of

        return frame_of(self.rows)

    def to_html(
        self,
        path: str | os.PathLike,
        *,
        title: str = "Audit",
        model: nn.Module | None = None,
        pictures: int = 12,
    ) -> None:
        """Write the page of ``nfa audit``: one file that fetches nothing; whole or not at all.

        Args:
            path: the file; an existing one is replaced.
            title: heading of the page.
            model: the network, which tells the shapes of filters; without it they are not drawn.
            pictures: heatmaps and spectra of so many layers; a report from a file has none.

        Example:
            >>> import tempfile, torch, nfa
            >>> net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU())
            >>> nfa.audit(net, torch.randn(32, 6)).to_html(f"{tempfile.mkdtemp()}/audit.html")
        """
        from nfa.ansatz.pictures import layer_pictures
        from nfa.page import write_html
        from nfa.page.headline import audit_headline

        drawn = []
        if self._sensitivities:
            drawn = layer_pictures(self, model, power=self.meta["power"], count=pictures)
        meta = {k: v for k, v in self._facts().items() if k != "notes" and v not in ({}, None)}
        write_html(
            path,
            title=title,
            rows=self.rows,
            pictures=drawn,
            meta=meta,
            notes=self.notes(),
            headline=audit_headline(self.meta),
        )

    def plot(self, axes: "Sequence[Axes] | None" = None) -> "numpy.ndarray":
        """Draw alignment and cosine by depth with matplotlib, for papers.

        The alignment has two standard errors to either side, over the band in which 19 of 20 layers would lie
        by chance; the cosine has its null, mean and two standard deviations to either side.

        Args:
            axes: two, of alignment and of cosine; by default those of a new figure.

        Returns:
            The two axes, (2,).

        Raises:
            NfaError: matplotlib is not installed, or there are not two axes.

        Example:
            >>> import tempfile, torch, nfa
            >>> net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU())
            >>> alignment, cosine = nfa.audit(net, torch.randn(32, 6)).plot()
            >>> alignment.figure.savefig(f"{tempfile.mkdtemp()}/depth.pdf")
        """
        from nfa.ansatz.plot import plot_rows

        return plot_rows(self.rows, axes)

    def save(self, path: str | os.PathLike) -> None:
        """Write rows, meta and precision as JSON, as ``audit.json`` has them; whole or not at all.

        Matrices are not kept: `pair` gives them.

        Example:
            >>> import tempfile, torch, nfa
            >>> net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU())
            >>> path = f"{tempfile.mkdtemp()}/audit.json"
            >>> nfa.audit(net, torch.randn(32, 6)).save(path)
            >>> nfa.AnsatzReport.load(path)
            AnsatzReport(1 of 1 layers measured on 32 samples)
        """
        facts = {"versions": {"nfa": nfa.__version__}, **self._facts(), "notes": self.notes()}
        write_json(path, self.rows, facts, self.precision)

    def save_matrices(
        self,
        path: str | os.PathLike,
        layers: str | Sequence[str] | None = None,
        *,
        max_bytes: float = MOST_BYTES,
    ) -> None:
        """Write C, N and G of layers as safetensors: ``layer/C``, ``layer/N``, ``layer/G``, dense, float64.

        ``G = Wᵀ C W`` with the weight W as the network has it; of a grouped map, a matrix a group. Where a
        layer has more outputs than inputs, C is known on the range of W alone, is zero beyond, and the
        metadata of the file say so.

        Args:
            path: the file; an existing one is replaced, whole or not at all.
            layers: glob pattern or patterns of layer names; None takes all that were measured.
            max_bytes: refuse to write more than this.

        Raises:
            NfaError: a pattern matches no measured layer, the matrices are larger, or the report was read
                from a file, which has numbers only.

        Example:
            >>> import tempfile, torch, nfa
            >>> from safetensors.torch import load_file
            >>> net = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
            >>> path = f"{tempfile.mkdtemp()}/matrices.safetensors"
            >>> nfa.audit(net, torch.randn(32, 6)).save_matrices(path, "0")
            >>> {name: tuple(matrix.shape) for name, matrix in sorted(load_file(path).items())}
            {'0/C': (4, 4), '0/G': (6, 6), '0/N': (6, 6)}
        """
        patterns = patterns_of(layers)
        names = [row.layer for row in self.rows if row.layer in self._sensitivities]
        if not names:
            self.pair(next((row.layer for row in self.rows if row.measured), ""))  # says why there are none
        chosen = names if patterns is None else check_layers(patterns, names)
        weights = {name: self.weights[name] for name in chosen}
        save_matrices(path, weights, self._sensitivities, positive("max_bytes", max_bytes))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "AnsatzReport":
        """Read what `save` wrote, or the ``audit.json`` of ``nfa audit``; nothing in the file is run.

        Raises:
            NfaError: there is no such file, or it is no report.
        """
        rows, meta, precision = read_json(path)
        return cls(rows, null_draws=meta.get(DRAWS, {}), precision=precision, meta=meta)

    def _facts(self) -> dict[str, Any]:
        return {**self.meta, DRAWS: self.null_draws}


def _near(layer: object, names: Sequence[str], what: str = "layers") -> str:
    """Names that a layer may have been meant by."""
    near = difflib.get_close_matches(str(layer), names, n=3, cutoff=0.3)
    if near:
        return f"near ones: {', '.join(near)}"
    more = f", … ({len(names)} in all)" if len(names) > 8 else ""
    return f"{what}: {', '.join(names[:8]) or 'none'}{more}"
