"""``nfa audit``: a network and data by name, measured, and written down as a table, CSV, JSON and a page."""

import argparse
import os
import shlex
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from nfa.ansatz.matrices import MOST_BYTES, check_layers, check_size
from nfa.ansatz.notes import notes
from nfa.ansatz.pictures import layer_pictures
from nfa.ansatz.report import AnsatzReport
from nfa.audit import audit
from nfa.checks import device_of_name
from nfa.command.audit_files import (
    MATRICES,
    Matrices,
    Result,
    check_writable,
    log,
    missing,
    show,
    versions,
    write,
)
from nfa.command.chosen_output import Choice
from nfa.command.console import ConsoleObserver
from nfa.command.first_call import check_call
from nfa.command.protocol_command import run_protocol
from nfa.command.twins import Measure, Twin, add_twin, build_twin, say_what_is_missing
from nfa.device import free_memory
from nfa.errors import NfaError
from nfa.inputs import TABLES, Inputs, load_inputs
from nfa.inputs.load import ending_of
from nfa.inputs.preprocessing import Preprocessing
from nfa.layers.maps import find_maps, has_unbuilt, patterns_of
from nfa.layers.zero_starts import SCALE, fill_zero_starts
from nfa.nets.allowance import Allowance
from nfa.sweep.passes import FORWARD_FAILED
from nfa.terminal import say
from nfa.zoo import Loaded, load

_GROUPS = 8  # of samples, from which standard errors are found
_BATCH = 8  # samples a group at most: the more groups, the sooner it is known whether they suffice
_ARRAYS = (".npz", ".safetensors")
_READY = (*_ARRAYS, *TABLES, ".txt")
_MEMORY_SHARE = 0.8  # of what is free


def run(options: argparse.Namespace) -> int:
    """Do what ``nfa audit`` was asked for; returns the exit status.

    What was measured is written whatever fails afterwards: without the values at initialisation, the
    pictures or the page, and the notes say so.

    Raises:
        NfaError: a mistake of the user, nothing is written then.
    """
    out = Path(options.out)
    device = _device(options.device)
    started = time.perf_counter()
    loaded = load(options.spec, weights=options.weights, seed=options.seed)
    choice = _choice(options, loaded)
    twin = build_twin(loaded, options.spec.strip(), options.seed + 1) if options.init else None
    if options.random_scales:
        _fill(options, loaded, twin)
    inputs = _inputs(options, loaded)
    strange = loaded.named_by_file
    with Allowance("calling the network", at_once=True) if strange else nullcontext():
        check_call(loaded.model, inputs, choice, options.batch_dim)
    matrices = _matrices(options, loaded.model)
    if options.protocol is not None:
        return run_protocol(options, loaded, inputs, device, choice)
    if options.defects:
        raise NfaError("--defects are of the code of a paper: give --protocol nfa or --protocol cnfa, too")
    new = not os.path.exists(out)
    try:
        check_writable(out)
        adaptive = options.probes is None and not options.exact
        watch = ConsoleObserver(inputs.samples, inputs.batch_size, nulls=options.nulls, adaptive=adaptive)
        watch.say(f"{loaded.title}, weights {loaded.weights}, on {inputs.description}")
        if twin is not None:
            say_what_is_missing(twin, watch)
        with watch.interruptible():
            measure = _measurement(options, loaded, inputs, device, watch, choice)
            try:
                report = measure(loaded.model, initial_state=loaded.initial)
            except NfaError as error:
                if not watch.asked_to_stop:
                    raise
                raise KeyboardInterrupt(watch.status) from error  # before anything was complete
            result = Result(report, [], {}, f"{loaded.title} on {inputs.description.split(':')[0]}")
            result.matrices = matrices
            if twin is not None:
                add_twin(result, measure, twin, watch)
            _describe(result, options, loaded, inputs, time.perf_counter() - started)
            _draw(result, options, loaded, inputs, watch)
            _finish(out, result)
    except BaseException:
        if new and os.path.isdir(out) and not os.listdir(out):
            out.rmdir()
        raise
    if options.wandb:
        log(options.wandb, options.group, out, result)
    return watch.status


def _fill(options: argparse.Namespace, loaded: Loaded, twin: Twin | None) -> None:
    """Small random values where networks with random weights start at zero."""
    random = options.spec.strip().lower().endswith("@none") and options.weights is None
    if not random and twin is None:
        raise NfaError("--random-scales is for random weights: give it with @none or --init, or leave it out")
    filled = fill_zero_starts(loaded.model, options.seed) if random else []
    filled += fill_zero_starts(twin.model, options.seed + 1) if twin is not None else []
    count = len(set(filled))
    loaded.notes.append(
        f"Random scales: {count} weights that start at zero were drawn, with standard deviation {SCALE:g}."
        if count
        else "Random scales: nothing that multiplies starts at zero."
    )


def _finish(out: Path, result: Result) -> None:
    """The files first: whatever the terminal does, they are there. Where they cannot be, the table is."""
    try:
        write(out, result)
    finally:
        show(result)
    page = "audit.html" if (out / "audit.html").is_file() else "audit.csv"
    say(f"report   {out / page}")
    if result.matrices is not None and (out / MATRICES).is_file():
        say(f"matrices {out / MATRICES}")


# ---- what is measured -------------------------------------------------------------------------------------


def _inputs(options: argparse.Namespace, loaded: Loaded) -> Inputs:
    """The data, preprocessed as the network wants it or as the options say, in groups for the errors."""
    given = {k: getattr(options, k) for k in ("size", "mean", "std")}
    ready = ending_of(Path(options.data)) in _READY
    if ready and any(value is not None for value in (*given.values(), options.resize)):
        raise NfaError(
            f"{options.data} holds ready inputs, which are not preprocessed: leave out --size, --resize, "
            "--mean and --std"
        )
    if options.batch_dim and Path(options.data).suffix.lower() not in _ARRAYS:
        raise NfaError(
            f"--batch-dim is for ready inputs (.npz, .safetensors), {options.data} has its samples first: "
            "leave it out"
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
        "batch_dim": options.batch_dim,
        "table": loaded.table,
    }
    inputs = load_inputs(options.data, **arguments)
    batch_size = min(options.batch_size or min(max(inputs.samples // _GROUPS, 1), _BATCH), inputs.samples)
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
    module = None if first is None else first.module
    return module.in_channels if isinstance(module, nn.Conv2d) else None


def _device(name: str | None) -> torch.device:
    try:
        device = device_of_name(name) or torch.device("cpu")
        torch.zeros(1, device=device).item()
    except Exception as error:  # a device without numbers, without its package, or none at all
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise NfaError(f"--device {name} cannot be used ({line})") from None
    return device


def _matrices(options: argparse.Namespace, model: nn.Module) -> Matrices | None:
    """Which matrices are to be written; layers and sizes are checked as far as they are known by now."""
    if options.matrices is None:
        if options.matrices_size is not None:
            raise NfaError("--matrices-size is the limit of --matrices: give both, or leave it out")
        return None
    most = options.matrices_size or MOST_BYTES
    if not has_unbuilt(model):
        maps = find_maps(model, options.layers, per_head=options.per_head)[0]
        sizes = {m.name: (m.groups, m.out_features // m.groups, m.in_features) for m in maps}
        chosen = check_layers(patterns_of(options.matrices) or [], sizes)
        check_size({name: sizes[name] for name in chosen}, most)
    return Matrices(options.matrices, most)


def _choice(options: argparse.Namespace, loaded: Loaded) -> Choice:
    everything = options.outputs == "all"
    if everything and options.output != "logits":
        raise NfaError(
            f"--outputs all puts several outputs side by side, of which {options.output} makes no sense: "
            "leave out --output, or choose one with --output-index N or --output-key NAME"
        )
    return Choice(options.output_index, options.output_key, everything, loaded.output_fn)


def _measurement(
    options: argparse.Namespace,
    loaded: Loaded,
    inputs: Inputs,
    device: torch.device,
    watch: ConsoleObserver,
    choice: Choice,
) -> Measure:
    """A function that measures a network as the options say."""
    free = free_memory(device)
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
        "output": options.output,
        "output_fn": choice,
        "batch_dim": options.batch_dim,
        "drift": True,
        "watch": watch,
    }

    def measure(model: nn.Module, **changes: object) -> AnsatzReport:
        try:
            return audit(model, inputs, **{**arguments, **changes})
        except NfaError as error:
            raise NfaError(str(error).replace("; pass output_fn=", "")) from error
        except (RuntimeError, MemoryError) as error:  # what torch raises where there is no derivative
            where = "failed half-way through" if _in_forward(error) else "cannot be measured"
            raise NfaError(f"the network {where} ({_line(error)})") from error
        except Exception as error:
            if _in_forward(error):
                raise NfaError(f"the network failed half-way through ({_line(error)})") from error
            raise

    return measure


def _in_forward(error: BaseException) -> bool:
    return FORWARD_FAILED in getattr(error, "__notes__", ())


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


# ---- what is told -----------------------------------------------------------------------------------------


def _describe(
    result: Result, options: argparse.Namespace, loaded: Loaded, inputs: Inputs, seconds: float
) -> None:
    """Fill in the notes and what a reader needs to repeat the audit."""
    report = result.report
    result.notes[:0] = [
        *notes(report, inputs.samples, options.power, options.tolerance),
        *loaded.notes,
    ]
    result.meta = {
        "network": loaded.title,
        "weights": loaded.weights,
        "data": inputs.description,
        **_initial_words(options, loaded, report),
        **{k: v for k, v in report.meta.items() if v not in ({}, None)},
        "tolerance": options.tolerance if options.probes is None and not options.exact else None,
        "null draws": report.null_draws,
        "standard error of the alignment": {k: p.alignment for k, p in report.precision.items()},
        "drift of the cosine": {k: p.drift for k, p in report.precision.items()},
        "skipped": {row.layer: row.status.removeprefix("skipped: ") for row in report.rows if row.skipped},
        "device": str(_device(options.device)),
        "seconds": round(seconds, 2),
        "command": shlex.join(["nfa", *sys.argv[1:]]),
        "versions": versions(),
    }


def _initial_words(options: argparse.Namespace, loaded: Loaded, report: AnsatzReport) -> dict[str, str]:
    if "at initialisation" in report.meta:
        return {"initial values": f"of random weights, seed {options.seed}"}
    return {"initial values": "as the run recorded them"} if loaded.initial else {}


def _draw(
    result: Result, options: argparse.Namespace, loaded: Loaded, inputs: Inputs, watch: ConsoleObserver
) -> None:
    """Add the pictures; an audit without them is one all the same."""
    if not options.pictures:
        return
    watch.say(f"drawing {options.pictures} layers at most")
    try:
        result.pictures = layer_pictures(
            result.report, loaded.model, power=options.power, count=options.pictures, input_shape=inputs.shape
        )
    except (Exception, KeyboardInterrupt) as error:
        result.notes.append(missing("the pictures of layers", error))
