"""Which runs are of one data set: by metric, inputs and test samples, and not by its name alone."""

from collections.abc import Callable, Hashable, Sequence

from nfa.compare.runs import Run

_OF_DATA = "data."  # an option that makes another data set of that name


def data_sets(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Sort runs by data set.

    Runs of one name are of different data sets where their inputs have other shapes, or where runs of one
    seed (and fold) were tested on other samples; these tell which of the other runs belong together: those
    tested on the same samples, or made with the same options of the data.

    Args:
        runs: finished ones.

    Returns:
        Of each data set its name, with what tells it from others of that name, and its runs, in the order
        given.
    """
    families = _sorted_by(runs, lambda run: (run.summary["data"], run.metric))
    found = [part for family in families for part in _parts(family)]
    return [(_label(part, found), part) for part in found]


def _parts(runs: list[Run]) -> list[list[Run]]:
    """Divide runs of one name only where some of them contradict each other."""
    if _agree(runs):
        return [runs]
    parts = [
        part
        for alike in _sorted_by(runs, lambda run: (_shape(run), _options(run)))
        for part in ([alike] if _agree(alike) else _sorted_by(alike, lambda run: run.summary["test_split"]))
    ]
    joined: list[list[Run]] = []
    for part in parts:
        same = next((other for other in joined if _tested_alike(part, other) and _agree(part + other)), None)
        if same is None:
            joined.append(part)
        else:
            same += part
    return joined


def _agree(runs: Sequence[Run]) -> bool:
    """Whether no two of the runs are known to be of different data."""
    shapes = {_shape(run) for run in runs} - {""}
    tested = {(run.replicate, run.summary["test_split"]) for run in runs}
    return len(shapes) <= 1 and len(tested) == len({replicate for replicate, _ in tested})


def _tested_alike(some: Sequence[Run], others: Sequence[Run]) -> bool:
    return not {run.summary["test_split"] for run in some}.isdisjoint(r.summary["test_split"] for r in others)


def _sorted_by(runs: Sequence[Run], key: Callable[[Run], Hashable]) -> list[list[Run]]:
    found: dict[Hashable, list[Run]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return list(found.values())


def _shape(run: Run) -> str:
    """Of the inputs, like ``1x8x8``; empty where the run did not store it."""
    return run.facts.get("input_shape", "")


def _options(run: Run) -> tuple[str, ...]:
    settings = sorted(run.settings.items())
    return tuple(f"{k.removeprefix(_OF_DATA)}={v}" for k, v in settings if k.startswith(_OF_DATA))


# ---- names -------------------------------------------------------------------------------------------------


def _label(part: Sequence[Run], parts: Sequence[Sequence[Run]]) -> str:
    """Its name, with what tells it from others of its name."""
    name = part[0].summary["data"]
    others = [other for other in parts if other is not part and other[0].summary["data"] == name]
    own = [fact for fact in _facts(part) if not all(fact in _facts(other) for other in others)]
    if any(_facts(other) == _facts(part) for other in others):
        own.append(f"test samples {part[0].summary['test_split']}")
    return f"{name} ({', '.join(own)})" if own else name


def _facts(part: Sequence[Run]) -> list[str]:
    """What holds of all runs of a data set: metric, options of the data, shape of the inputs."""
    told = [[run.metric, *_options(run), f"inputs {_shape(run) or 'unknown'}"] for run in part]
    return [fact for fact in told[0] if all(fact in facts for facts in told)]
