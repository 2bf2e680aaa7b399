"""Correlations as three papers measured them, each under its own name, so that a published number can be had.

======  ==================  =====  ================  ===========  ==========================================
name    paper               power  N and W₀          similarity   beside it
======  ==================  =====  ================  ===========  ==========================================
cnfc    arXiv 2402.05271    1      ``W - W₀``, in G  Pearson      UC-NFC (W in both), null, ``‖ΔW‖/‖W‖``
nfa     arXiv 2212.13881    1      ``W - W₀``        cosine       of the gradients without their means
cnfa    arXiv 2309.00570    1      W                 Pearson      of ``W₀ᵀW₀`` with ``WᵀW``
======  ==================  =====  ================  ===========  ==========================================

The published code does some things that its paper does not say. They are switches, off unless asked for:

* D1 (nfa): the audited layer of the network is overwritten with ``W - W₀`` before gradients are taken.
* D2 (nfa): the activations that a layer is given are those of one layer further on, from the second layer.
* D3 (nfa): activations are computed with ReLU, whatever the network has.
* C1 (cnfa): the bias of the audited layer is left out of the network that is differentiated.
* C2 (cnfa): of the batches one more than ten are seen.
* C3 (cnfa): the means are subtracted in place, and again in the next comparison; changes nothing.
* C4 (cnfa): the network at initialisation is another random one.
"""

import copy
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nfa.ansatz.blockwise import NAN, total
from nfa.ansatz.gather_rows import unusable
from nfa.ansatz.linear_power import Products, cosine_of_change, pearson_of_weights
from nfa.ansatz.report import AnsatzReport
from nfa.ansatz.row import OK
from nfa.ansatz.sensitivity import Sensitivity
from nfa.checks import told
from nfa.errors import NfaError
from nfa.layers.maps import LinearMap, find_maps, patterns_of
from nfa.protocol_defects import overwritten, stack_from, without_bias
from nfa.sweep.arguments import batches_of, measurable
from nfa.sweep.batches import Batch, replayable, split
from nfa.sweep.measure import build, measure_sensitivities
from nfa.sweep.untouched import same_random_states

DEFECTS = {"cnfc": (), "nfa": ("D1", "D2", "D3"), "cnfa": ("C1", "C2", "C3", "C4")}
_BATCHES = 10  # that the published code of cnfa means to see
_DRAWS = 32
_OF_ONE_LAYER = {"D1", "D2", "D3", "C1"}  # that each layer is measured for in a network of its own
_UNCHANGED = "its weight is that at initialisation"


@dataclass(frozen=True)
class ProtocolRow:
    """What one protocol measures in one layer.

    Attributes:
        layer: dotted module name.
        protocol: ``cnfc``, ``nfa`` or ``cnfa``.
        correlation: the number that the paper reports: C-NFC, NFA or CNFA; NaN where it is undefined.
        beside: what it reports beside it, by name.
        status: ``ok``, or ``skipped: reason``.
    """

    layer: str
    protocol: str
    correlation: float = NAN
    beside: Mapping[str, float] = field(default_factory=dict)
    status: str = OK


def protocol(
    model: nn.Module,
    batches: Iterable[Batch] | Tensor,
    name: str,
    initial_state: Mapping[str, Tensor] | AnsatzReport | None = None,
    *,
    layers: str | list[str] | None = None,
    defects: Collection[str] = (),
    max_samples: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    output_fn: Callable[[object], Tensor] | None = None,
) -> list[ProtocolRow]:
    """Measure the layers of a network as a paper did, on all outputs of all samples.

    Args:
        model: any module; left as it was. D2 and D3 are of an `nn.Sequential` of linear layers.
        batches: as for `nfa.audit`. ``cnfa`` sees ten of them, as its code was meant to.
        name: ``cnfc``, ``nfa`` or ``cnfa``.
        initial_state: the state dict at initialisation, or a report made then; cnfc and nfa need it.
        layers: glob pattern or patterns of layer names; None measures all.
        defects: switches of the published code, such as ``("D1",)``.
        max_samples: use at most so many samples.
        seed: of the null of C-NFC, and of the other network of C4.
        device: where to run; None means where the model is.
        output_fn: picks the tensor of outputs out of what the model returns.

    Returns:
        A row a layer.

    Raises:
        NfaError: no such protocol or switch, or no weights at initialisation where it needs them.

    Example:
        >>> import copy, torch, nfa
        >>> from nfa.protocol import protocol
        >>> net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> before = copy.deepcopy(net.state_dict())
        >>> _ = net[0].weight.data.add_(torch.randn(8, 6))
        >>> [row.status for row in protocol(net, torch.randn(32, 6), "cnfc", before)]
        ['ok', 'skipped: its weight is that at initialisation']
    """
    switches = _checked(name, defects)
    model, batches = measurable(model), batches_of(batches)
    options: dict[str, Any] = {
        "max_samples": max_samples,
        "device": device,
        "output_fn": output_fn,
        "seed": seed,
    }
    with same_random_states():
        if name == "cnfa":
            batches = list(itertools.islice(batches, _BATCHES + ("C2" in switches)))
        elif switches & _OF_ONE_LAYER and isinstance(batches, Iterator):
            batches = list(batches)  # each layer is measured by itself
        batches = replayable(batches)
        build(model, batches.first)
        maps, _ = find_maps(model, patterns_of(layers))
        before = _initial_weights(model, initial_state, name, switches, seed)
        cases = _cases(model, batches, maps, before, switches, options)
        rows = [_row(case, before.get(case.entry.name), name, seed) for case in cases]
    return rows


def _checked(name: str, defects: Collection[str]) -> frozenset[str]:
    if name not in DEFECTS:
        raise NfaError(f"expected a protocol, {', '.join(DEFECTS)}, got {told(name)}")
    unknown = [defect for defect in defects if defect not in DEFECTS[name]]
    if unknown or isinstance(defects, str):
        has = ", ".join(DEFECTS[name]) or "none"
        raise NfaError(f"the code of {name} has the defects {has}, got {told(defects)}")
    return frozenset(defects)


def _initial_weights(
    model: nn.Module,
    initial: Mapping[str, Tensor] | AnsatzReport | None,
    name: str,
    switches: frozenset[str],
    seed: int,
) -> dict[str, Tensor]:
    """Layer to its weight at initialisation, (groups, out, in)."""
    if "C4" in switches:
        return _weights_of(_another(model, seed))
    if isinstance(initial, AnsatzReport):
        return initial.weights
    if initial is None:
        if name != "cnfa":
            raise NfaError(
                f"{name} is of the change since initialisation: give the weights of then (initial_state=), "
                "or a run of train.py, which keeps them"
            )
        return {}
    twin = copy.deepcopy(model)
    try:
        twin.load_state_dict(initial)
    except (RuntimeError, TypeError) as error:
        raise NfaError(
            f"initial_state does not fit the model: {str(error).splitlines()[-1].strip()}"
        ) from None
    return _weights_of(twin)


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {entry.name: entry.weight().detach().clone() for entry in find_maps(model)[0]}


def _another(model: nn.Module, seed: int) -> nn.Module:
    """The same network with other random weights."""
    twin = copy.deepcopy(model)
    torch.manual_seed(seed)
    for module in twin.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    return twin


# ---- sensitivities, with the switches of the published code ------------------------------------------------


@dataclass(frozen=True)
class _Case:
    """One layer as it is measured.

    Attributes:
        entry: the map.
        weight: W, (groups, out, in).
        root: R of ``G = RᵀCR``: W, or with D1 its change.
        sensitivity: C, whose `matrix` is without the means; None where the layer has none.
        reason: why it has none.
    """

    entry: LinearMap
    weight: Tensor
    root: Tensor
    sensitivity: Sensitivity | None
    reason: str = ""


def _cases(
    model: nn.Module,
    batches: Iterable[Batch],
    maps: Sequence[LinearMap],
    before: Mapping[str, Tensor],
    switches: frozenset[str],
    options: Mapping[str, Any],
) -> Iterator[_Case]:
    sweep = measure_sensitivities(model, batches, maps, centered=True, **options)
    for entry in maps:
        weight, found = entry.weight().detach(), sweep.sensitivities[entry.name]
        if switches & _OF_ONE_LAYER and unusable(entry, found, weight) is None:
            yield _case(model, batches, entry, before, switches, options)
        else:
            yield _Case(entry, weight, weight, found)


def _case(
    model: nn.Module,
    batches: Iterable[Batch],
    entry: LinearMap,
    before: Mapping[str, Tensor],
    switches: frozenset[str],
    options: Mapping[str, Any],
) -> _Case:
    """One layer of a network that the switches change for it alone."""
    weight = root = entry.weight().detach().clone()
    if "D1" in switches and entry.name in before:
        root = weight - before[entry.name].to(weight)
        if not bool(root.any()):
            return _Case(entry, weight, root, None, _UNCHANGED)
        model = overwritten(model, entry, root)
    if "C1" in switches:
        model = without_bias(model, entry)
    if switches & {"D2", "D3"}:
        inputs = [x for batch in batches if isinstance(x := split(batch)[0], Tensor)]
        rest = stack_from(model, entry.name, inputs, one_further="D2" in switches, relu="D3" in switches)
        if rest is None:
            return _Case(entry, weight, root, None, "what follows it does not fit it, as D2 would have it")
        model, batches = rest
    (one,) = (found for found in find_maps(model)[0] if found.name == entry.name)
    sweep = measure_sensitivities(model, batches, [one], centered=True, **options)
    return _Case(entry, weight, root, sweep.sensitivities[entry.name])


# ---- what each paper reports -------------------------------------------------------------------------------


def _row(case: _Case, before: Tensor | None, name: str, seed: int) -> ProtocolRow:
    layer, found = case.entry.name, case.sensitivity
    if found is None:
        return ProtocolRow(layer, name, status=f"skipped: {case.reason}")
    if reason := unusable(case.entry, found, case.weight):
        return ProtocolRow(layer, name, status=f"skipped: {reason}")
    if name == "cnfa":
        return ProtocolRow(layer, name, *_cnfa(case, found, before))
    if before is None:
        return ProtocolRow(layer, name, status="skipped: its weight at initialisation is not known")
    change = case.weight.double() - before.to(case.weight).double()
    if not bool(change.any()):
        return ProtocolRow(layer, name, status=f"skipped: {_UNCHANGED}")
    return ProtocolRow(layer, name, *(_cnfc if name == "cnfc" else _nfa)(case, found, change, seed))


def _uncentred(sensitivity: Sensitivity) -> Tensor:
    return total(sensitivity.dense().values()) / max(sum(sensitivity.counts), 1)


def _cnfc(case: _Case, found: Sensitivity, change: Tensor, seed: int) -> tuple[float, dict[str, float]]:
    C, products = _uncentred(found), Products.of(change)
    null = torch.tensor([one.pearson for one in products.permuted(C, _DRAWS, seed)], dtype=torch.float64)
    return products.with_sensitivity(C).pearson, {
        "uc_nfc": Products.of(case.weight).with_sensitivity(C).pearson,
        "null_mean": float(null.mean()),
        "null_std": float(null.std()),
        "change": float(change.norm() / case.weight.double().norm()),
    }


def _nfa(case: _Case, found: Sensitivity, change: Tensor, seed: int) -> tuple[float, dict[str, float]]:
    cosine, centred = (cosine_of_change(change, case.root, C) for C in (_uncentred(found), found.matrix))
    return cosine, {"centred": centred}


def _cnfa(case: _Case, found: Sensitivity, before: Tensor | None) -> tuple[float, dict[str, float]]:
    start = NAN if before is None else pearson_of_weights(case.weight, before.to(case.weight))
    return Products.of(case.weight).with_sensitivity(_uncentred(found)).pearson, {"init": start}
