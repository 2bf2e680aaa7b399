"""``--init``: the same network with random weights, built before and measured after the network itself."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from nfa.ansatz.report import AnsatzReport
from nfa.ansatz.row import AnsatzRow
from nfa.command.audit_files import Result, missing
from nfa.command.console import ConsoleObserver
from nfa.errors import NfaError
from nfa.layers.maps import find_maps, has_unbuilt
from nfa.zoo import Loaded

Measure = Callable[..., AnsatzReport]
_WHAT = "the values at initialisation"
_ZOOS = ("torchvision:", "timm:", "hf:")  # whose networks are known to draw their weights
_PLAIN = 2  # different numbers in a weight that is set to zeros, ones or an identity, as some layers begin


@dataclass
class Twin:
    """A network with random weights.

    Attributes:
        model: the network.
        loaded: names of the maps that are not random: under another seed they have the very same weights.
    """

    model: nn.Module
    loaded: list[str]


def build_twin(loaded: Loaded, spec: str, seed: int) -> Twin:
    """Build it, before anything is measured: it may be impossible.

    Raises:
        NfaError: there is no way to build it, or nothing about it is random.
    """
    if loaded.twin is None:
        raise NfaError(f"--init: no randomly initialised {loaded.title} can be built: leave out --init")
    try:
        model = loaded.twin(seed)
        same = [] if spec.startswith(_ZOOS) else _same(model, loaded.twin(seed + 1))
    except NfaError as error:
        raise NfaError(f"--init: {error}: leave out --init") from None
    return Twin(model, same)


def _same(model: nn.Module, other: nn.Module) -> list[str]:
    """Names of the maps of two networks that have the same weights, and such as a file or a formula gives."""
    if has_unbuilt(model):
        return []
    pairs = zip(find_maps(model)[0], find_maps(other)[0], strict=True)
    weights = ((mine.name, mine.weight(), theirs.weight()) for mine, theirs in pairs)
    return [name for name, w, v in weights if w.equal(v) and _has_values(w)]


def _has_values(weight: Tensor) -> bool:
    return len(weight.flatten()[:10_000].unique()) > _PLAIN


def add_twin(result: Result, measure: Measure, twin: Twin, watch: ConsoleObserver) -> None:
    """Fill in what the twin gives, which is not what the network began with. A failure becomes a note."""
    if twin.loaded:
        result.notes.append(_not_random(twin))
    if watch.asked_to_stop:
        result.notes.append(missing(_WHAT, "stopped before they were measured"))
        return
    watch.label, watch.nulls = "at initialisation: ", 0
    try:
        initial = measure(twin.model, nulls=0, initial_state=None)
    except (Exception, KeyboardInterrupt) as error:
        result.notes.append(missing(_WHAT, error))
        return
    finally:
        watch.label = ""
        watch.clear()
    before = {row.layer: row for row in initial.rows if row.layer not in twin.loaded}
    result.report.rows = [_with_twin(row, before.get(row.layer)) for row in result.report.rows]
    result.report.meta["at initialisation"] = initial.meta


def say_what_is_missing(twin: Twin, watch: ConsoleObserver) -> None:
    """Before the measurement, of what there will be no values at initialisation."""
    if twin.loaded:
        watch.say(_not_random(twin))


def _not_random(twin: Twin) -> str:
    names = ", ".join(twin.loaded[:3]) + (", …" if len(twin.loaded) > 3 else "")
    return missing(
        f"{_WHAT} of {names}", "the code that builds the network gives them the same weights under every seed"
    )


def _with_twin(row: AnsatzRow, twin: AnsatzRow | None) -> AnsatzRow:
    if twin is None or row.skipped:
        return row
    return replace(row, init_cosine=twin.cosine, init_alignment=twin.alignment)
