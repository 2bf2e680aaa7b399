"""``nfa audit --protocol``: the layers of a network as one paper measured them, as a table and a CSV file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from nfa.ansatz.words import show
from nfa.command.audit_files import check_writable
from nfa.command.chosen_output import Choice
from nfa.errors import NfaError
from nfa.files import csv_text, write_whole
from nfa.inputs import Inputs
from nfa.protocol import ProtocolRow, protocol
from nfa.terminal import one_line, say
from nfa.zoo import Loaded

FILE = "protocol.csv"
_NAMES = {"cnfc": "C-NFC", "nfa": "NFA", "cnfa": "CNFA"}
_NOT_TAKEN = {"probes": None, "init": False, "per_head": False, "batch_dim": 0, "neglect": 0.0, "wandb": None}


def run_protocol(
    options: argparse.Namespace, loaded: Loaded, inputs: Inputs, device: torch.device, choice: Choice
) -> int:
    """Do what ``nfa audit --protocol`` was asked for; returns the exit status.

    Raises:
        NfaError: an option that no protocol has, or what `nfa.protocol.protocol` refuses; nothing is written.
    """
    taken = [name for name, default in _NOT_TAKEN.items() if getattr(options, name) != default]
    if taken or options.output != "logits":
        given = (taken or ["output"])[0].replace("_", "-")
        raise NfaError(f"a protocol is what its paper did, on all logits of all samples: leave out --{given}")
    rows = protocol(
        loaded.model, inputs, options.protocol, loaded.initial,
        layers=options.layers, defects=options.defects, seed=options.seed, device=device, output_fn=choice,
    )  # fmt: skip
    out = Path(options.out)
    check_writable(out)
    say(*_table(rows).split("\n"), "")
    switches = " with " + ", ".join(options.defects) if options.defects else ""
    say(f"{_NAMES[options.protocol]} as its paper measured it{switches}, on {inputs.description}")
    write_whole(out / FILE, _csv(rows))
    say(f"report   {out / FILE}")
    return 0


def _columns(rows: Sequence[ProtocolRow]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.beside))


def _table(rows: Sequence[ProtocolRow]) -> str:
    names = _columns(rows)
    lines = [["layer", _NAMES[rows[0].protocol] if rows else "", *names]]
    for row in rows:
        numbers = [row.correlation, *(row.beside.get(name, float("nan")) for name in names)]
        cells = [show(value) for value in numbers] if row.status == "ok" else [one_line(row.status)]
        lines.append([one_line(row.layer), *cells])
    width = max(len(line[0]) for line in lines)
    return "\n".join(
        "  ".join([line[0].ljust(width), *(cell.rjust(9) for cell in line[1:])]).rstrip() for line in lines
    )


def _csv(rows: Sequence[ProtocolRow]) -> str:
    names = _columns(rows)
    cells = (
        [row.layer, row.protocol, row.correlation, *(row.beside.get(name) for name in names), row.status]
        for row in rows
    )
    return csv_text(["layer", "protocol", "correlation", *names, "status"], cells)
