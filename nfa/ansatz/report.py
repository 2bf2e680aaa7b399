"""What an audit found: a row a layer, and the pairs behind them."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nfa.ansatz.contradictions import contradiction_sentence
from nfa.ansatz.pair import FeaturePair
from nfa.ansatz.precision import Precision
from nfa.ansatz.row import AnsatzRow
from nfa.ansatz.sensitivity import Sensitivity
from nfa.ansatz.words import format_table, noise_sentence, summary_sentence
from nfa.errors import NfaError


@dataclass(repr=False)
class AnsatzReport:
    """What an audit found.

    Attributes:
        rows: one a layer, in the order of the network; see `nfa.ansatz.row.AnsatzRow` for the columns.
        weights: for each measured layer its weight at the time, (groups, out, in).
        null_draws: for each measured layer how many random rotations its null was drawn from.
        precision: for each measured layer how well the samples pin its statistics down.
        meta: samples, outputs, probes, seconds of the sweep and of the statistics, seed.

    Example:
        >>> import torch, nfa
        >>> net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> report = nfa.audit(net, torch.randn(32, 6))
        >>> report
        AnsatzReport(1 of 2 layers measured on 32 samples)
        >>> report.row("0").out_features, tuple(report.pair("0").agop().shape)
        (8, (6, 6))
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
        told = (summary_sentence(self.rows), contradiction_sentence(self), noise and noise_sentence(noise))
        return "\n".join([format_table(self.rows), "", *filter(None, told)])

    def pair(self, layer: str) -> FeaturePair:
        """The measured pair of one layer.

        Where the layer has more outputs than inputs, weight and sensitivity come in an orthonormal basis
        of the range of the weight, which changes no statistic and neither of the feature matrices.

        Raises:
            NfaError: no such layer was measured.
        """
        if not isinstance(layer, str) or layer not in self._sensitivities:
            measured = ", ".join(self._sensitivities) or "none"
            raise NfaError(f"no measured layer {layer!r}; measured: {measured}")
        return self._sensitivities[layer].pair(self.weights[layer])

    def row(self, layer: str) -> AnsatzRow:
        """The row of one layer."""
        for row in self.rows:
            if row.layer == layer:
                return row
        raise NfaError(f"no layer {layer!r}; layers: {', '.join(row.layer for row in self.rows)}")
