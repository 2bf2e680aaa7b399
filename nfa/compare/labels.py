"""Labels of models: the name and, where runs of that name differ in their settings, these."""

from collections.abc import Collection, Sequence

from nfa.compare.runs import Run

ABSENT = "not set"


def labelled(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by label, each in the order of their replicates."""
    groups: dict[str, list[Run]] = {}
    for model in dict.fromkeys(run.model for run in runs):
        members = [run for run in runs if run.model == model]
        for run in members:
            groups.setdefault(told_by(run, members), []).append(run)
    return {label: sorted(members, key=lambda run: run.replicate) for label, members in groups.items()}


def differing(runs: Sequence[Run]) -> list[str]:
    """Names of the settings in which runs differ."""
    names = sorted(set().union(*(run.settings for run in runs)))
    return [k for k in names if len({repr(run.settings.get(k, ABSENT)) for run in runs}) > 1]


def told_by(run: Run, runs: Sequence[Run], without: Collection[str] = ()) -> str:
    """Label of a run among others.

    Args:
        run: of `runs`.
        runs: of which those of its model tell which settings count.
        without: settings that are not told.
    """
    members = [other for other in runs if other.model == run.model]
    names = [name for name in differing(members) if name not in without]
    short = [name.rpartition(".")[2] for name in names]
    shown = [s if short.count(s) == 1 else name for s, name in zip(short, names, strict=True)]
    values = (run.settings.get(name, ABSENT) for name in names)
    own = [f"{name}={value}" for name, value in zip(shown, values, strict=True)]
    return f"{run.model} ({', '.join(own)})" if own else run.model
