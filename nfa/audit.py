"""``audit(model, batches)`` says in which layers of a network the ansatz holds, and by more than chance."""

import copy
import inspect
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nfa.ansatz.duration import draws_for
from nfa.ansatz.feature_matrices import weight_cosine
from nfa.ansatz.fill_row import fill_row
from nfa.ansatz.pair import FeaturePair
from nfa.ansatz.report import AnsatzReport
from nfa.ansatz.row import AnsatzRow
from nfa.ansatz.sensitivity import Sensitivity
from nfa.checks import known_options, network_of
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
from nfa.sweep.arguments import batches_of, check_combinations, check_initial_state, checked, measurable
from nfa.sweep.batch_axis import with_batch_dim
from nfa.sweep.batches import Batch, limited, replayable, split
from nfa.sweep.footprint import survey
from nfa.sweep.interaction import RANDOM
from nfa.sweep.measure import all_reduce, bases_of, build, measure_sensitivities
from nfa.sweep.observer import Observer
from nfa.sweep.tolerance import sweep_to_tolerance
from nfa.sweep.untouched import same_random_states

_REPLICATES = 8
NO_GRADIENT = "no gradient reaches it: what follows it is zero, or never active"
_SWEEP_OPTIONS = ("output", "output_fn", "neglect", "chunk", "centered", "replicates_over")
_OWN = (
    "power", "probes", "nulls", "tolerance", "drift", "per_head", "memory", "distributed", "replicates",
)  # fmt: skip


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
    **sweep_options: Any,
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
    options = checked({
        "power": power, "probes": probes, "max_samples": max_samples, "nulls": nulls, "seed": seed,
        "device": device, "tolerance": tolerance, "drift": drift, "per_head": per_head, "memory": memory,
        "distributed": distributed, "replicates": replicates, "watch": watch, **sweep_options,
    })  # fmt: skip
    check_combinations(options)
    power, probes, nulls, tolerance, drift, per_head, memory, distributed, replicates = (
        options.pop(name) for name in _OWN
    )
    seed, max_samples, watch = options["seed"], options["max_samples"], options.pop("watch") or Observer()
    layers = patterns_of(layers)
    if not (initial_state is None or isinstance(initial_state, AnsatzReport)):
        check_initial_state(initial_state)
    with same_random_states():  # loaders and lazy modules draw numbers
        if initial_state is not None and not isinstance(initial_state, AnsatzReport):
            batches = list(limited(batches, max_samples))  # read twice, and no further than needed
        batches = replayable(batches)
        build(model, batches.first)
        maps, skipped = find_maps(model, layers, per_head=per_head)
        initial = _initial_report(
            model,
            batches,
            initial_state,
            layers,
            power,
            distributed,
            replicates,
            {"probes": probes, "tolerance": tolerance, "per_head": per_head, "memory": memory, **options},
        )
        _check_initial(maps, initial)
        check_any(maps, skipped)
        bases = bases_of(maps, {} if initial is None else initial.weights)
        start = time.perf_counter()
        if memory is not None or tolerance is not None:
            footprint = survey(model, batches.first, maps, bases, **options)
            replicates, options["piece_limit"] = footprint.within(memory, replicates)
            watch.begin(footprint, replicates, options["piece_limit"])
        sweep_args = (model, batches, maps)
        options |= {"replicates": replicates, "bases": bases}
        if tolerance is None:
            sweep = measure_sensitivities(*sweep_args, probes=probes, watch=watch, **options)
        else:
            sweep = sweep_to_tolerance(*sweep_args, tolerance, power, footprint.backwards, watch, options)
        report = AnsatzReport(weights={m.name: m.weight().clone() for m in maps})
    if distributed:
        all_reduce(sweep)
    tied = tied_weights(model)
    if tied:
        skipped = [_with_tie(entry, tied_to(model, entry, maps)) for entry in skipped]
    middle = time.perf_counter()
    entries, halves = in_order(model, maps, skipped), drift or tolerance is not None
    for entry in entries:
        sensitivity = sweep.sensitivities.pop(entry.name, None)  # its replicates are not needed any longer
        row = _row(entry, sensitivity, report, initial, power, nulls, seed, halves, sweep.probes is not None)
        report.rows.append(replace(row, status=RANDOM) if row.measured and sweep.noise else row)
        watch.rows(len(report.rows), len(entries))
    report.meta = {
        "samples": sweep.samples,
        "outputs": sweep.outputs,
        "mode": sweep.mode,
        "backwards a sample": sweep.backwards,
        **({"neglected": sweep.neglected} if sweep.neglected else {}),
        **({"stopped": True} if sweep.stopped else {}),
        **({"noise": sweep.noise} if sweep.noise else {}),
        "covered": round(covered_share(model, [m for m in maps if m.name in report._sensitivities]), 6),
        "tied": tied,
        "power": power,
        "seed": seed,
        "sweep_seconds": round(middle - start, 3),
        "statistics_seconds": round(time.perf_counter() - middle, 3),
    }
    return report


@with_batch_dim
def agop(
    model: nn.Module,
    batches: Iterable[Batch] | Tensor,
    layers: str | Sequence[str] | None = None,
    **sweep_options: Any,
) -> dict[str, Tensor]:
    """Dense average gradient outer products of a network with respect to its layers' inputs.

    Args:
        model: any module.
        batches: see `nfa.sweep.measure.measure_sensitivities`.
        layers: glob pattern or patterns of layer names; None takes all.
        **sweep_options: ``batch_dim`` as in `audit`, or any keyword of `measure_sensitivities`.

    Returns:
        Layer name -> ``G = WᵀCW``, float64 (in, in), or (groups, in, in) for a grouped convolution; for a
        convolution ``in`` is a patch, ordered (channel, *kernel).

    Raises:
        NfaError: as in `audit`.

    Example:
        >>> import torch, nfa
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.Flatten(), torch.nn.Linear(36, 1))
        >>> found = nfa.agop(net, torch.randn(10, 2, 5, 5))
        >>> {name: tuple(G.shape) for name, G in found.items()}  # of patches: 2 channels of 3 x 3
        {'0': (18, 18), '2': (36, 36)}
    """
    sweep_options = _checked_sweep(sweep_options, agop)
    model, batches = measurable(model), batches_of(batches)
    with same_random_states():
        batches = replayable(batches)
        build(model, batches.first)
        maps, _ = find_maps(model, layers)
        sweep = measure_sensitivities(model, batches, maps, bases=bases_of(maps, {}), **sweep_options)
    return {
        m.name: sweep.sensitivities[m.name].pair(m.weight()).agop()
        for m in maps
        if sweep.sensitivities[m.name].called
    }


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
def input_agop(model: nn.Module, batches: Iterable[Batch] | Tensor, **sweep_options: Any) -> Tensor:
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
    sweep_options = _checked_sweep(sweep_options, input_agop)
    model, batches = measurable(model), batches_of(batches)
    with same_random_states():
        batches = replayable(batches)
        x = split(batches.first)[0]
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise NfaError("input_agop needs one floating tensor as the model's input")
        tap = LinearMap("input", nn.Identity(), "flat", x[0].numel(), x[0].numel())
        sweep = measure_sensitivities(nn.Sequential(tap.module, model), batches, [tap], **sweep_options)
    return sweep.sensitivities["input"].matrix[0]


def _checked_sweep(options: dict[str, Any], of: Callable) -> dict[str, Any]:
    parameters = inspect.signature(measure_sensitivities).parameters.values()
    known_options(options, of, [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "bases"])
    options = checked(options)
    check_combinations(options)
    return options


# ---- one row ----------------------------------------------------------------------------------------------


def _row(
    entry: LinearMap | SkippedModule,
    sensitivity: Sensitivity | None,
    report: AnsatzReport,
    initial: AnsatzReport | None,
    power: float,
    nulls: int,
    seed: int,
    halves: bool,
    corrected: bool,
) -> AnsatzRow:
    if isinstance(entry, SkippedModule):
        out, *rest = entry.shape
        return AnsatzRow(entry.name, entry.kind, math.prod(rest), out, status=f"skipped: {entry.reason}")
    shape = (entry.name, entry.kind, entry.in_features, entry.out_features, entry.groups)
    reason = _unusable(entry, sensitivity, report.weights[entry.name])
    if reason:
        return AnsatzRow(*shape, status=f"skipped: {reason}")
    if sensitivity.is_output:
        row = AnsatzRow(*shape, power=power, status="trivial")
        return _with_initial(_trivial_row(row, sensitivity, report), report, initial, entry.arbitrary_rows)
    pair = sensitivity.pair(report.weights[entry.name])
    draws = report.null_draws[entry.name] = null_draws(pair, nulls)
    columns, report.precision[entry.name] = fill_row(
        pair, sensitivity, power, draws, seed, halves=halves, corrected=corrected
    )
    row = AnsatzRow(*shape, **columns)
    report._sensitivities[entry.name] = sensitivity.merged()
    return _with_initial(row, report, initial, entry.arbitrary_rows)


def _with_tie(entry: SkippedModule, measured: str | None) -> SkippedModule:
    if measured is None:
        return entry
    return replace(entry, reason=f"{entry.reason}; its weight is tied to {measured}, measured there")


def _trivial_row(row: AnsatzRow, sensitivity: Sensitivity, report: AnsatzReport) -> AnsatzRow:
    """The last map on raw outputs: C is the identity whatever the weights, and so is every rotation of it."""
    C = sensitivity.matrix
    identity = torch.eye(C.shape[-1]).to(C) * C.diagonal(dim1=-2, dim2=-1).mean()
    sensitivity = Sensitivity({0: identity.expand_as(C)}, [1], sensitivity.basis, is_output=True)
    report._sensitivities[row.layer] = sensitivity
    pair = sensitivity.pair(report.weights[row.layer])
    cosine = pair.null_isotropic(row.power)
    return replace(
        row,
        cosine=cosine, null_mean=cosine, null_std=0.0, null_isotropic=cosine,
        pearson=pair.pearson(row.power), offdiag=pair.offdiag(row.power),
    )  # fmt: skip


def _with_initial(
    row: AnsatzRow, report: AnsatzReport, initial: AnsatzReport | None, free: bool
) -> AnsatzRow:
    """Fill the columns that compare with initialisation; free rows have no change of weight."""
    if initial is None or row.layer not in initial.weights:
        return row
    sensitivity = report._sensitivities[row.layer]
    W = report.weights[row.layer]
    W0 = initial.weights[row.layer].to(W)
    before = initial.row(row.layer)
    return replace(
        row,
        cnfc=math.nan if free else sensitivity.pair(W.double() - W0.double()).cosine(1.0),
        init_nfm_cosine=weight_cosine(W, W0),
        init_cosine=before.cosine if before.power == row.power else math.nan,
        init_alignment=before.alignment,
    )


def _unusable(entry: LinearMap, sensitivity: Sensitivity, weight: Tensor) -> str | None:
    if sensitivity.unfollowed and (sensitivity.called or entry.called):
        return f"not all of its use can be followed: {sensitivity.unfollowed}"
    if not sensitivity.called:
        return entry.unseen
    if not sensitivity.reached:
        return "the output does not depend on it"
    if not all(bool(torch.isfinite(total).all()) for total in sensitivity.sums.values()):
        return "its gradients are not finite"
    if not bool(torch.isfinite(weight).all()):
        return "its weight is not finite"
    if not bool(weight.any()):
        return "its weight is zero"
    if not any(bool(total.any()) for total in sensitivity.sums.values()):
        return NO_GRADIENT
    return None


def null_draws(pair: FeaturePair, nulls: int) -> int:
    """Random rotations worth drawing: a draw costs r³ and its spread falls as 1/r."""
    return draws_for(min(pair.weight.shape[1:]), nulls)


# ---- what goes in -----------------------------------------------------------------------------------------


def _initial_report(
    model: nn.Module,
    batches: Iterable[Batch],
    initial_state: Mapping[str, Tensor] | AnsatzReport | None,
    layers: str | Sequence[str] | None,
    power: float,
    distributed: bool,
    replicates: int,
    options: dict[str, Any],
) -> AnsatzReport | None:
    if initial_state is None or isinstance(initial_state, AnsatzReport):
        return initial_state
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
    if options["probes"] is None and options["tolerance"] is None:
        replicates = 1  # exact numbers need no correction
    return audit(
        twin, batches, layers, power, nulls=0, replicates=replicates, distributed=distributed, **options
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
