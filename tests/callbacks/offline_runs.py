"""Be without an account of W&B, and read what an offline run wrote to disk."""

import json
import time
from dataclasses import dataclass, field

from tests.waiting import HANGS


def leave_accounts(monkeypatch, folder):
    """No account, no mode, and nothing of W&B outside of a folder."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(folder / name))


@dataclass
class OfflineRun:
    """The records of a ``run-*.wandb`` file."""

    run: object = None
    rows: list = field(default_factory=list)  # of the history: a dictionary each, nested keys joined by "."
    axes: dict = field(default_factory=dict)  # metric or pattern to its axis
    hidden: set = field(default_factory=set)  # metrics without a chart
    config: dict = field(default_factory=dict)
    summary: dict = field(default_factory=dict)
    artifacts: dict = field(default_factory=dict)  # type to a list of records

    @property
    def keys(self):
        return {key.split(".")[0] for row in self.rows for key in row}

    @property
    def charts(self):
        """Names of charts that are drawn from a table."""
        nested = {key.split(".", 2)[2] for key in self.config if key.startswith("_wandb.visualize.")}
        return nested | set(self.config.get("_wandb", {}).get("visualize", {}))

    @property
    def panels(self):
        """What is drawn where nobody arranged anything: charts, curves, media, tables that no chart has."""
        drawn = {key for key in self.keys if not key.startswith(("_", "Custom Chart Tables/"))}
        return (drawn - self.hidden) | self.charts

    def column(self, key):
        return [row[key] for row in self.rows if key in row]


def records(data):
    """Records in the bytes of a ``.wandb`` file: a 7-byte head, then a LevelDB log of 32 KiB blocks."""
    position, parts = 7, []
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        if position + 7 + length > len(data):
            return  # not written yet
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


def finished_records(path):
    """All records of a run that is finished.

    W&B holds back what fills no block of 32 KiB until its own process closes the file. `wandb.finish` asks
    for that and returns without waiting: a busy machine may take a while.
    """
    from wandb.proto import wandb_internal_pb2

    deadline = time.monotonic() + HANGS
    while True:
        found = [wandb_internal_pb2.Record.FromString(data) for data in records(path.read_bytes())]
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        assert time.monotonic() < deadline, f"{path} was not finished: it has {len(found)} records"
        time.sleep(0.05)


def read(folder):
    """The run in a folder ``offline-run-*``."""
    (path,) = folder.glob("run-*.wandb")
    offline = OfflineRun()
    for record in finished_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            offline.run = record.run
            offline.config |= _values(record.run.config.update)
        elif kind == "history":
            offline.rows.append(_values(record.history.item))
        elif kind == "metric" and record.metric.options.hidden:
            offline.hidden.add(record.metric.name)
        elif kind == "metric" and record.metric.step_metric:
            offline.axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "config":
            offline.config |= _values(record.config.update)
        elif kind == "summary":
            offline.summary |= _values(record.summary.update)
        elif kind == "artifact":
            offline.artifacts.setdefault(record.artifact.type, []).append(record.artifact)
    return offline


def only_run(folder):
    """The one offline run below ``folder/wandb``."""
    (found,) = folder.glob("wandb/offline-run-*")
    return read(found)


def _values(items):
    return {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}
