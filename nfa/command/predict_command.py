"""``nfa predict``: rows of a new table to predictions, by the network of a run on a table."""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nfa.compare.together import SUMMARY
from nfa.errors import NfaError
from nfa.files import csv_text, make_writable, write_whole
from nfa.inputs.tables import Outputs, TableEncoder, load_encoder
from nfa.machines.calibration import Calibration
from nfa.machines.network import DeepNetwork, KernelNetwork
from nfa.nets.allowance import Allowance
from nfa.terminal import say
from nfa.zoo import load
from nfa.zoo.lab_runs import LAST

_ROWS = 4096  # at a time
_LISTED = 6  # classes that are counted on the screen


def run(options: argparse.Namespace) -> int:
    """Do what ``nfa predict`` was asked for; returns the exit status.

    Raises:
        NfaError: no run on a table, a table that does not go with it, or outputs that are not finite; nothing
            is written then.
    """
    out = Path(options.out)
    if out.is_dir():
        raise NfaError(f"--out is the CSV file for the predictions, {out} is a folder: add a name to it")
    loaded = load(f"file:{options.run_dir}")
    if loaded.table is None:
        raise NfaError(
            f"{options.run_dir} has no table.json, which says how rows become inputs: give a run of train.py "
            "on a table (data=tabular)"
        )
    encoder = load_encoder(loaded.table)
    x = encoder.transform(options.data)
    calibration = _recorded(Path(options.run_dir), loaded.table.with_name(SUMMARY))
    names, columns, words = predictions(loaded.model, encoder, x, calibration)
    make_writable(out.absolute().parent)
    write_whole(out, csv_text(names, zip(*columns, strict=True)))
    say(f"{loaded.title}, {len(x)} rows of {options.data}", *words, f"predictions   {out}")
    return 0


def predictions(
    model: nn.Module, encoder: TableEncoder, x: Tensor, calibration: Calibration | None = None
) -> tuple[list[str], list[Sequence[object]], list[str]]:
    """Names of columns, these columns, and words on them.

    Args:
        model: the network of a run.
        encoder: of that run.
        x: rows (n, inputs) that it has encoded.
        calibration: of the scores of a kernel machine; None to find it from the points it was fitted to.

    Raises:
        NfaError: the network does not go with the encoder, or gives no finite numbers.
    """
    known = encoder.outputs
    if known is None:
        raise NfaError("table.json does not say what is predicted: train the run anew")
    scores = _outputs(model, x, known)
    if not known.class_names:
        values = (known.mean + known.std * scores[:, 0].double()).tolist()
        low, high = min(values), max(values)
        return [known.name], [values], [f"{known.name}: from {low:.6g} to {high:.6g}"]
    found = [known.class_names[index] for index in scores.argmax(1).tolist()]
    counts = Counter(found).most_common()
    listed = ", ".join(f"{name} {count}" for name, count in counts[:_LISTED])
    words = [f"{known.name}: {listed}{', …' if len(counts) > _LISTED else ''}"]
    names = [known.name]
    columns: list[Sequence[object]] = [found]
    shares, said = _probabilities(model, scores, calibration)
    if shares is not None:
        names += [f"P({name})" for name in known.class_names]
        columns += shares.T.tolist()
    return names, columns, [*words, said]


def _outputs(model: nn.Module, x: Tensor, known: Outputs) -> Tensor:
    """Outputs (n, c) of all rows."""
    parts = []
    for rows in x.split(_ROWS):
        with torch.no_grad(), Allowance("calling the network", at_once=True):
            parts.append(model(rows))
    count = max(len(known.class_names), 1)
    shapes = {tuple(part.shape[1:]) for part in parts}
    if shapes != {(count,)}:
        raise NfaError(
            f"the network gives outputs of shape {shapes.pop()} a row and table.json names {count}: the two "
            "are not of one run"
        )
    scores = torch.cat(parts)
    if not bool(torch.isfinite(scores).all()):
        raise NfaError("the network gives outputs that are not finite: its training has failed")
    return scores


def _probabilities(
    model: nn.Module, scores: Tensor, calibration: Calibration | None
) -> tuple[Tensor | None, str]:
    """Probabilities (n, c), and what they are; None where there is no room to find them."""
    if not isinstance(model, KernelNetwork | DeepNetwork):
        return scores.double().softmax(1), "probabilities: softmax of the outputs, as in training"
    try:
        found = calibration or Calibration.of_network(model)
    except NfaError as error:
        return None, f"no probabilities: {error}"
    return found.probabilities(scores.double()), (
        f"probabilities: softmax of {found.beta:.3g} times the scores, fitted to {found.source} of the run "
        f"(Brier score {found.brier:.3g})"
    )


def _recorded(run_dir: Path, summary: Path) -> Calibration | None:
    """What a finished run tells of its last network; None where there is nothing, or of another network."""
    if run_dir.is_file() and run_dir.name != LAST.name:
        return None
    try:
        state = json.loads(summary.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        raise NfaError(f"{summary} is damaged: expected JSON, copy it anew") from None
    known = state.get("calibration") if isinstance(state, dict) else None
    return None if known is None else Calibration.read(known)
