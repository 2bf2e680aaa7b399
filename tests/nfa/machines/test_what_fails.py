"""What becomes of a fit of which a part fails: a line, and nothing of what was found is lost."""

import pytest
import torch

from nfa import RFM, DeepRFM
from nfa.errors import NfaError
from nfa.kernels import Metric
from nfa.machines.kernel_agop import blockwise_agop, kernel_agop
from nfa.machines.layer import Layer
from nfa.machines.loop import Steps
from nfa.machines.radial import Radial
from nfa.machines.reached import RoundFailedWarning
from nfa.machines.rise import Rise

D = torch.float64


def table(n=30, seed=0):
    X = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=D)
    return X, X[:, 0] * X[:, 1]


def failing(error):
    def fail(*arguments, **options):
        raise error

    return fail


@pytest.mark.parametrize("machine", [RFM(rounds=2), DeepRFM(2, 16)], ids=["one layer", "two"])
def test_no_room_for_the_first_fit(monkeypatch, machine):
    X, y = table()
    before = machine.fit(X, y).predict(X)
    monkeypatch.setattr(Layer, "fit", failing(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(NfaError, match="out of memory on cpu in the first fit of 30 points: give fewer"):
        machine.fit(-X, y)
    assert torch.equal(machine.predict(X), before)  # that of the fit before


@pytest.mark.parametrize("error", [NfaError("no luck"), torch.OutOfMemoryError("no luck")], ids=type)
def test_a_refit_that_fails_leaves_the_fit_to_the_training_data(monkeypatch, error):
    validation = table(n=10, seed=1)
    expected = RFM(rounds=2).fit(*table(), *validation)
    monkeypatch.setattr(Layer, "refit", failing(error))
    with pytest.warns(
        RoundFailedWarning, match=r"the refit failed \(no luck\); the machine is that of round"
    ):
        machine = RFM(rounds=2, refit=True).fit(*table(), *validation)
    assert torch.equal(machine.predict(validation[0]), expected.predict(validation[0]))
    assert machine.best_round == expected.best_round


def test_features_that_cannot_be_handed_on_end_a_machine_at_their_layer(monkeypatch):
    X, y = table()
    new, _ = table(seed=1)
    expected = DeepRFM(1, 16).fit(X, y)
    monkeypatch.setattr(Steps, "_hand_on", failing(NfaError("no room for them")))
    with pytest.warns(RoundFailedWarning, match=r"layer 1 failed \(no room for them\).* that of layer 0"):
        machine = DeepRFM(2, 16).fit(X, y)
    assert len(machine.history) == 1
    torch.testing.assert_close(machine.predict(new), expected.predict(new))


def test_an_agop_of_coefficients_beyond_numbers_is_refused():
    X, _ = table()
    a, function = torch.full((30, 1), 1e300, dtype=D), Radial(bandwidth=3.0).function
    slope = function.slope_matrix(X)
    slope.fill_diagonal_(0)
    a[::2] *= -1
    for route in ("classes", "dual", "factored"):
        with pytest.raises(NfaError, match="the AGOP is not finite: the coefficients are too large, raise"):
            kernel_agop(slope, X, a, route=route)
    with pytest.raises(NfaError, match="the AGOP is not finite"):
        blockwise_agop(function, X, a, rows=7)


class TestRise:
    """A training error that rises is looked into where halves of the data can tell, and else let pass."""

    wrong = Metric.diagonal(
        torch.tensor([0, 0, 1.0, 1.0], dtype=D)
    )  # sees nothing of what the targets are of

    def layer(self):
        return Layer(Radial(bandwidth=3.0))

    def columns(self, n):
        X, y = table(n)
        return X, y[:, None]

    def test_harm_is_found(self):
        rise = Rise(self.layer(), *self.columns(200))
        rise.check(0, Metric.identity(), 0.01)
        rise.check(1, self.wrong, 0.01)  # the error has not risen
        with pytest.raises(NfaError, match=r"the training error rose from 0.01 in round 0 to 0.5"):
            rise.check(1, self.wrong, 0.5)

    def test_where_the_first_error_is_not_known(self):
        rise = Rise(self.layer(), *self.columns(200))
        rise.check(3, Metric.identity(), 0.5)
        with pytest.raises(NfaError, match=r"the training error rose to 0.5, and halves"):
            rise.check(3, self.wrong, 0.5)

    def test_too_few_points_tell_nothing(self):
        rise = Rise(self.layer(), *self.columns(19))
        rise.check(0, Metric.identity(), 0.01)
        rise.check(1, self.wrong, 0.5)

    @pytest.mark.parametrize("error", [NfaError("no"), torch.OutOfMemoryError("no")], ids=type)
    def test_halves_that_cannot_be_fitted_tell_nothing(self, monkeypatch, error):
        rise = Rise(self.layer(), *self.columns(200))
        rise.check(0, Metric.identity(), 0.01)
        monkeypatch.setattr(Layer, "fit", failing(error))
        rise.check(1, self.wrong, 0.5)
