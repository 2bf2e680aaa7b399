"""``nfa diff``: two measurements of one network layer by layer, and which changes exceed their errors."""

import argparse
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import nfa
from nfa.ansatz.difference import LayerDifference, differences
from nfa.ansatz.difference_groups import GroupDifference, grouped
from nfa.ansatz.difference_words import (
    difference_sentence,
    format_groups,
    format_layers,
    group_record,
    group_sentences,
    layer_record,
    write_tables,
)
from nfa.ansatz.words import plain
from nfa.command.audit_files import check_writable
from nfa.command.diff_reading import Measurement, check_alike, read_measurement
from nfa.files import write_whole
from nfa.page.difference import write_difference
from nfa.terminal import say

JSON, PAGE = "diff.json", "diff.html"
_NAMED = 5


def run(options: argparse.Namespace) -> int:
    """Do what ``nfa diff`` was asked for; returns the exit status.

    Raises:
        NfaError: one of them cannot be read, or they are of different networks, powers or versions; nothing
            is written then.
    """
    before, after = read_measurement(options.before), read_measurement(options.after)
    check_alike(before, after)
    changes = differences(after.report, before.report)
    groups = grouped(changes)
    sentences = [difference_sentence(changes), *group_sentences(groups)]
    notes = list(_notes(before, after, changes))
    if options.out is not None:
        check_writable(Path(options.out))
    _show(before, after, changes, groups, [*sentences, *notes])
    if options.out is not None:
        _write(options, before, after, changes, groups, sentences, notes)
    return 0


def _show(
    before: Measurement,
    after: Measurement,
    changes: Sequence[LayerDifference],
    groups: Sequence[GroupDifference],
    sentences: Sequence[str],
) -> None:
    say(f"before   {before.path}: {before.what}", f"after    {after.path}: {after.what}", "")
    if changes:
        say(*format_layers(changes).split("\n"), "")
        say(*format_groups(groups).split("\n"), "")
    say(*sentences)


def _write(
    options: argparse.Namespace,
    before: Measurement,
    after: Measurement,
    changes: Sequence[LayerDifference],
    groups: Sequence[GroupDifference],
    sentences: Sequence[str],
    notes: Sequence[str],
) -> None:
    out = Path(options.out)
    meta = {
        "before": f"{before.path}: {before.what}",
        "after": f"{after.path}: {after.what}",
        "written by": {"before": before.version or "unknown", "after": after.version or "unknown"},
        "command": shlex.join(["nfa", "diff", options.before, options.after, "--out", options.out]),
        "nfa": nfa.__version__,
    }
    write_tables(out, changes, groups)
    content = {
        "meta": {**meta, "sentences": sentences, "notes": notes},
        "layers": list(map(layer_record, changes)),
        "groups": list(map(group_record, groups)),
    }
    text = json.dumps(plain(content), indent=1, allow_nan=False, ensure_ascii=False)
    write_whole(out / JSON, text + "\n")
    write_difference(out / PAGE, changes, groups, sentences=sentences, notes=notes, meta=meta)
    say("", f"difference   {out / PAGE}")


# ---- what a reader should know -----------------------------------------------------------------------------


def _notes(before: Measurement, after: Measurement, changes: Sequence[LayerDifference]) -> Iterator[str]:
    both = (before, after)
    same = None not in (before.samples, after.samples) and before.samples == after.samples
    conservative = (
        "what these have in common is in both errors, and the z of a difference is conservative: the change "
        "is known better than it tells."
    )
    if same:
        yield f"Same samples: {conservative}"
    elif None in (before.samples, after.samples):
        yield (
            "Samples: the files do not tell whether both saw the same. The z takes them to be independent; "
            "where they are the same it is conservative, the change is known better than it tells."
        )
    else:
        words = [_samples(one) for one in both]
        yield f"Other samples: {words[0]} before, {words[1]} after. The error of a change holds both."
    for name, one in zip(("before", "after"), both, strict=True):
        if one.stopped is not None:
            yield f"Partial {name}: it was stopped after {one.stopped} samples."
        if one.of_probes:
            yield f"Probes {name}: the errors are those of random probes on its samples" + (
                "." if same else ", not of the samples: on other samples a z may be too large."
            )
    yield "Chance: of 20 layers in which nothing changed, one is expected beyond two errors."
    yield from _left_out(before, after, changes)
    if not (before.version and after.version):
        which = " and ".join(str(one.path) for one in both if not one.version)
        yield f"Version: {which} does not tell which version of nfa wrote it."


def _samples(one: Measurement) -> str:
    assert one.samples is not None
    data, count, seed = one.samples
    return f"{count} of {str(data).split(':')[0]} (seed {seed})"


def _left_out(before: Measurement, after: Measurement, changes: Sequence[LayerDifference]) -> Iterator[str]:
    compared = {change.layer for change in changes}
    rows = [*after.report.rows, *before.report.rows]
    apart = list(dict.fromkeys(row.layer for row in rows if row.measured and row.layer not in compared))
    if apart:
        named = ", ".join(apart[:_NAMED]) + (", …" if len(apart) > _NAMED else "")
        yield f"Left out: {len(apart)} that only one of the two measured ({named})."
