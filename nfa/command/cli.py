"""The ``nfa`` command."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from nfa.errors import NfaError
from nfa.terminal import error_line, say, tolerate_any_encoding

_EXAMPLES = """examples:
  nfa audit torchvision:resnet18 --data photos --out audits/resnet18
  nfa audit torchvision:resnet18@none --data digits --rgb --size 64 --out audits/random
  nfa audit timm:vit_small_patch16_224 --data photos --per-head --layers "blocks.0.*" --out audits/vit
  nfa audit hf:gpt2 --data text.txt --out audits/gpt2
  nfa audit file:runs/my_run --data digits --out audits/my_run
  nfa audit my_nets:build --weights net.safetensors --data cifar10 --mean 0.5 --std 0.25 --out audits/mine
"""
_DATA = (
    "folder of images (a sub-folder a class), digits, a torchvision set (cifar10, mnist, …), a .npz or "
    ".safetensors of ready inputs, or a .txt for a language model"
)


class _Parser(argparse.ArgumentParser):
    """One line and exit status 2 for a mistake, without the usage in front of it."""

    def error(self, message: str) -> NoReturn:
        _fail(f"{message} (see {self.prog} --help)")


class _Version(argparse.Action):
    """Print the versions on one line and end."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None, **_: object):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        import torch

        import nfa

        say(f"nfa {nfa.__version__}, torch {torch.__version__}")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the ``nfa`` command; returns the exit status (2: a mistake that the user can mend)."""
    tolerate_any_encoding()
    options = _parser().parse_args(arguments)
    warnings.filterwarnings("ignore", message=".*non-writable.*")
    warnings.filterwarnings("ignore", message=".*decompression bomb.*")  # memory is what decides here
    try:
        return options.run(options)
    except NfaError as error:
        _fail(error)
    except BrokenPipeError:  # whoever was reading has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno is None:
            raise
        _fail(f"cannot read or write {error.filename or 'a file'}: {error.strerror}")
    except KeyboardInterrupt as stop:
        say("", "interrupted: nothing was written", stream=sys.stderr)
        return stop.args[0] if stop.args else 130


def _fail(message: object) -> NoReturn:
    say(f"error: {error_line(message)}", stream=sys.stderr)
    raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nfa", description="Feature matrices of networks, measured.")
    parser.add_argument("--version", action=_Version, help="of nfa and of torch")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _add_audit(commands.add_parser(
        "audit",
        help="measure in which layers of a network the neural feature ansatz holds, and by more than chance",
        description="Measure in which layers of a network WᵀW goes with the average gradient outer product, "
        "and by more than chance. Writes audit.csv, audit.json and audit.html, and with --matrices "
        "matrices.safetensors.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ))  # fmt: skip
    _add_compare(commands.add_parser(
        "compare",
        help="compare finished runs of train.py: scores against seed noise, and features",
        description="Compare finished runs of train.py: scores against seed noise, and how similar their "
        "features are. Writes comparison.csv, similarity.csv and comparison.html; of runs on several data "
        "sets, those in a folder for each.",
        epilog="examples:\n  nfa compare runs/* --out comparison\n  nfa compare runs/my_sweep --out compared",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ))  # fmt: skip
    _add_diff(commands.add_parser(
        "diff",
        help="compare two audits of one network, or two runs: which changes exceed their errors",
        description="Compare two measurements of one network layer by layer, and by stage, block and kind "
        "of layer: which changes of alignment and cosine exceed the errors of both. Measurements of other "
        "networks, of other powers, or by versions of nfa whose numbers mean something else, are refused.",
        epilog="examples:\n  nfa diff audits/before audits/after\n  nfa diff audits/a/audit.json report.json "
        "--out changed\n  nfa diff runs/seed_0 runs/seed_1 --out changed",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ))  # fmt: skip
    _add_predict(commands.add_parser(
        "predict",
        help="predict the rows of a new table with a finished run of train.py on a table",
        description="Predict the rows of a new table with a finished run of train.py on a table. Writes a "
        "CSV file with a row each, and for classes a column of probabilities each. Columns come in any "
        "order; a text that the training rows did not have is none of theirs, and gaps are filled as in "
        "training.",
        epilog="example:\n  nfa predict runs/my_run --data new.csv --out predictions.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ))  # fmt: skip
    listing = commands.add_parser("list", help="list the networks that the installed zoos offer")
    listing.add_argument("pattern", nargs="?", default="*", help='glob or word, such as "resnet*"')
    listing.set_defaults(run=_list)
    return parser


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "spec",
        metavar="SPEC",
        help="torchvision:NAME[@WEIGHTS|@none], timm:NAME[@none], hf:NAME_OR_PATH[@none], file:RUN_OR_CKPT, "
        "or package.module:callable",
    )
    parser.add_argument("--data", required=True, help=_DATA)
    parser.add_argument("--out", required=True, help="folder for audit.csv, audit.json and audit.html")
    parser.add_argument("--weights", metavar="FILE", help=".pth, .ckpt or .safetensors; no code in it is run")
    parser.add_argument("--init", action="store_true", help="also measure the network with random weights")

    parser.add_argument(
        "--random-scales",
        action="store_true",
        help="small random values for scales and weights that random networks (@none, --init) start at zero",
    )

    what = parser.add_argument_group("what is measured")
    what.add_argument("--power", type=_positive, default=0.5, metavar="A", help="of the AGOP (default 0.5)")
    what.add_argument("--layers", nargs="+", metavar="GLOB", help="only these layers")
    what.add_argument("--per-head", action="store_true", help="a row for each head of attention")
    what.add_argument("--output", choices=("logits", "softmax", "log_softmax"), default="logits")
    which = what.add_mutually_exclusive_group()
    which.add_argument(
        "--output-index", type=_count_or_zero, metavar="N", help="of several tensors that it returns, from 0"
    )
    which.add_argument("--output-key", metavar="NAME", help="of several tensors that it returns")
    which.add_argument("--outputs", choices=("all",), help="all tensors that it returns, side by side")
    what.add_argument("--nulls", type=_few_or_none, default=32, help="random rotations (default 32)")
    what.add_argument("--seed", type=_seed, default=0)

    paper = parser.add_argument_group("as a paper measured it")
    paper.add_argument(
        "--protocol", choices=("cnfc", "nfa", "cnfa"),
        help="the correlation of arXiv 2402.05271, 2212.13881 or 2309.00570 alone, into protocol.csv",
    )  # fmt: skip
    paper.add_argument(
        "--defects", nargs="+", default=[], metavar="D1", help="what its code does beside it: D1-D3, C1-C4"
    )

    how = parser.add_argument_group("how exactly, and at what cost")
    way = how.add_mutually_exclusive_group()
    way.add_argument(
        "--tolerance", type=_share, default=0.01, metavar="T",
        help="stop when every cosine is known to this standard error (default 0.01)",
    )  # fmt: skip
    way.add_argument("--exact", action="store_true", help="all outputs on all samples")
    way.add_argument("--probes", type=_few, metavar="K", help="K random output combinations a sample")
    how.add_argument(
        "--neglect", type=_share_or_zero, default=0.0, metavar="S",
        help="leave out the weakest directions of a linear head, up to this share of its squared weight",
    )  # fmt: skip
    how.add_argument("--max-samples", type=_count, metavar="N")
    how.add_argument("--batch-size", type=_count, metavar="N", help="default: an eighth, at most 8")
    how.add_argument("--memory", type=_size, metavar="SIZE", help="such as 2GB (default: 80 %% of free)")
    how.add_argument("--device", metavar="D", help="such as cuda (default cpu)")

    data = parser.add_argument_group("data")
    data.add_argument("--size", type=_count, metavar="S", help="side of the pictures")
    data.add_argument("--resize", type=_count, metavar="S", help="shorter side before the middle is cut out")
    data.add_argument("--mean", type=_numbers, metavar="R,G,B", help="subtracted, in units of [0, 1]")
    data.add_argument("--std", type=_numbers, metavar="R,G,B", help="divided by")
    data.add_argument("--rgb", action="store_true", help="show grey pictures to a network for RGB")
    data.add_argument("--split", choices=("train", "test"), default="train")
    data.add_argument("--root", default="data", metavar="DIR", help="of torchvision sets (default data)")
    data.add_argument(
        "--batch-dim", type=_count_or_zero, default=0, metavar="AXIS",
        help="of ready inputs that counts samples, from 0; 1 for time-first sequences (default 0)",
    )  # fmt: skip
    data.add_argument("--tokens", type=_count, default=128, metavar="T", help="of one sample (default 128)")

    shown = parser.add_argument_group("what is shown")
    shown.add_argument(
        "--pictures", type=_count_or_zero, default=12, metavar="N", help="of so many layers (default 12)"
    )
    shown.add_argument(
        "--matrices", nargs="+", metavar="GLOB",
        help="write C, N and G of these layers to matrices.safetensors",
    )  # fmt: skip
    shown.add_argument(
        "--matrices-size", type=_size, metavar="SIZE", help="that they may take, such as 2GB (default 1GB)"
    )
    shown.add_argument("--wandb", metavar="PROJECT", help="also log to Weights & Biases")
    shown.add_argument("--group", metavar="NAME", help="W&B group of the audit")
    parser.set_defaults(run=_audit)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN_DIR",
        help="folders of runs, or of a sweep; unfinished ones are left out",
    )
    parser.add_argument(
        "--out", required=True, help="folder for comparison.csv, similarity.csv and comparison.html"
    )
    parser.add_argument("--wandb", metavar="PROJECT", help="also log to Weights & Biases")
    parser.add_argument("--group", metavar="NAME", help="W&B group of the comparison, like that of the runs")
    parser.set_defaults(run=_compare)


def _add_diff(parser: argparse.ArgumentParser) -> None:
    what = "folder of an audit, its audit.json, what report.save wrote, or folder of a finished run"
    parser.add_argument("before", metavar="BEFORE", help=what)
    parser.add_argument("after", metavar="AFTER", help="likewise")
    parser.add_argument("--out", help="folder for diff.csv, diff_groups.csv, diff.json and diff.html")
    parser.set_defaults(run=_diff)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN", help="folder of a run, or its checkpoint")
    parser.add_argument(
        "--data", required=True, help="table: CSV and its kin, Parquet or Excel, with a row each"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="CSV file for the predictions")
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    from nfa.command.predict_command import run

    return run(options)


def _diff(options: argparse.Namespace) -> int:
    from nfa.command.diff_command import run

    return run(options)


def _compare(options: argparse.Namespace) -> int:
    from nfa.command.compare_command import run

    return run(options)


def _audit(options: argparse.Namespace) -> int:
    from nfa.command.audit_command import run

    return run(options)


def _list(options: argparse.Namespace) -> int:
    from nfa.zoo import list_models

    found = list_models(options.pattern)
    if not found:
        raise NfaError(f'no network matches {options.pattern!r}: try a shorter pattern, such as "*net*"')
    say(*found)
    return 0


# ---- values ------------------------------------------------------------------------------------------------


def _number(convert: type, good: Callable[[float], bool], words: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not good(value):
            raise argparse.ArgumentTypeError(f"expected {words}, got {text!r}")
        return value

    return parse


_MOST = 10**6  # probes or nulls: beyond, the exact mode is cheaper, and no digit of a null changes
_count = _number(int, lambda n: n >= 1, "a whole number of at least 1")
_count_or_zero = _number(int, lambda n: n >= 0, "a whole number of at least 0")
_few = _number(int, lambda n: 1 <= n <= _MOST, f"a whole number from 1 to {_MOST}")
_few_or_none = _number(int, lambda n: 0 <= n <= _MOST, f"a whole number from 0 to {_MOST}")
_seed = _number(int, lambda n: 0 <= n < 2**32, "a whole number from 0 to 2**32 - 1")
_positive = _number(float, lambda a: 0 < a < float("inf"), "a positive number")
_share = _number(float, lambda a: 0 < a < 1, "a number between 0 and 1")
_share_or_zero = _number(float, lambda a: 0 <= a < 1, "a number in [0, 1)")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, got {text!r}") from None


def _size(text: str) -> float:
    from nfa.command.console import parse_size

    try:
        return parse_size(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a size like 2GB, got {text!r}") from None
