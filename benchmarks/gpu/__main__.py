"""The command line of the benchmark."""

import argparse
import sys
from pathlib import Path

import torch

import benchmarks.gpu as gpu
from benchmarks.gpu import parts
from nfa import NfaError
from nfa.checks import device_of_name


def main(arguments: list[str] | None = None) -> int:
    names = [part.name for part in gpu.PARTS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", help="where to run (default cuda)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes, such as 0.01 on a CPU")
    parser.add_argument(
        "--only", action="append", choices=names, default=[], help="run this part; again for more"
    )
    parser.add_argument("--skip", action="append", choices=names, default=[], help="leave this part out")
    parser.add_argument("--minutes", type=float, default=8.0, help="of the whole run (default 8)")
    parser.add_argument("--untimed", action="store_true", help="parts take as long as they take")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="file of the results")
    given = parser.parse_args(arguments)
    try:
        device = device_of_name(given.device)
    except NfaError as error:
        print(error, file=sys.stderr)
        return 2
    if not 0 < given.scale <= 1:
        parser.error(f"--scale must be above 0 and at most 1, got {given.scale}")
    wanted = [
        part
        for part in gpu.PARTS
        if part.name == "floors"
        or ((part.name in given.only or not given.only) and part.name not in given.skip)
    ]
    torch.manual_seed(0)
    told = parts.run(wanted, device, given.scale, 60 * given.minutes, given.out, not given.untimed)
    print(f"\n{parts.table(told)}\n{told['seconds']:.0f} s in all; {given.out}")
    return int(any(part["ended"].startswith("failed") for part in told["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
