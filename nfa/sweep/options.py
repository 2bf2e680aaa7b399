"""The options of a sweep and of an audit by name, as they are once they have been checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from nfa.sweep.batches import OutputFn
from nfa.sweep.observer import Observer


class SweepOptions(TypedDict, total=False):
    """Arguments of `nfa.sweep.measure.measure_sensitivities` that an audit hands on."""

    output: str
    output_fn: OutputFn | None
    neglect: float
    chunk: int
    max_samples: int | None
    centered: bool
    replicates_over: str
    seed: int
    device: torch.device | None
    piece_limit: int | None


class AuditedSweep(SweepOptions, total=False):
    """The same, and what an audit finds out by itself."""

    replicates: int
    bases: Mapping[str, Tensor]


class MeasureOptions(SweepOptions, total=False):
    """All arguments that a caller may give to a measurement that is no audit."""

    probes: int | None
    replicates: int
    watch: Observer | None


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """Arguments of `nfa.audit` alone."""

    power: float
    probes: int | None
    nulls: int
    tolerance: float | None
    drift: bool
    per_head: bool
    memory: float | None
    distributed: bool
    replicates: int
    watch: Observer
