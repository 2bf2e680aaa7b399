"""``audit(model, batches)`` says in which layers of a network the ansatz holds, and by more than chance."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nfa.ansatz.gather_rows import RowGatherer, skipped_row
from nfa.ansatz.report import AnsatzReport
from nfa.checks import known_options, network_of
from nfa.clock import now
from nfa.errors import NfaError
from nfa.layers.coverage import covered_share, tied_to, tied_weights
from nfa.layers.maps import (
    LinearMap,
    SkippedModule,
    check_any,
    find_maps,
    in_order,
    patterns_of,
    weight_blocks,
)
from nfa.sweep.arguments import (
    batches_of,
    check_combinations,
    check_initial_state,
    checked,
    checked_of_audit,
    checked_sweep,
    measurable,
)
from nfa.sweep.batch_axis import with_batch_dim
from nfa.sweep.batches import Batch, Replayable, limited, replayable, split
from nfa.sweep.footprint import survey
from nfa.sweep.interaction import RANDOM
from nfa.sweep.measure import all_reduce, bases_of, build, measure_sensitivities
from nfa.sweep.observer import Observer, Sweep
from nfa.sweep.options import AuditedSweep, AuditOptions, SweepOptions
from nfa.sweep.tolerance import sweep_to_tolerance
from nfa.sweep.untouched import same_random_states

_REPLICATES = 8
_USUAL = {"output": "logits", "centered": False}  # anything else makes another C, which is told
_SWEEP_OPTIONS = ("output", "output_fn", "neglect", "chunk", "centered", "replicates_over")


@with_batch_dim
def audit(
    model: nn.Module,
    batches: Iterable[Batch] | Tensor,
    layers: str | Sequence[str] | None = None,
    power: float = 0.5,
    probes: int | None = None,
    max_samples: int | None = None,
    initial_state: Mapping[str, Tensor] | AnsatzReport | None = None,
    nulls: int = 32,
    seed: int = 0,
    device: torch.device | str | None = None,
    *,
    tolerance: float | None = None,
    drift: bool = False,
    per_head: bool = False,
    memory: float | None = None,
    distributed: bool = False,
    replicates: int = _REPLICATES,
    watch: Observer | None = None,
    **sweep_options: object,
) -> AnsatzReport:
    """Measure ``WᵀW`` against the AGOP in every linear map of a network, each number with its null.

    The model is left exactly as it was (see `nfa.sweep.untouched.untouched`).

    Args:
        model: any module that maps a batch to outputs.
        batches: see `nfa.sweep.measure.measure_sensitivities`; a list or loader is read once, and twice
            when ``initial_state`` is a state dict, or several times to reach a ``tolerance``.
        layers: glob pattern or patterns of layer names; None measures all.
        power: exponent α in ``N ∝ G^α``; 1/2 and 1 are the published choices.
        probes: None for the exact AGOP, or the number of random output combinations a sample.
        max_samples: use at most so many samples.
        initial_state: the state dict at initialisation, or the report of an audit made then; fills the
            columns ``cnfc`` and ``init_*``.
        nulls: random rotations of C behind ``null_mean`` and ``null_std``; fewer for layers wider than
            128, whose null hardly varies (see `AnsatzReport.null_draws`).
        seed: of the probes and the nulls.
        device: where to run; None means where the model is.
        tolerance: measure until the standard error of every layer's cosine, and its drift, are at most
            this, or the samples end; exactly or with probes, whichever is cheaper. The error then is over
            groups of samples, each with probes of its own.
        drift: find for each layer how far its cosine moves when the samples are halved
            (`AnsatzReport.precision`); done for a tolerance in any case.
        per_head: a row for each head of the queries, keys and values of attention.
        memory: bytes to stay within, by carrying fewer samples at a time and keeping fewer partial sums.
        distributed: each rank brings its own part of the samples and all get the report of the whole.
        replicates: partial sums kept for ``stderr``; 1 leaves it out.
        watch: looks on, and may end the measurement early.
        batch_dim: axis of the inputs that counts samples; 1 for time-first sequences. The outputs have their
            samples there too, or first.
        **sweep_options: ``output``, ``output_fn``, ``neglect``, ``chunk``, ``centered`` of
            `measure_sensitivities`.

    Returns:
        The report; its rows have the status ``skipped: reason`` where nothing could be measured.

    Raises:
        NfaError: bad arguments, data or outputs; the message says what to do.

    Example:
        >>> import torch, nfa
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> report = nfa.audit(net, torch.randn(32, 6))
        >>> [(row.layer, row.verdict) for row in report.rows]  # of random weights, and of the last map
        [('0', 'within null'), ('2', 'trivial')]
    """
    known_options(sweep_options, audit, _SWEEP_OPTIONS)
    model, batches = measurable(model), batches_of(batches)
    own = checked_of_audit({
        "power": power, "probes": probes, "nulls": nulls, "tolerance": tolerance, "drift": drift,
        "per_head": per_head, "memory": memory, "distributed": distributed, "replicates": replicates,
        "watch": watch,
    })  # fmt: skip
    given = {**sweep_options, "max_samples": max_samples, "seed": seed, "device": device}
    asked = _asked(layers, own, checked(given))
    initial_weights = None if isinstance(initial_state, AnsatzReport) else initial_state
    if initial_weights is not None:
        check_initial_state(initial_weights)
    with same_random_states():  # loaders and lazy modules draw numbers
        if initial_weights is not None:
            # they are read twice, and no further than needed
            batches = list(limited(batches, asked.of_sweep["max_samples"]))
        batches = replayable(batches)
        build(model, batches.first)
        maps, skipped = find_maps(model, asked.layers, per_head=asked.per_head)
        initial = initial_state if isinstance(initial_state, AnsatzReport) else None
        if initial_weights is not None:
            initial = _initial_report(model, batches, initial_weights, asked)
        _check_initial(maps, initial)
        check_any(maps, skipped)
        started = now()
        sweep = _sweep(model, batches, maps, initial, asked)
        report = AnsatzReport(weights={m.name: m.weight().clone() for m in maps})
    swept = now()
    tied = tied_weights(model)
    if tied:
        skipped = [_with_tie(entry, tied_to(model, entry, maps)) for entry in skipped]
    _fill_rows(report, in_order(model, maps, skipped), sweep, initial, asked)
    report.meta = {
        **_facts(sweep),
        "covered": round(covered_share(model, [m for m in maps if m.name in report._sensitivities]), 6),
        "tied": tied,
        "power": asked.power,
        **{name: value for name, value in asked.of_sweep.items() if value != _USUAL.get(name, value)},
        "seed": asked.of_sweep["seed"],
        "sweep_seconds": round(swept - started, 3),
        "statistics_seconds": round(now() - swept, 3),
    }
    return report


@with_batch_dim
def agop(
    model: nn.Module,
    batches: Iterable[Batch] | Tensor,
    layers: str | Sequence[str] | None = None,
    **sweep_options: object,
) -> dict[str, Tensor]:
    """Dense average gradient outer products of a network with respect to its layers' inputs.

    Args:
        model: any module.
        batches: see `nfa.sweep.measure.measure_sensitivities`.
        layers: glob pattern or patterns of layer names; None takes all.
        **sweep_options: ``batch_dim`` as in `audit`, or any keyword of `measure_sensitivities`.

    Returns:
        Layer name -> ``G = WᵀCW``, float64 (in, in), or (groups, in, in) for a grouped convolution; for a
        convolution ``in`` is a patch, ordered (channel, *kernel). Layers that are not called, or not all of
        whose use can be followed, are left out.

    Raises:
        NfaError: as in `audit`, or no layer is left.

    Example:
        >>> import torch, nfa
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.Flatten(), torch.nn.Linear(36, 1))
        >>> found = nfa.agop(net, torch.randn(10, 2, 5, 5))
        >>> {name: tuple(G.shape) for name, G in found.items()}  # of patches: 2 channels of 3 x 3
        {'0': (18, 18), '2': (36, 36)}
    """
    options = checked_sweep(sweep_options, agop)
    model, batches = measurable(model), batches_of(batches)
    with same_random_states():
        batches = replayable(batches)
        build(model, batches.first)
        maps, _ = find_maps(model, layers)
        sweep = measure_sensitivities(model, batches, maps, bases=bases_of(maps, {}), **options)
    called = {m: found for m in maps if (found := sweep.sensitivities[m.name]).called}
    followed = {m: found for m, found in called.items() if not found.unfollowed}
    if not followed:
        first = next(iter(called))
        raise NfaError(
            f"no layer is left: not all of the use of {first.name} can be followed: "
            f"{called[first].unfollowed}"
        )
    return {m.name: found.pair(m.weight()).agop() for m, found in followed.items()}


def neural_feature_matrix(module: nn.Module) -> Tensor:
    """Dense ``WᵀW`` of one linear map.

    Args:
        module: a linear layer or a convolution.

    Returns:
        N, float64: (in, in), or (groups, in, in) for a grouped convolution; for a convolution ``in`` is a
        patch, ordered (channel, *kernel).

    Raises:
        NfaError: a module without such a weight.

    Example:
        >>> import torch, nfa
        >>> layer = torch.nn.Linear(2, 1)
        >>> layer.weight.data = torch.tensor([[1.0, 2.0]])
        >>> nfa.neural_feature_matrix(layer)
        tensor([[1., 2.],
                [2., 4.]], dtype=torch.float64)
    """
    W = weight_blocks(network_of(module)).double()
    N = W.mT @ W
    return N if W.shape[0] > 1 else N[0]


@with_batch_dim
def input_agop(model: nn.Module, batches: Iterable[Batch] | Tensor, **sweep_options: object) -> Tensor:
    """AGOP of a network with respect to its whole input, flattened to d numbers.

    Args:
        model: a module of one tensor argument.
        batches: tensors or pairs (x, target).
        **sweep_options: ``batch_dim`` as in `audit`, or any keyword of `measure_sensitivities`.

    Returns:
        ``E Σ_k (∂f_k/∂x)(∂f_k/∂x)ᵀ``, float64 (d, d).

    Raises:
        NfaError: as in `audit`, or inputs that are no floating tensor.

    Example:
        >>> import torch, nfa
        >>> net = torch.nn.Linear(3, 2)
        >>> W = net.weight.detach().double()
        >>> torch.allclose(nfa.input_agop(net, torch.randn(5, 3)), W.T @ W)
        True
    """
    options = checked_sweep(sweep_options, input_agop)
    model, batches = measurable(model), batches_of(batches)
    with same_random_states():
        batches = replayable(batches)
        x = split(batches.first)[0]
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise NfaError("input_agop needs one floating tensor as the model's input")
        tap = LinearMap("input", nn.Identity(), "flat", x[0].numel(), x[0].numel())
        sweep = measure_sensitivities(nn.Sequential(tap.module, model), batches, [tap], **options)
    return sweep.sensitivities["input"].matrix[0]


# ---- steps of an audit ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Asked(AuditOptions):
    """What an audit was asked for, checked; ``of_sweep`` goes to `measure_sensitivities` as it is."""

    layers: Sequence[str] | None
    of_sweep: SweepOptions


def _asked(layers: str | Sequence[str] | None, own: AuditOptions, of_sweep: SweepOptions) -> _Asked:
    check_combinations({**vars(own), **of_sweep})
    return _Asked(layers=patterns_of(layers), of_sweep=of_sweep, **vars(own))


def _initial_report(
    model: nn.Module, batches: Iterable[Batch], initial_state: Mapping[str, Tensor], asked: _Asked
) -> AnsatzReport:
    """Audit a copy of the network with the weights that it had at initialisation."""
    try:
        twin = copy.deepcopy(model)
    except RuntimeError as error:
        reason = str(error).split(".")[0]
        raise NfaError(f"the model cannot be copied ({reason}); pass a report made at the start") from None
    try:
        twin.load_state_dict(initial_state)
    except RuntimeError as error:
        first = str(error).splitlines()[1:3]
        raise NfaError(
            f"initial_state does not fit the model: {' '.join(line.strip() for line in first)}"
        ) from None
    exact = asked.probes is None and asked.tolerance is None
    return audit(
        twin,
        batches,
        asked.layers,
        asked.power,
        asked.probes,
        nulls=0,
        tolerance=asked.tolerance,
        per_head=asked.per_head,
        memory=asked.memory,
        distributed=asked.distributed,
        replicates=1 if exact else asked.replicates,  # exact numbers need no correction
        **asked.of_sweep,
    )


def _check_initial(maps: Sequence[LinearMap], initial: AnsatzReport | None) -> None:
    for lmap in maps:
        before = initial.weights.get(lmap.name) if initial is not None else None
        if before is None:
            continue
        first = 2 if lmap.arbitrary_rows else 0
        if before.shape[first:] != lmap.weight().shape[first:]:
            raise NfaError(
                f"initial_state is of another model: {lmap.name} was {tuple(before.shape)}, "
                f"is {tuple(lmap.weight().shape)}"
            )


def _sweep(
    model: nn.Module,
    batches: Replayable,
    maps: Sequence[LinearMap],
    initial: AnsatzReport | None,
    asked: _Asked,
) -> Sweep:
    """Measure C of every map: within the memory and to the tolerance, if these are given, over all ranks."""
    options: SweepOptions = {**asked.of_sweep}
    replicates = asked.replicates
    bases = bases_of(maps, {} if initial is None else initial.weights)
    if asked.memory is not None or asked.tolerance is not None:
        footprint = survey(model, batches.first, maps, bases, **options)
        replicates, options["piece_limit"] = footprint.within(asked.memory, replicates)
        asked.watch.begin(footprint, replicates, options["piece_limit"])
    full: AuditedSweep = {**options, "replicates": replicates, "bases": bases}
    if asked.tolerance is None:
        sweep = measure_sensitivities(model, batches, maps, probes=asked.probes, watch=asked.watch, **full)
    else:
        sweep = sweep_to_tolerance(
            model, batches, maps, asked.tolerance, asked.power, footprint.backwards, asked.watch, full
        )
    if asked.distributed:
        all_reduce(sweep)
    return sweep


def _with_tie(entry: SkippedModule, measured: str | None) -> SkippedModule:
    if measured is None:
        return entry
    return replace(entry, reason=f"{entry.reason}; its weight is tied to {measured}, measured there")


def _fill_rows(
    report: AnsatzReport,
    entries: Sequence[LinearMap | SkippedModule],
    sweep: Sweep,
    initial: AnsatzReport | None,
    asked: _Asked,
) -> None:
    """Give the report its rows, one for each entry."""
    gatherer = RowGatherer(
        report,
        initial,
        power=asked.power,
        nulls=asked.nulls,
        seed=asked.of_sweep["seed"],
        halves=asked.drift or asked.tolerance is not None,
        corrected=sweep.probes is not None,
    )
    for entry in entries:
        if isinstance(entry, SkippedModule):
            row = skipped_row(entry)
        else:  # the replicates are not needed any longer
            row = gatherer.row(entry, sweep.sensitivities.pop(entry.name))
        report.rows.append(replace(row, status=RANDOM) if row.measured and sweep.noise else row)
        asked.watch.rows(len(report.rows), len(entries))


def _facts(sweep: Sweep) -> dict[str, object]:
    """What a report tells of its sweep; what happened in few of them, only where it did."""
    rare = {
        "neglected": sweep.neglected,
        "stopped": sweep.stopped,
        "noise": sweep.noise,
        "unit length": sweep.unit_length,
    }
    return {
        "samples": sweep.samples,
        "outputs": sweep.outputs,
        "mode": sweep.mode,
        "backwards a sample": sweep.backwards,
        **{name: value for name, value in rare.items() if value},
    }
