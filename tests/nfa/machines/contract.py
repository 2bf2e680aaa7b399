"""What every kernel of a machine, and every machine, must do: inherit, give `make`, and the tests are there.

A kernel also gives itself as a dense function that autograd differentiates; a deep machine has none.
"""

import os
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import distributed, nn

from nfa import agop, audit
from nfa.kernels import Metric
from nfa.machines.layered import LayeredMachine
from nfa.machines.loop import Steps
from nfa.machines.network import DeepNetwork, KernelNetwork
from nfa.machines.system import Solver
from nfa.machines.target_code import TargetCode

D = torch.float64
DEVICE = os.environ.get("NFA_TEST_DEVICE", "cpu")  # tests.elsewhere runs these tests on another


def far(A, B):
    return float(((A - B).norm() / B.norm().clamp_min(1e-300)).detach())


class MachineContract:
    """Tests of a machine.

    Attributes:
        shape: of one input.
        chooses: options of which validation data choose one.
    """

    shape: ClassVar = (5,)
    chooses: ClassVar = {"ridge": [1e-3, 1.0]}

    def make(self, **options):
        """An unfitted machine of at least one update; ``options`` are those that all machines have."""
        raise NotImplementedError

    def data(self, n=14, seed=0, outputs=2):
        """Inputs (n, …) and targets (n, outputs)."""
        X = torch.randn(n, *self.shape, generator=torch.Generator().manual_seed(seed), dtype=D).to(DEVICE)
        flat = X.flatten(1)
        return X, torch.stack([flat[:, 0] * flat[:, 1], flat[:, 2] + flat[:, 0] / 2], 1)[:, :outputs]

    @pytest.fixture
    def fitted(self):
        return self.make().fit(*self.data())

    def others(self):
        """Inputs that are no centers, and one that is."""
        return torch.cat([self.data(6, seed=1)[0], self.data()[0][3:4]])

    # ---- predictions ---------------------------------------------------------------------------------------

    def test_its_network_predicts_what_it_does(self, fitted):
        X = self.others()
        assert far(fitted.network()(X), fitted.scores(X)) < 1e-9

    def test_the_maps_of_its_network_have_its_metric(self, fitted):
        report = audit(fitted.network(), [self.others()])
        maps = [name for name in report.weights if name.endswith("feature_map")]
        layers = fitted.layers if isinstance(fitted, LayeredMachine) else [fitted]
        assert len(maps) == len(layers)
        for name, layer in zip(maps, layers, strict=True):
            W = report.weights[name][0].to(DEVICE, D)
            assert far(W.mT @ W, layer.M) < 1e-9

    def test_gradients_of_its_network_are_those_of_its_outputs(self, fitted):
        x = (self.data(2, seed=4)[0] + 0.1).requires_grad_()
        assert torch.autograd.gradcheck(fitted.network(), (x,), atol=1e-6, fast_mode=True)

    def test_labels_and_numbers_come_back_as_they_were(self):
        X, Y = self.data()
        assert self.make().fit(X, Y[:, 0]).predict(X).shape == (14,)
        labels = self.make().fit(X, ["a" if y > 0 else "b" for y in Y[:, 0]]).predict(X)
        assert set(labels) <= {"a", "b"}

    def test_dtypes_are_kept(self, fitted):
        X, Y = self.data()
        single = self.make().fit(X.float(), Y)  # also where the targets have more digits
        assert single.scores(X.float()).dtype == single.M.dtype == torch.float32
        assert {p.dtype for p in single.network().parameters()} == {torch.float32}
        assert far(single.scores(X.float()).double(), fitted.scores(X)) < 1e-2

    # ---- fits ----------------------------------------------------------------------------------------------

    def test_the_seed_decides_alone(self, fitted):
        torch.manual_seed(5)
        again = self.make().fit(*self.data())
        assert torch.equal(again.scores(self.others()), fitted.scores(self.others()))

    def test_validation_data_choose(self):
        (X, Y), validation = self.data(), self.data(9, seed=2)
        machine = self.make(**self.chooses).fit(X, Y, *validation)
        rounds = [row for h in machine.history for row in h.get("rounds", [h])]
        assert all("val_mse" in row for row in rounds)
        error = float((machine.scores(validation[0]) - validation[1]).square().mean())
        assert any(error == pytest.approx(row["val_mse"], rel=1e-6) for row in rounds)
        for name, values in self.chooses.items():
            assert {row[name] for row in rounds} <= set(values)

    @pytest.mark.parametrize("criterion", ["mse", "accuracy", "auc"])
    def test_criteria(self, criterion):
        (X, Y), (X_val, Y_val) = self.data(20), self.data(9, seed=2)
        machine = self.make(criterion=criterion, **self.chooses)
        machine.fit(X, (Y[:, 0] > 0).long(), X_val, (Y_val[:, 0] > 0).long())
        assert machine.predict(X).shape == (20,)

    def test_nothing_is_learned_without_an_update(self, fitted):
        machine = self.make(learn="none").fit(*self.data())
        layers = machine.layers if isinstance(machine, LayeredMachine) else [machine]
        for layer in layers:
            assert torch.equal(layer.M.cpu(), torch.eye(len(layer.M), dtype=D))
        assert not torch.allclose(machine.scores(self.others()), fitted.scores(self.others()))

    def test_files_hold_it(self, fitted, tmp_path):
        fitted.save(tmp_path / "machine")
        again = type(fitted).load(tmp_path / "machine", device=DEVICE)
        assert torch.equal(again.scores(self.others()), fitted.scores(self.others()))
        assert torch.equal(again.M, fitted.M)
        assert again.history == fitted.history
        assert again.stack == fitted.stack
        assert again._options() == fitted._options()
        again.save(tmp_path / "again")
        third = type(fitted).load(tmp_path / "again", device=DEVICE)
        assert torch.equal(third.predict(self.others()), fitted.predict(self.others()))

    def test_files_say_what_was_learned(self, tmp_path):
        machine = self.make(learn="none").fit(*self.data())
        machine.save(tmp_path / "machine")
        again = type(machine).load(tmp_path / "machine", device=DEVICE)
        assert type(again.stack[0].update) is type(machine.stack[0].update)
        assert torch.equal(again.fit(*self.data()).scores(self.others()), machine.scores(self.others()))

    # ---- several processes ---------------------------------------------------------------------------------

    def check_shared_out(self):
        """Work that the processes of the default group share gives each of them what one does alone."""
        X, Y = self.data()
        alone, shared = (self.make(**self.chooses) for _ in range(2))
        shared.stack = tuple(
            replace(layer, solver=replace(layer.solver, distributed=True)) for layer in shared.stack
        )
        for machine in (alone, shared):
            machine.fit(X, Y, *self.data(9, seed=2))
        assert far(shared.scores(self.others()), alone.scores(self.others())) < 1e-9
        assert far(shared.M, alone.M) < 1e-9

    @pytest.fixture
    def group_of_one(self):
        """A default group of this process alone."""
        if DEVICE not in ("cpu", "cuda"):
            pytest.skip("gloo knows no such device")
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
        yield
        distributed.destroy_process_group()

    def test_a_process_with_no_others_does_all_of_the_work(self, group_of_one):
        """Two have their test with all machines at once, `test_two_processes_fit_what_one_does`."""
        self.check_shared_out()

    # ---- one step at a time --------------------------------------------------------------------------------

    def steps(self, machine, validation=None):
        """An unfitted network, and what steps through the rounds that are left of it."""
        (X, Y), deep = self.data(), isinstance(machine, LayeredMachine)
        network = (
            DeepNetwork(machine.stack, self.shape, Y.shape[1])
            if deep
            else KernelNetwork(machine.stack[0].kernel, self.shape, Y.shape[1])
        )
        targets, network = TargetCode.of(Y), network.to(DEVICE, D)
        steps = Steps(
            machine.stack, X, Y, targets, validation, network=network if deep else None, resumable=True
        )
        return network, steps

    @pytest.mark.parametrize("validated", [False, True])
    def test_every_step_is_gone_on_with(self, validated):
        machine, seen = self.make(), self.data(9, seed=2) if validated else None
        network, steps = self.steps(machine, seen)
        done, states, rows = 0, [], []
        for found in steps.after():
            network.take(found)
            done += 1
            rows.append({k: v for k, v in (found.row | found.update).items() if "seconds" not in k})
            states.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        assert done == sum(layer.rounds + 1 for layer in machine.stack)
        for index, state in enumerate(states):
            network, steps = self.steps(machine, seen)
            nn.ModuleList([network]).load_state_dict({f"0.{name}": t for name, t in state.items()})
            found = next(steps.after(network.reached(index + 1)), None)
            assert (found is None) == (index == done - 1)
            if found is not None:
                row = {k: v for k, v in (found.row | found.update).items() if "seconds" not in k}
                assert row == rows[index + 1]
                network.take(found)
                for name, tensor in network.state_dict().items():
                    assert torch.equal(tensor, states[index + 1][name]), name


class KernelContract(MachineContract):
    """Tests of a machine of one layer, by its kernel as a dense function."""

    def dense(self, metric, X, Z):
        """K (n, m) of inputs, as a formula; its gradient at X is that of different inputs."""
        raise NotImplementedError

    def agop(self, predictor, X):
        """AGOP of a predictor at inputs that are no centers, in coordinates W acts on."""
        raise NotImplementedError

    def test_the_coefficients_solve_the_system(self, fitted):
        X, Y = self.data()
        layer, M = replace(fitted.stack[0], offset="none"), fitted.predictor.metric
        for metric in (Metric.identity(), M):
            fit = layer.fit(metric, X, Y)
            K = self.dense(metric, X, X)
            scale = fit.facts.get("scale", 1.0)
            a = torch.linalg.solve(K + layer.ridge * scale * torch.eye(len(K), dtype=D, device=DEVICE), Y)
            assert far(fit.predictor.coefficients, a) < 1e-7
            assert far(fit.predictor(self.others()), self.dense(metric, self.others(), X) @ a) < 1e-7
            assert far(fit.train_scores, K @ a) < 1e-7

    def test_the_solvers_agree(self):
        X, Y = self.data()
        direct, iterated = (self.make(solver=s, ridge=1e-1, rounds=0).fit(X, Y) for s in ("cholesky", "cg"))
        assert far(iterated.scores(X), direct.scores(X)) < 1e-2

    def test_the_agop_is_that_of_autograd(self, fitted):
        p, X = fitted.predictor.settled(), self.others()[:-1]
        a, centers = p.coefficients, self.data()[0]
        J = torch.func.vmap(torch.func.jacrev(lambda x: (self.dense(p.metric, x[None], centers) @ a)[0]))(X)
        J = J.flatten(2).flatten(0, 1)
        assert far(self.agop(p, X), J.mT @ J / len(X)) < 1e-7

    def test_the_update_takes_the_agop(self, fitted):
        """At the training inputs, where a center is hit, by the network's rule for that."""
        p, layer = fitted.predictor.settled(), fitted.stack[0]
        metric, row = layer.update(p, 0, Solver())
        G = agop(fitted.network(), [self.data()[0]])["feature_map"].to(DEVICE, D)
        M = metric.dense()
        assert far(M / M.trace(), G / G.trace()) < 1e-7
        assert 0 < row["self_consistency"] <= 1
