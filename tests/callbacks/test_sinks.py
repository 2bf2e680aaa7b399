"""One protocol for every logger: who is told what."""

import dataclasses

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn

import nfa
from callbacks.loggers import LabWandbLogger
from callbacks.sinks import NumbersAlone, Sink, sink_of


@pytest.fixture
def rows():
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    found = nfa.audit(network, [torch.randn(8, 5)], nulls=2).rows
    return [dataclasses.replace(row, epoch=1.0) for row in found]


def test_the_logger_of_wandb_is_told_everything(tmp_path):
    logger = LabWandbLogger(str(tmp_path), mode="disabled")
    assert isinstance(logger, Sink)
    assert sink_of(logger) is logger


def test_any_other_logger_gets_the_numbers_and_no_more(tmp_path, rows):
    logger = CSVLogger(tmp_path, name="")
    sink = sink_of(logger)
    assert isinstance(sink, NumbersAlone)
    assert isinstance(sink, Sink)
    sink.file_under("net", "a_sweep")
    sink.log_measurement(rows, 1.0, 7)
    sink.log_layers([], rows)
    sink.log_results(tmp_path, {})
    (logged,) = logger.experiment.metrics
    assert (logged["step"], logged["nfa/epoch"]) == (7, 1.0)
    assert logged["nfa/cosine/0"] == pytest.approx(rows[0].cosine)
    assert sink.sync_command is None


def test_no_logger_has_nothing_to_upload():
    assert sink_of(False).sync_command is None
