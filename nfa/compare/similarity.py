"""Whether runs learned the same features: cosines of their feature matrices, each with its null.

Two positive semi-definite matrices A and B of one size always have a positive cosine. If B is rotated at
random (Haar), ``⟨A, QBQᵀ⟩`` has mean ``tr A tr B / d`` and variance ``‖A₀‖² ‖B₀‖² / (d(d+1)/2 - 1)``, where
A₀ and B₀ are the traceless parts, so that null and z need no draws: z is the cosine of A₀ and B₀ times
``√(d(d+1)/2 - 1)``, the statistic that `nfa.ansatz.pair.FeaturePair.alignment` is for one layer.

Chance is a low bar where all models see the same data: the covariance of the inputs is compared with them
too. What is as similar to the covariance as to another model may come from the data alone.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from safetensors import safe_open
from torch import Tensor

from nfa.compare.runs import FEATURES, Run

COVARIANCE = "covariance"  # label of the matrix of the data themselves
_BLOCK = 2**22  # entries of all matrices that are read at once
_EIGENVECTORS = 6


@dataclass(frozen=True)
class Member:
    """One matrix of a space.

    Attributes:
        label: of the group of the run; `COVARIANCE` for the data.
        replicate: of the run.
        eigenvectors: the leading ones as images (k, c, h, w); None where the vectors are no images, or the
            run is not the first of its label.
        is_flat: the matrix is a multiple of the identity, up to rounding: it has learned nothing; or it is
            not finite.
    """

    label: str
    replicate: str
    eigenvectors: Tensor | None = None
    is_flat: bool = False


@dataclass(frozen=True)
class FeatureSpace:
    """Matrices of one kind and size, and how similar they are, pair by pair.

    Attributes:
        name: like ``input AGOP`` or ``first layer, patches 3x3x3``.
        dimension: d, of the vectors.
        members: one a run, in order of their labels; last, those of the data.
        cosine: (m, m) float64, ``⟨A, B⟩ / (‖A‖ ‖B‖)``.
        null_mean: (m, m), its mean for a random rotation.
        null_std: (m, m), its standard deviation.
        alignment: (m, m), cosine of the traceless parts; NaN where one of them is flat.
    """

    name: str
    dimension: int
    members: tuple[Member, ...]
    cosine: Tensor
    null_mean: Tensor
    null_std: Tensor
    alignment: Tensor

    @property
    def z(self) -> Tensor:
        """Alignment over its standard deviation by chance, (m, m)."""
        return self.alignment * math.sqrt(freedom(self.dimension))

    @property
    def labels(self) -> list[str]:
        """Labels, each once, the data last."""
        return list(dict.fromkeys(member.label for member in self.members))

    def between(self, a: str, b: str, values: Tensor) -> float:
        """Mean of (m, m) values over the pairs of runs that `pairs` names; NaN where there is none."""
        known = [v for i, j in self.pairs(a, b) if math.isfinite(v := float(values[i, j]))]
        return sum(known) / len(known) if known else math.nan

    def pairs(self, a: str, b: str) -> list[tuple[int, int]]:
        """Indices of the runs of two labels that are compared: those of different seeds, or folds.

        Runs of one seed share the samples measured on, and perhaps their initial weights, so that they look
        alike for reasons that are no features. They are taken where there are no others.
        """
        members = list(enumerate(self.members))
        mine, theirs = ([(i, m) for i, m in members if m.label == label] for label in (a, b))
        same = [(i, j) for i, m in mine for j, n in theirs if m.replicate == n.replicate and i != j]
        other = [(i, j) for i, m in mine for j, n in theirs if m.replicate != n.replicate]
        return other or same


def freedom(dimension: int) -> int:
    """Dimension of the traceless symmetric matrices of size d, at least 1: ``d(d+1)/2 - 1``."""
    return max(dimension * (dimension + 1) // 2 - 1, 1)


@dataclass(frozen=True)
class _Source:
    """Where one matrix is."""

    run: Run
    label: str
    tensor: str


def feature_spaces(runs: Sequence[Run], labels: Sequence[str]) -> tuple[list[FeatureSpace], list[str]]:
    """Compare the feature matrices that runs have stored.

    Args:
        runs: of one data set.
        labels: of the group of each.

    Returns:
        One space for each kind of matrix that two runs or more share; and sentences on runs without any.
    """
    spaces: dict[tuple[str, int], list[_Source]] = {}
    notes = []
    if len({run.replicate for run in runs}) == 1:
        notes.append("One seed: all were measured on the same samples, which alone makes features alike")
    normalizations = {run.summary.get("normalize") for run in runs}
    for run, label in zip(runs, labels, strict=True):
        if not run.tensors:
            notes.append(f"Features unknown: {label}, {run.replicate}, has none (callbacks=none?)")
        if len(normalizations) > 1:
            continue
        for tensor, name in _spaces_of(run).items():
            spaces.setdefault((name, run.tensors[tensor][-1]), []).append(_Source(run, label, tensor))
    if len(normalizations) > 1:
        notes.append("Features are not compared: the inputs were normalised in different ways")
    found = [
        _space(name, dimension, [*sources, *_covariances(sources)])
        for (name, dimension), sources in spaces.items()
        if len(sources) > 1
    ]
    return sorted(found, key=lambda space: (space.name != "input AGOP", space.name)), notes


def _spaces_of(run: Run) -> dict[str, str]:
    """Tensor to the name of the space it lives in."""
    spaces = {"input_agop": "input AGOP"} if "input_agop" in run.tensors else {}
    if "nfm" not in run.tensors or len(run.tensors["nfm"]) != 2:
        return spaces
    if "patch" in run.facts:
        where = f"patches {run.facts['patch']}"
    elif run.facts.get("kind") == "linear" and _size(run.facts) == run.tensors["nfm"][0]:
        where = "inputs"
    else:
        return spaces
    nfm = {"nfm": f"NFM of the first layer, {where}"}
    has_agop = "patch" in run.facts and len(run.tensors.get("agop", ())) == 2
    return spaces | nfm | ({"agop": f"AGOP of the first layer, {where}"} if has_agop else {})


def _size(facts: dict[str, str]) -> int:
    return math.prod(_shape(facts.get("input_shape", "0")))


def _shape(words: str) -> tuple[int, ...]:
    return tuple(int(part) for part in words.split("x"))


def _covariances(sources: Sequence[_Source]) -> list[_Source]:
    """The data that the matrices are about, once for each replicate."""
    found: dict[str, _Source] = {}
    for source in sources:
        tensor = "patch_covariance" if "patches" in _spaces_of(source.run)[source.tensor] else "inputs"
        if tensor in source.run.tensors:
            found.setdefault(source.run.replicate, _Source(source.run, COVARIANCE, tensor))
    return list(found.values())


def _space(name: str, dimension: int, sources: Sequence[_Source]) -> FeatureSpace:
    products, traces = _products(sources, dimension)
    norms = products.diagonal().sqrt()
    scale = torch.outer(norms, norms)
    expected = torch.outer(traces, traces) / dimension
    traceless = products - expected
    rest = traceless.diagonal().clamp_min(0)
    flat = ~(rest > 1e-10 * products.diagonal())  # float32 entries, and sums of them; or not finite
    rest = torch.where(flat, 0.0, rest).sqrt()
    alignment = traceless / torch.outer(rest, rest)
    alignment[flat, :] = alignment[:, flat] = math.nan
    drawn: set[str] = set()
    members = []
    for source, is_flat in zip(sources, flat.tolist(), strict=True):
        images = None if source.label in drawn or is_flat else _eigenvectors(source, dimension)
        drawn.add(source.label)
        members.append(Member(source.label, source.run.replicate, images, is_flat))
    null_std = torch.outer(rest, rest) / scale / math.sqrt(freedom(dimension))
    return FeatureSpace(
        name,
        dimension,
        tuple(members),
        (products / scale).clamp(-1, 1),
        expected / scale,
        null_std,
        alignment.clamp(-1, 1),
    )


def _products(sources: Sequence[_Source], dimension: int) -> tuple[Tensor, Tensor]:
    """Inner products (m, m) and traces (m,) of the matrices, read a block of rows at a time; float64."""
    count = len(sources)
    products = torch.zeros(count, count, dtype=torch.float64)
    traces = torch.zeros(count, dtype=torch.float64)
    step = max(_BLOCK // (count * dimension), 1)
    with ExitStack() as stack:
        readers = [_reader(source, stack) for source in sources]
        for start in range(0, dimension, step):
            rows = torch.stack([read(start, min(start + step, dimension)) for read in readers])
            traces += rows.diagonal(offset=start, dim1=1, dim2=2).sum(-1)
            flat = rows.flatten(1)
            products += flat @ flat.mT
    return products, traces


def _reader(source: _Source, stack: ExitStack):  # noqa: ANN202
    """Function (start, stop) -> those rows of the matrix, float64, on a scale that suits all of them."""
    file = stack.enter_context(safe_open(source.run.path / FEATURES, "pt"))
    if source.tensor == "inputs":
        x = _centred(file.get_tensor("inputs"))
        scale = x.norm().square() / len(x)
        return lambda start, stop: x[:, start:stop].mT @ x / len(x) / scale
    rows = file.get_slice(source.tensor)
    scale = file.get_tensor(source.tensor).double().abs().max().clamp_min(1e-300)
    return lambda start, stop: rows[start:stop].double() / scale


def _centred(x: Tensor) -> Tensor:
    x = x.double()
    return x - x.mean(0)


def _eigenvectors(source: _Source, dimension: int) -> Tensor | None:
    """Leading eigenvectors as images (k, c, h, w) float32, where the vectors are images or patches."""
    facts = source.run.facts
    is_patch = "patch" in facts and source.tensor not in ("input_agop", "inputs")
    shape = _shape(facts["patch"] if is_patch else facts.get("input_shape", "0"))
    if len(shape) != 3 or math.prod(shape) != dimension or max(shape[1:]) == 1:
        return None
    with safe_open(source.run.path / FEATURES, "pt") as file:
        matrix = file.get_tensor(source.tensor)
    count = min(_EIGENVECTORS, dimension)
    if source.tensor == "inputs":
        basis = torch.linalg.svd(_centred(matrix), full_matrices=False).Vh[:count]
    elif dimension <= 1024:
        basis = torch.linalg.eigh(matrix.double()).eigenvectors[:, -count:].flip(-1).mT
    else:
        basis = _leading(matrix, count)
    return basis.reshape(-1, *shape).float()


def _leading(matrix: Tensor, count: int) -> Tensor:
    """Leading eigenvectors (count, d) of a large matrix, by a randomised subspace (no d³ decomposition)."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(matrix.shape[0], 4 * count, generator=generator, dtype=matrix.dtype)
    for _ in range(12):
        basis = torch.linalg.qr(matrix @ basis).Q
    _, inner = torch.linalg.eigh((basis.mT @ matrix @ basis).double())
    return (basis.double() @ inner[:, -count:].flip(-1)).mT
