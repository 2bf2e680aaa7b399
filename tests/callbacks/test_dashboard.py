"""The dashboard is built with the installed ``wandb-workspaces``; only what goes to a server is replaced."""

import http.server
import json
import re
import sys
import threading
from dataclasses import replace

import pytest

from callbacks import dashboard
from callbacks.dashboard import main
from nfa.ansatz.curves import summary_metrics
from nfa.ansatz.row import AnsatzRow
from nfa.integrations import wandb_sink

pytestmark = pytest.mark.usefixtures("no_account")


@pytest.fixture
def packages(monkeypatch):
    """The two modules of the package, with a server that knows every project."""
    reports = pytest.importorskip("wandb_workspaces.reports.v2")
    workspaces = pytest.importorskip("wandb_workspaces.workspaces")
    answer = {"project": {"internalId": "1"}}
    monkeypatch.setattr(reports.interface, "_get_api", lambda: None)
    monkeypatch.setattr(reports.interface, "execute_graphql", lambda *question: answer)
    return reports, workspaces


def spec_of(thing):
    return json.loads(thing._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))


def panels_of(sections):
    """Title of a chart, or kind of a panel, to its configuration."""
    found = [panel for section in sections for panel in section["panels"]]
    return {p["config"].get("chartTitle", p["viewType"]): p["config"] for p in found}


def check_panels(panels):
    score = panels["Validation score"]
    assert (score["xAxis"], score["groupBy"]) == ("epoch", "jobType")
    assert score["metricRegex"] == "val/(accuracy|mse)"
    for title, key in (
        ("Layers above chance, share", "nfa/above_chance/all"),
        ("Alignment", "nfa/alignment/"),
        ("Cosine, and its null", "null_mean"),
    ):
        assert panels[title]["xAxis"] == "epoch"
        assert key in panels[title]["metricRegex"]
    assert not any("nfa/z" in panel.get("metricRegex", "") for panel in panels.values())  # sizes differ
    assert panels["Seconds of fitting"]["metrics"] == ["fit_seconds"]
    assert panels["Memory of fitting, MB"]["metrics"] == ["fit_memory_mb"]
    assert panels["Memory of fitting, MB"]["groupBy"] == "model_name.value"
    assert panels["Similarity of features"]["mediaKeys"] == ["similarity/cosine"]


def test_workspace_holds_the_panels_of_one_group(packages):
    spec = spec_of(dashboard.workspace("me", "nfa", "my_sweep"))
    check_panels(panels_of(spec["section"]["panelBankConfig"]["sections"]))
    (runs,) = spec["section"]["runSets"]
    assert "my_sweep" in json.dumps(runs["filters"])
    assert runs["grouping"] == [{"section": "run", "name": "jobType"}]


def test_report_holds_them_too(packages):
    blocks = spec_of(dashboard.report("me", "nfa", "my_sweep"))["blocks"]
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    check_panels(panels_of([grid["panelBankSectionConfig"] for grid in grids]))
    chosen = [json.dumps(grid["runSets"][0]["filters"]) for grid in grids]
    assert all("my_sweep" in filters for filters in chosen)
    assert all("train" in filters and "kernel" in filters for filters in chosen[:-1])
    assert "compare" in chosen[-1]


def test_curves_are_of_names_that_are_logged_against_their_axis(packages):
    row = AnsatzRow("conv1", "conv2d", 27, 16, alignment=0.5, z=9.0, alpha_fit=0.5, cosine=0.9, null_mean=0.8)
    layers = [row, *(replace(row, layer=f"layer1.{i}.conv1") for i in range(2))]
    names = ["val/accuracy", "val/mse", *summary_metrics(layers)]
    spec = spec_of(dashboard.workspace("me", "nfa"))
    panels = panels_of(spec["section"]["panelBankConfig"]["sections"])
    curves = [panel for panel in panels.values() if "metricRegex" in panel]
    assert len(curves) == 6
    drawn = {}
    for curve in curves:
        shown = [name for name in names if re.fullmatch(curve["metricRegex"], name)]
        drawn |= dict.fromkeys(shown, curve["xAxis"])
    left_out = {name for name in set(names) - drawn.keys() if "alignment" in name or name.endswith("median")}
    assert left_out == {"nfa/alignment/layer1 minimum", "nfa/alignment/layer1 maximum"}
    for name, axis in drawn.items():
        assert axis == wandb_sink.AXIS
        assert f"{name.split('/')[0]}/*" in wandb_sink.PATTERNS


@pytest.fixture
def account(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)


@pytest.fixture
def server(monkeypatch):
    """Function that starts a server which answers everything with a status."""
    running = []

    def start(status):
        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get("content-length") or 0))
                body = json.dumps({"errors": [{"message": "permission denied"}]}).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *arguments):
                pass

        found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=found.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{found.server_port}")
        running.append(found)

    yield start
    for found in running:
        found.shutdown()
        found.server_close()


def test_addresses_are_printed(packages, account, server, monkeypatch, capsys):
    reports, workspaces = packages
    server(200)
    saved = []

    def save(self):
        self._to_model()
        saved.append((type(self).__name__, self.entity, self.project))
        return self

    for kind in (workspaces.Workspace, reports.Report):
        monkeypatch.setattr(kind, "save", save)
        monkeypatch.setattr(
            kind, "url", property(lambda self: f"https://wandb.example/{type(self).__name__}")
        )
    assert main(["--project", "p", "--entity", "team", "--group", "g"]) == 0
    assert saved == [("Workspace", "team", "p"), ("Report", "team", "p")]
    out = capsys.readouterr().out.splitlines()
    assert out == ["workspace  https://wandb.example/Workspace", "report     https://wandb.example/Report"]


def refusal(capsys, *arguments):
    assert main([*arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_without_an_account(capsys):
    assert "log in with `wandb login`" in refusal(capsys)


def test_without_the_package(account, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert "pip install wandb-workspaces" in refusal(capsys)


def test_without_a_network(packages, account, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached" in refusal(capsys)


def test_server_that_is_down(packages, account, server, capsys):
    server(503)
    assert "answers 503 Service Unavailable: try again later" in refusal(capsys)


def test_server_that_refuses(packages, account, server, capsys):
    server(403)
    error = refusal(capsys, "--project", "theirs")
    assert "did not save the dashboard of you/theirs" in error
    assert "permission denied" in error
