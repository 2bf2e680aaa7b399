"""All kernels and machines against their contract."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import distributed

from nfa import RFM, ConvRFM, DeepConvRFM, DeepRFM, agop
from nfa.kernels import KERNELS
from nfa.machines.inner import FUNCTIONS
from nfa.machines.network import KernelNetwork
from nfa.machines.patches import gradients_at, transform_of
from nfa.machines.system import Solver
from nfa.reference import conv_kernel as loops
from nfa.reference import conv_rfm as oracle
from tests.nfa.machines.contract import DEVICE, D, KernelContract, MachineContract, far


class PointContract(KernelContract):
    """A kernel of points."""

    options: ClassVar = {}

    def make(self, **options):
        return RFM(**{"rounds": 2, "ridge": 1e-2} | self.options | options)

    def images(self, metric, X):
        if metric.root is None:
            return X
        return X * metric.root if metric.root.dim() == 1 else X @ metric.root

    def agop(self, predictor, X):
        """By an audit of the network."""
        return agop(KernelNetwork.of(predictor, self.shape), [X])["feature_map"].to(DEVICE, D)

    def test_an_unfitted_network_is_zero_and_is_measured(self):
        network = KernelNetwork(self.make().stack[0].kernel, self.shape, 2).to(DEVICE)
        X = self.others().float()
        assert not network(X).any()
        assert not agop(network, [X])["feature_map"].any()

    def test_its_network_flattens_inputs(self, fitted):
        X, network = self.others(), fitted.network()
        assert torch.equal(network(X.view(len(X), 1, 5)), network(X))


class RadialContract(PointContract):
    """A function of the distance."""

    def distance(self, metric, X, Z):
        U, V = self.images(metric, X), self.images(metric, Z)
        squares = (U[:, None] - V[None]).square().sum(-1)
        return torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0)


class TestLaplace(RadialContract):
    options: ClassVar = {"bandwidth": 3.0}

    def dense(self, metric, X, Z):
        return (-self.distance(metric, X, Z) / 3).exp()


class TestGaussian(RadialContract):
    options: ClassVar = {"kernel": "gaussian", "bandwidth": 2.0, "power": 0.5}

    def dense(self, metric, X, Z):
        return (-self.distance(metric, X, Z).square() / 8).exp()

    def test_the_update_takes_the_agop(self, fitted):
        """The root of it, here; `TestLaplace` has the AGOP itself."""


class TestMatern(RadialContract):
    options: ClassVar = {"kernel": "matern", "nu": 1.5, "bandwidth": 2.0, "normalization": "trace"}

    def dense(self, metric, X, Z):
        a = self.distance(metric, X, Z) * 3**0.5 / 2
        return (1 + a) * (-a).exp()


class TestExponential(RadialContract):
    options: ClassVar = {"kernel": "exponential", "q": 0.7, "bandwidth": 2.0}

    def dense(self, metric, X, Z):
        return (-((self.distance(metric, X, Z) / 2) ** 0.7)).exp()


class TestDiagonal(TestLaplace):
    """A metric that weighs coordinates."""

    options: ClassVar = {"bandwidth": 3.0, "metric": "diagonal"}

    def test_the_update_takes_the_agop(self, fitted):
        """Its diagonal."""
        off = fitted.M - fitted.M.diagonal().diag()
        assert not off.any()
        full = RFM(bandwidth=3.0, rounds=1, ridge=1e-2).fit(*self.data())
        one = self.make(rounds=1).fit(*self.data())
        assert torch.allclose(one.M.diagonal(), full.M.diagonal(), rtol=1e-9)


class ByFact:
    """Machines that learn by FACT."""

    def matrix(self, fitted):
        """What M becomes a power of."""
        X, p = self.data()[0], fitted.predictor
        x = X.clone().requires_grad_()
        outputs = (self.dense(p.metric, x, X) @ p.coefficients).sum(0)
        J = torch.stack([torch.autograd.grad(f, x, retain_graph=True)[0] for f in outputs], 1)
        return torch.einsum("ic,ick,il->kl", p.coefficients, J, X) / len(X)

    def test_the_update_takes_the_agop(self, fitted):
        """FACT, here."""
        p, X = fitted.predictor, self.data()[0]
        metric, row = fitted.stack[0].update(replace(p, inputs=X), 0, Solver())
        M, F = metric.dense(), self.matrix(fitted)
        squared = F @ F.mT if isinstance(self, RadialContract) else F @ fitted.M
        assert far(M @ M / (M @ M).trace(), squared / squared.trace()) < 1e-7
        assert 0 < row["self_consistency"] <= 1


class TestRadialFact(ByFact, TestGaussian):
    options: ClassVar = {"kernel": "gaussian", "bandwidth": 2.0, "learn": "fact"}


class TestQuadratic(PointContract):
    options: ClassVar = {"kernel": "quadratic"}

    def dense(self, metric, X, Z):
        return (self.images(metric, X) @ self.images(metric, Z).mT).square()


class TestQuadraticFact(ByFact, TestQuadratic):
    options: ClassVar = {"kernel": "quadratic", "learn": "fact"}


class TestLinear(PointContract):
    options: ClassVar = {"kernel": "linear"}

    def dense(self, metric, X, Z):
        return self.images(metric, X) @ self.images(metric, Z).mT


def test_every_kernel_of_points_has_its_contract():
    waiting, held = [PointContract], set()
    for contract in waiting:
        waiting += contract.__subclasses__()
        held.add(contract.options.get("kernel", RFM.defaults["kernel"]))
    assert held == {*KERNELS, *FUNCTIONS}


def here(*tensors):
    """On the CPU, where the loops run."""
    return [None if t is None else t.cpu() for t in tensors]


class PatchContract(KernelContract):
    """A kernel of patches, against loops."""

    shape: ClassVar = (1, 4, 4)
    options: ClassVar = {}

    def make(self, **options):
        return ConvRFM(**{"patch_size": 2, "depth": 2, "rounds": 1, "ridge": 1e-2} | self.options | options)

    def slow(self):
        kernel = self.make().stack[0].kernel.function
        border = kernel.patch_size // 2 if kernel.padding == "zero" else 0
        return loops.ConvKernel(
            kernel.patch_size, kernel.depth, border, kernel.stride, kind=kernel.kind, head=kernel.head
        )

    def dense(self, metric, X, Z):
        return loops.kernel_matrix(*here(X, Z), self.slow(), *here(transform_of(metric))).to(DEVICE)

    def agop(self, predictor, X):
        return gradients_at(predictor, X)

    def test_the_agop_is_that_of_autograd(self, fitted):
        """Of loops over patches, here."""
        p, X = fitted.predictor, self.others()
        T = transform_of(p.metric)
        slow = oracle.agop(*here(X, self.data()[0], p.coefficients), 1.0, self.slow(), *here(T))
        assert far(gradients_at(p, X).cpu(), slow) < 1e-7


class TestPatches(PatchContract):
    """As published."""


class TestPaddedNngp(PatchContract):
    options: ClassVar = {"depth": 1, "padding": "zero", "kind": "nngp", "patch_size": 3}


class TestPooled(PatchContract):
    options: ClassVar = {"depth": 1, "head": "pool", "stride": 2, "power": 2.0}

    def test_the_update_takes_the_agop(self, fitted):
        """Its square, here; `TestPatches` has the AGOP itself."""


class TestDeepRFM(MachineContract):
    def make(self, **options):
        return DeepRFM(**{"depth": 2, "width": 9, "rounds": 1, "ridge": 1e-2} | options)


class TestDeepQuadratic(MachineContract):
    def make(self, **options):
        given = {"depth": 2, "width": 9, "rounds": 1, "ridge": 1e-2, "kernel": "quadratic"}
        return DeepRFM(**given | options)


class TestDeepConvRFM(MachineContract):
    shape: ClassVar = (1, 4, 5)

    def make(self, **options):
        return DeepConvRFM(**{"patch_size": 2, "depth": 2, "width": 3, "rounds": 1, "ridge": 1e-2} | options)


def _one_of_two(rank, path):
    distributed.init_process_group("gloo", init_method=f"file://{path}/group", rank=rank, world_size=2)
    for name, contract in globals().items():
        if name.startswith("Test"):
            contract().check_shared_out()
    distributed.destroy_process_group()


@pytest.mark.long
@pytest.mark.skipif(DEVICE not in ("cpu", "cuda"), reason="gloo knows no such device")
def test_two_processes_fit_what_one_does(tmp_path):
    """All machines in one pair of processes."""
    torch.multiprocessing.spawn(_one_of_two, (str(tmp_path),), nprocs=2)
