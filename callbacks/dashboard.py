"""A saved W&B workspace and a report that show nets and kernel machines side by side.

python -m callbacks.dashboard --project nfa --group SWEEP_FOLDER
"""

import argparse
import contextlib
import io
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from nfa import NfaError
from nfa.integrations.wandb_sink import AXIS, first_line, has_account

TITLE = "Nets and kernel machines"
_WHAT_IS_WHAT = (
    "Job type train: networks, trained by gradients. Job type kernel: kernel machines, fitted by solving, "
    "a round an epoch. Alignment and cosine are those of the neural feature ansatz, over all layers of a "
    "network and by group of them; null_mean is the cosine that chance gives; of alignment it gives 0."
)
_TIMEOUT = 20  # seconds for the first answer


def panels() -> dict[str, list[Any]]:
    """Name of a section to its panels, which workspace and report share."""
    import wandb_workspaces.reports.v2 as wr

    spread = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}

    def lines(title: str, x: str, names: str) -> Any:
        return wr.LinePlot(title=title, x=x, metric_regex=names, title_x=x, groupby="JobType", **spread)

    def bars(title: str, name: str) -> Any:
        return wr.BarPlot(title=title, metrics=[name], groupby=wr.Config("model_name"), **spread)

    return {
        "Scores": [
            lines("Validation score", AXIS, "val/(accuracy|mse)"),
            bars("Test accuracy", "test/accuracy"),
            bars("Test error (mse)", "test/mse"),
        ],
        "Ansatz": [
            lines("Layers above chance, share", AXIS, "nfa/above_chance/all"),
            lines("Alignment", AXIS, "nfa/alignment/(median|minimum|maximum)"),
            lines(
                "Alignment by group of layers",
                AXIS,
                "nfa/alignment/(?!median$|minimum$|maximum$)[^ ]*( median)?",
            ),
            lines("Cosine, and its null", AXIS, "nfa/(cosine|null_mean)/median"),
            lines("Exponent", AXIS, "nfa/alpha_fit/median"),
        ],
        "Cost": [bars("Seconds of fitting", "fit_seconds"), bars("Memory of fitting, MB", "fit_memory_mb")],
        "Comparison": [
            wr.MediaBrowser(title="Similarity of features", media_keys=["similarity/cosine"]),
            wr.MediaBrowser(title="The same, traceless parts", media_keys=["similarity/alignment"]),
            wr.MediaBrowser(title="comparison.html", media_keys=["comparison"]),
            wr.WeavePanelSummaryTable(table_name="comparison/groups", layout=wr.Layout(w=12, h=8)),
            wr.WeavePanelSummaryTable(table_name="comparison/similarity", layout=wr.Layout(w=12, h=8)),
        ],
    }


def workspace(entity: str, project: str, group: str | None = None) -> Any:
    """The workspace, not saved yet: runs by job type, those of ``group`` alone where it is given."""
    import wandb_workspaces.workspaces as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name=_title(group),
        sections=[ws.Section(name=name, panels=found, is_open=True) for name, found in panels().items()],
        runset_settings=ws.RunsetSettings(filters=_of_group(group), groupby=[ws.Metric("JobType")]),
    )


def report(entity: str, project: str, group: str | None = None) -> Any:
    """The report, not saved yet: the panels of the workspace, with a word on what they show."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def runs(name: str, *job_types: str) -> Any:
        filters = [ws.Metric("JobType").isin(list(job_types)), *_of_group(group)]
        return wr.Runset(entity=entity, project=project, name=name, filters=filters)

    blocks: list[Any] = [wr.P(_WHAT_IS_WHAT)]
    for name, found in panels().items():
        is_comparison = name == "Comparison"
        runsets = [runs("comparisons", "compare")] if is_comparison else [runs("runs", "train", "kernel")]
        blocks += [wr.H2(name), wr.PanelGrid(runsets=runsets, panels=found)]
    return wr.Report(entity=entity, project=project, title=_title(group), blocks=blocks)


def _of_group(group: str | None) -> list[Any]:
    import wandb_workspaces.workspaces as ws

    return [ws.Metric("Group") == group] if group else []


def _title(group: str | None) -> str:
    return f"{TITLE} {group}" if group else TITLE


def save(project: str, entity: str | None = None, group: str | None = None) -> tuple[str, str]:
    """Save workspace and report.

    Args:
        project: that has the runs.
        entity: user or team; None for the one that W&B takes by default.
        group: show this comparison alone.

    Returns:
        The address of the workspace and that of the report.

    Raises:
        NfaError: no account, no ``wandb-workspaces``, or a server that cannot be reached or refuses.
    """
    if not has_account():
        raise NfaError("a dashboard needs a W&B account: log in with `wandb login`, or set WANDB_API_KEY")
    try:
        import wandb
        import wandb_workspaces  # noqa: F401
    except ImportError as error:
        raise NfaError(
            f"a dashboard needs the package wandb-workspaces ({error}): pip install wandb-workspaces"
        ) from None
    _check_reachable()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # wandb tells the account and the addresses too
            entity = entity or wandb.Api(timeout=_TIMEOUT).default_entity
            built = workspace(entity, project, group), report(entity, project, group)
            return tuple(thing.save().url for thing in built)
    except Exception as error:  # whatever a server or the network does
        raise NfaError(
            f"W&B did not save the dashboard of {entity or 'you'}/{project} ({first_line(error)}): check the "
            "network, the names and your rights there, and try again"
        ) from error


def _check_reachable() -> None:
    """Ask the server for anything: `wandb` itself would try for minutes."""
    address = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        urllib.request.urlopen(address, timeout=_TIMEOUT).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise NfaError(f"{address} answers {error.code} {error.reason}: try again later") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NfaError(
            f"{address} cannot be reached ({reason}): a dashboard needs the network. `wandb sync` uploads "
            "offline runs when there is one"
        ) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Save the dashboard and print where it is; returns the exit status, 2 where that was not possible."""
    parser = argparse.ArgumentParser("python -m callbacks.dashboard", description=__doc__.splitlines()[0])
    parser.add_argument("--project", default="nfa", help="that has the runs (default: nfa)")
    parser.add_argument("--entity", help="user or team (default: yours)")
    parser.add_argument("--group", help="show one comparison: the name of the sweep's folder")
    options = parser.parse_args(arguments)
    try:
        addresses = save(options.project, options.entity, options.group)
    except NfaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, address in zip(("workspace", "report"), addresses, strict=True):
        print(f"{name:<10} {address}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
