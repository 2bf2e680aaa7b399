"""``nfa audit``: a network and data by name, measured, and written down as a table, CSV, JSON and a page."""

import argparse
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import nfa
from nfa.audit import AnsatzReport, audit
from nfa.audit_notes import notes
from nfa.batches import Batch, call, cut, length, map_tensors, picked, prepare, split
from nfa.console import ConsoleWatch, clock
from nfa.errors import NfaError
from nfa.files import make_writable
from nfa.inputs import Inputs, load_inputs
from nfa.maps import find_maps, has_unbuilt
from nfa.memory import available
from nfa.page import write_html
from nfa.pictures import layer_pictures
from nfa.preprocessing import Preprocessing
from nfa.report import LayerPicture, format_table, summary_sentence, write_json
from nfa.rows import AnsatzRow, write_csv
from nfa.run import FORWARD_FAILED
from nfa.sensitivity import device_of
from nfa.untouched import untouched
from nfa.zoo import Loaded, load

_GROUPS = 8  # of samples, from which standard errors are found
_BATCH = 8  # samples a group at most: the more groups, the sooner it is known whether they suffice
_READY = (".npz", ".safetensors", ".txt")
_UNLIMITED = 10_000  # columns
_MEMORY_SHARE = 0.8  # of what is free


@dataclass
class Result:
    """What an audit found, ready to be written."""

    report: AnsatzReport
    notes: list[str]
    meta: dict[str, Any]
    title: str


def run(options: argparse.Namespace) -> int:
    """Do what ``nfa audit`` was asked for; returns the exit status.

    Raises:
        NfaError: a mistake of the user, nothing is written then.
    """
    out = Path(options.out)
    device = _device(options.device)
    started = time.perf_counter()
    loaded = load(options.spec, weights=options.weights, seed=options.seed)
    inputs = _inputs(options, loaded)
    _check_call(loaded, inputs)
    new = not out.exists()
    try:
        _check_writable(out)
        watch = ConsoleWatch(inputs.samples, inputs.batch_size)
        watch.say(f"{loaded.title}, weights {loaded.weights}, on {inputs.description}")
        with watch.interruptible():
            report = _audit(options, loaded, loaded.model, inputs, device, watch)
            if options.init and not watch.asked_to_stop:
                _add_twin(options, loaded, report, inputs, device, watch)
            result = _result(options, loaded, inputs, report, time.perf_counter() - started)
            _show(result)
            pictures = _pictures(options, loaded, inputs, report, watch)
            _write(out, result, pictures)
    except BaseException:
        if new and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        raise
    print(f"report   {out / 'audit.html'}")
    if options.wandb:
        _log(options.wandb, options.group, out, result, pictures)
    return 130 if watch.asked_to_stop else 0


# ---- what is measured -------------------------------------------------------------------------------------


def _inputs(options: argparse.Namespace, loaded: Loaded) -> Inputs:
    """The data, preprocessed as the network wants it or as the options say, in groups for the errors."""
    given = {k: getattr(options, k) for k in ("size", "mean", "std")}
    ready = Path(options.data).suffix.lower() in _READY
    if ready and any(value is not None for value in (*given.values(), options.resize)):
        raise NfaError(
            f"{options.data} holds ready inputs, which are not preprocessed: leave out --size, --resize, "
            "--mean and --std"
        )
    arguments = {
        "preprocessing": _preprocessing(options, loaded),
        "max_samples": options.max_samples,
        "seed": options.seed,
        "split": options.split,
        "root": options.root,
        "rgb": options.rgb,
        "tokenize": loaded.tokenize,
        "tokens": options.tokens,
    }
    inputs = load_inputs(options.data, **arguments)
    batch_size = options.batch_size or min(max(inputs.samples // _GROUPS, 1), _BATCH)
    return replace(inputs, batch_size=batch_size)


def _preprocessing(options: argparse.Namespace, loaded: Loaded) -> Preprocessing | None:
    """What the zoo knows, with what the options say in its place; None where nobody knows mean or std."""
    known = loaded.preprocessing
    if known is None and (options.mean is None or options.std is None):
        return None
    known = known or Preprocessing()
    if known.channels is None:
        known = replace(known, channels=_first_channels(loaded.model))
    if options.size is not None:
        # A net that is shown the middle of a larger picture goes on being shown as much of it.
        larger = known.resize and known.size and round(options.size * known.resize / min(known.size))
        known = replace(known, size=(options.size, options.size), resize=larger or options.size)
    changes = {k: getattr(options, k) for k in ("mean", "std", "resize") if getattr(options, k) is not None}
    return replace(known, **changes)


def _first_channels(model: nn.Module) -> int | None:
    """Input channels of the first layer, if that is a convolution of images."""
    if has_unbuilt(model):
        return None
    first = next(iter(find_maps(model)[0]), None)
    return first.module.in_channels if first is not None and first.kind == "conv2d" else None


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise NfaError(f"--device {name} cannot be used ({str(error).splitlines()[0]})") from None
    return device


def _check_call(loaded: Loaded, inputs: Inputs) -> None:
    """Call the network once, before hours of work: it must take the inputs, and look at them."""
    model = loaded.model
    first = next(iter(inputs))
    x, _ = split(first)
    x = cut(x, slice(2), length(x))
    with untouched(model), torch.no_grad():
        try:
            outputs = picked(call(model, prepare(model, x, device_of(model))), loaded.output_fn)
            other = picked(call(model, prepare(model, _changed(x), device_of(model))), loaded.output_fn)
        except NfaError as error:
            raise NfaError(str(error).replace("; pass output_fn=", "")) from None
        except Exception as error:
            line = (str(error).splitlines() or [""])[0]
            raise NfaError(
                f"the network cannot be called with inputs of shape {_shape(first)} "
                f"({type(error).__name__}: {line}): give it data it is made for, or another --size"
            ) from None
    if torch.equal(outputs, other):
        raise NfaError(
            "the network's output does not depend on its input: other inputs, the very same outputs"
        )


def _changed(x: Any) -> Any:
    """Other inputs of the same kind: floats moved by noise, token ids shifted along the sequence."""
    generator = torch.Generator().manual_seed(0)

    def change(t: Tensor) -> Tensor:
        if t.is_floating_point():
            return t + torch.randn(t.shape, generator=generator).to(t)
        return t.roll(1, -1) if t.dim() > 1 else t

    return map_tensors(x, change)


def _shape(batch: Batch) -> str:
    x, _ = split(batch)
    if isinstance(x, Tensor):
        return str(tuple(x.shape[1:]))
    named = x.items() if isinstance(x, dict) else enumerate(x)
    return ", ".join(f"{k} {tuple(v.shape[1:])}" for k, v in named if isinstance(v, Tensor))


def _audit(
    options: argparse.Namespace,
    loaded: Loaded,
    model: nn.Module,
    inputs: Inputs,
    device: torch.device,
    watch: ConsoleWatch,
    **changes: Any,
) -> AnsatzReport:
    free = available(device)
    adaptive = options.probes is None and not options.exact
    arguments = {
        "layers": options.layers,
        "power": options.power,
        "probes": options.probes,
        "tolerance": options.tolerance if adaptive else None,
        "neglect": options.neglect,
        "nulls": options.nulls,
        "seed": options.seed,
        "device": device,
        "per_head": options.per_head,
        "memory": options.memory or (free and _MEMORY_SHARE * free) or None,
        "initial_state": loaded.initial,
        "output": options.output,
        "output_fn": loaded.output_fn,
        "drift": True,
        "watch": watch,
    }
    try:
        return audit(model, inputs, **{**arguments, **changes})
    except NfaError:
        raise
    except Exception as error:
        if FORWARD_FAILED not in getattr(error, "__notes__", ()):
            raise
        line = (str(error).splitlines() or [""])[0]
        raise NfaError(f"the network failed half-way through ({type(error).__name__}: {line})") from error


def _add_twin(
    options: argparse.Namespace,
    loaded: Loaded,
    report: AnsatzReport,
    inputs: Inputs,
    device: torch.device,
    watch: ConsoleWatch,
) -> None:
    """Fill in what the same architecture gives with random weights, which are not the ones it began with."""
    if loaded.twin is None:
        raise NfaError(f"--init: no randomly initialised {loaded.title} can be built")
    watch.label = "at initialisation: "
    initial = _audit(
        options, loaded, loaded.twin(options.seed + 1), inputs, device, watch, nulls=0, initial_state=None
    )
    watch.label = ""
    before = {row.layer: row for row in initial.rows}
    report.rows = [_with_twin(row, before.get(row.layer)) for row in report.rows]
    report.meta["at initialisation"] = initial.meta


def _with_twin(row: AnsatzRow, twin: AnsatzRow | None) -> AnsatzRow:
    if twin is None or row.status.startswith("skipped"):
        return row
    return replace(row, init_cosine=twin.cosine, init_alignment=twin.alignment)


# ---- what is written --------------------------------------------------------------------------------------


def _check_writable(out: Path) -> None:
    try:
        make_writable(out)
    except OSError as error:
        raise NfaError(f"cannot write to --out {out} ({error.strerror}): choose another folder") from None


def _result(
    options: argparse.Namespace, loaded: Loaded, inputs: Inputs, report: AnsatzReport, seconds: float
) -> Result:
    skipped = {row.layer: row.status.removeprefix("skipped: ") for row in report.rows if _skipped(row)}
    meta = {
        "network": loaded.title,
        "weights": loaded.weights,
        "data": inputs.description,
        **({"initial values": _initial_words(options, loaded)} if options.init or loaded.initial else {}),
        **{k: v for k, v in report.meta.items() if v not in ({}, None)},
        "tolerance": options.tolerance if options.probes is None and not options.exact else None,
        "null draws": report.null_draws,
        "standard error of the alignment": {k: p.alignment for k, p in report.precision.items()},
        "drift of the cosine": {k: p.drift for k, p in report.precision.items()},
        "skipped": skipped,
        "device": str(_device(options.device)),
        "seconds": round(seconds, 2),
        "command": shlex.join(["nfa", *sys.argv[1:]]),
        "versions": _versions(),
    }
    sentences = [*notes(report, inputs.samples, options.power, options.tolerance), *loaded.notes]
    return Result(report, sentences, meta, f"{loaded.title} on {inputs.description.split(':')[0]}")


def _initial_words(options: argparse.Namespace, loaded: Loaded) -> str:
    return f"of random weights, seed {options.seed}" if options.init else "as the run recorded them"


def _skipped(row: AnsatzRow) -> bool:
    return row.status.startswith("skipped")


def _versions() -> dict[str, str]:
    others = {
        name: sys.modules[name].__version__
        for name in ("torchvision", "timm", "transformers")
        if hasattr(sys.modules.get(name), "__version__")
    }
    return {"nfa": nfa.__version__, "torch": torch.__version__, **others, "python": platform.python_version()}


def _pictures(
    options: argparse.Namespace, loaded: Loaded, inputs: Inputs, report: AnsatzReport, watch: ConsoleWatch
) -> list[LayerPicture]:
    if options.pictures:
        watch.say(f"drawing {options.pictures} layers at most")
    return layer_pictures(
        report, loaded.model, power=options.power, count=options.pictures, input_shape=inputs.shape
    )


def _write(out: Path, result: Result, pictures: Sequence[LayerPicture]) -> None:
    """All three files or none: those of an earlier audit are replaced together."""
    with tempfile.TemporaryDirectory(prefix=".audit-", dir=out) as folder:
        new = Path(folder)
        try:
            write_csv(new / "audit.csv", result.report.rows)
            write_json(new / "audit.json", result.report.rows, {**result.meta, "notes": result.notes})
            write_html(
                new / "audit.html",
                title=result.title,
                rows=result.report.rows,
                pictures=pictures,
                meta=result.meta,
                notes=result.notes,
            )
        except OSError as error:
            raise NfaError(
                f"cannot write to --out {out} ({error.strerror}): the table above is all there is; free some "
                "space or choose another folder"
            ) from None
        for file in sorted(new.iterdir()):
            os.replace(file, out / file.name)


def _show(result: Result) -> None:
    rows = result.report.rows
    # Whoever reads a file or a pipe can scroll: names stay whole there.
    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else _UNLIMITED
    print(format_table(rows, width=width))
    print(f"\n{summary_sentence(rows)}")
    for note in result.notes:
        print(note)
    meta = result.report.meta
    print(f"\nmeasured in {clock(meta['sweep_seconds'])}, statistics in {clock(meta['statistics_seconds'])}")
    sys.stdout.flush()


def _log(
    project: str, group: str | None, out: Path, result: Result, pictures: Sequence[LayerPicture]
) -> None:
    from nfa.wandb_sink import log_audit

    files = [out / f"audit.{kind}" for kind in ("csv", "json", "html")]
    name = f"audit {result.title}"
    _, where = log_audit(
        project, name, result.report.rows, pictures, result.meta, files, directory=out, group=group
    )
    print(f"W&B      {where}")
