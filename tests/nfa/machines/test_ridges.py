"""Several ridges: the solutions are those of each alone, and all together take no more memory than one."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nfa import RFM, ConvRFM
from nfa.kernels import Metric
from nfa.machines.layer import Layer
from nfa.machines.radial import Radial
from nfa.machines.system import Solver

D = torch.float64
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 3.0, 10.0)


class Peak(TorchDispatchMode):
    """Most bytes that tensors made inside of this context held at a time."""

    def __init__(self):
        super().__init__()
        self.held = self.most = 0
        self._known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else (found,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return found

    def _count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or not size:
            return
        self._known.add(key)
        self.held += size
        self.most = max(self.most, self.held)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key, size):
        self._known.discard(key)
        self.held -= size


def table(n, dtype=D, seed=0):
    X = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return X, X[:, 0] * X[:, 1] + X[:, 2]


@pytest.mark.parametrize(("memory", "solver"), [(None, "auto"), (2.2e7, "auto"), (None, "cg")])
def test_each_ridge_has_its_own_solution(memory, solver):
    (X, y), validation = table(1200), table(50, seed=1)
    layer = Layer(Radial(bandwidth=3.0), ridge=RIDGES, solver=Solver(solver, memory))
    errors = {}
    for ridge in RIDGES:
        alone = Layer(Radial(bandwidth=3.0), ridge=ridge).fit(
            Metric.identity(), X, y[:, None], (validation[0], validation[1][:, None])
        )
        errors[ridge] = float((alone.val_scores[:, 0] - validation[1]).square().mean())
    fit = layer.fit(Metric.identity(), X, y[:, None], (validation[0], validation[1][:, None]))
    assert fit.solution.ridge == min(errors, key=errors.__getitem__)
    found = float((fit.val_scores[:, 0] - validation[1]).square().mean())
    assert found == pytest.approx(min(errors.values()), rel=1e-3)
    assert fit.solution.method == ("cg" if solver == "cg" else "cholesky")


@pytest.mark.parametrize("budget", [3.2, 2.2])  # of the size of a kernel matrix
def test_the_memory_holds_for_several_ridges(budget):
    (X, y), validation = table(2000, torch.float32), table(100, torch.float32, seed=1)
    memory = budget * 4 * 2000**2
    peaks = []
    for ridge in (RIDGES[0], RIDGES):
        with Peak() as peak:
            RFM(ridge=ridge, rounds=0, memory=memory).fit(X, y, *validation)
        peaks.append(peak.most)
    assert peaks[1] <= max(memory, 1.05 * peaks[0])


def test_the_memory_holds_for_several_ridges_of_images():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(600, 1, 4, 4, generator=generator)
    y = X[:, 0, 1, 1] * X[:, 0, 1, 2]
    peaks = []
    for ridge in (1e-3, [1e-3, 1e-2, 1e-1, 1.0]):
        with Peak() as peak:
            ConvRFM(2, 1, ridge, rounds=0, memory=4e7).fit(X[:500], y[:500], X[500:], y[500:])
        peaks.append(peak.most)
    assert peaks[1] <= 1.05 * peaks[0] < 4e7
