"""Arithmetic modulo a number: pairs of numbers, and what an operation makes of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from datamodules.base import TensorDataModule
from datamodules.circulant import circulant_deviation, circulant_metric, fourier_basis, in_powers
from datamodules.images import check_room
from datamodules.splits import Split
from lab.options import DATA, check_all
from nfa.errors import NfaError
from nfa.inputs.stratify import generator

_CYCLIC = {
    "add": -1,
    "subtract": 1,
    "multiply": -1,
    "divide": 1,
}  # how far row l of a learned block is turned


class Modular(TensorDataModule):
    """All pairs (a, b) modulo p, as two one-hot vectors side by side, and the class ``a ∘ b``.

    As in the papers on recursive feature machines that grok (arXiv 2407.20199) and on which pairs they need
    (arXiv 2604.00316). A share of the pairs is trained on; of the others a part is for validation, the rest
    is the test. The reflections ``(a, b) → (b - k, a + k)`` of a sum, and ``(k - b, k - a)`` of a difference,
    leave the class as it is: with ``hold_out=reflection`` the pairs that the one of ``k`` maps to themselves
    are never trained on.

    Args:
        p: modulus; a prime where the operation is ``multiply`` or ``divide``.
        operation: ``add``, ``subtract``, ``multiply``, or ``divide`` (by b, which is not 0 then).
        train_fraction: of the pairs that are not held out, share that is trained on, in (0, 1].
        hold_out: ``none`` or ``reflection``.
        k: of the reflection.
        move: number of training pairs that are taken out: neither trained on nor of the test, which stays the
            same, but told of by `examine`.
        moved: these are ``random`` ones, or ``symmetric``: each together with its reflection.
        shuffle: labels of all pairs are permuted, so that there is nothing to be learned.
        inputs: ``plain``; mapped, ``circulant``, by ``M^¼`` for a random M of circulant blocks, the form of
            what is learned; ``reflection``, onto what the reflection of ``k`` turns around, which is what is
            learned where its fixed points are held out.
        val_fraction: of the pairs that are not trained on, share for validation, in [0, 1).
        normalize: see `TensorDataModule`.
        base: other options of `TensorDataModule`.

    Raises:
        NfaError: an option is out of range, or leaves nothing to train or to test on.
    """

    def __init__(
        self,
        p: int = 61,
        operation: str = "add",
        train_fraction: float = 0.5,
        hold_out: str = "none",
        k: int = 0,
        move: int = 0,
        moved: str = "random",
        shuffle: bool = False,
        inputs: str = "plain",
        val_fraction: float = 0.5,
        *,
        normalize: str = "none",
        **base: Any,
    ) -> None:
        super().__init__(val_fraction=val_fraction, normalize=normalize, **base)
        given = {"p": p, "operation": operation, "train_fraction": train_fraction, "hold_out": hold_out}
        given |= {"k": k, "move": move, "moved": moved, "shuffle": shuffle, "inputs": inputs}
        check_all("data", DATA.get(type(self).__name__, {}), given)
        check_room(p**2, 2 * p, "data.p")
        if operation in ("multiply", "divide") and not _is_prime(p):
            raise NfaError(f"data.operation={operation} needs a prime data.p, got {p}: give one, such as 61")
        if operation in ("multiply", "divide") and (hold_out != "none" or inputs != "plain"):
            raise NfaError(
                "data.hold_out=reflection and data.inputs=circulant or reflection are for add and subtract, "
                f"got {operation}"
            )
        if hold_out == "none" and moved == "symmetric":
            raise NfaError("data.moved=symmetric needs the reflection of data.hold_out=reflection")
        self.p, self.operation, self.train_fraction = p, operation, train_fraction
        self.hold_out, self.k, self.move, self.moved = hold_out, k, move, moved
        self.shuffle, self.inputs = shuffle, inputs
        self._validated = 0
        self._plain = self._x = self._y = torch.empty(0)  # all pairs, as they are and as they are seen
        self._images = self._moved = torch.empty(0)  # indices of the reflections, and of what was moved
        self._of: dict[str, Tensor] = {}  # indices of what is to train or validate with, and to test

    def load(self) -> tuple[Split, Split]:
        """All pairs float32 (n, 2 p): those for training and validation, in this order, and the others."""
        p, least = self.p, int(self.operation == "divide")
        a, b = torch.cartesian_prod(torch.arange(p), torch.arange(least, p)).T
        y = self._result(a, b)
        if self.shuffle:
            y = y[torch.randperm(len(y), generator=generator(self.seed, "modular shuffle"))]
        self._plain = x = torch.cat([functional.one_hot(a, p), functional.one_hot(b, p)], 1).float()
        if self.inputs != "plain":
            x = (x.double() @ self._map()).float()
        trained = self._trained(a, b)
        moved = torch.zeros_like(trained)
        moved[self._moved] = True
        rest = (~trained & ~moved).nonzero()[:, 0]
        rest = rest[torch.randperm(len(rest), generator=generator(self.seed, "modular rest"))]
        self._validated = round(self.val_fraction * len(rest))
        if not (trained.any() and len(rest) > self._validated):
            raise NfaError(
                f"of {len(y)} pairs {int(trained.sum())} are to be trained on and {len(rest)} not: change "
                "data.train_fraction, data.move or data.hold_out so that there are some of each"
            )
        chosen = torch.cat([trained.nonzero()[:, 0], rest[: self._validated]])
        rest = rest[self._validated :]
        self.class_names = tuple(map(str, range(p)))
        self._x, self._y, self._of = x, y, {"n_train": chosen, "n_test": rest}
        return Split(x[chosen], y[chosen]), Split(x[rest], y[rest])

    def subset(self, y: Tensor, n: int | None, option: str) -> Tensor:
        """Choose as any data set does, and remember which pairs these are."""
        chosen = super().subset(y, n, option)
        self._of[option] = self._of[option][chosen]
        return chosen

    def set_aside(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Of the pairs that `load` gave, the last ones are for validation."""
        order = torch.arange(len(y))
        return order[: len(y) - self._validated], order[len(y) - self._validated :]

    def feature_statistics(self, M: Tensor) -> dict[str, float]:
        """How far the block between a and b of a feature matrix (2p, 2p) is from circulant.

        ``circulant`` is 0 where the block depends on a - b alone, for a sum, and ``circulant_other`` where it
        depends on a + b; for a difference the other way round. What has one of these forms is at about 1 in
        the other. Numbers are in order of their discrete logarithm, without 0, for products and quotients.
        """
        M = M.double().cpu()
        if self.inputs != "plain":
            M = self._map() @ M @ self._map()
        block = M[self.p :, : self.p]
        if self.operation in ("multiply", "divide"):
            order = in_powers(self.p)
            block = block[order][:, order]
        turn = _CYCLIC[self.operation]
        return {
            "circulant": circulant_deviation(block, turn),
            "circulant_other": circulant_deviation(block, -turn),
        }

    def picture_basis(self) -> tuple[str, Tensor]:
        """Waves over a and over b, in which features of circulant blocks are a few rows and columns."""
        if self.operation in ("multiply", "divide"):
            order = in_powers(self.p)
            waves = torch.zeros(self.p - 1, self.p, dtype=torch.float64)
            waves[:, order] = fourier_basis(self.p - 1)
        else:
            waves = fourier_basis(self.p)
        return "in waves of a and b", torch.block_diag(waves, waves)

    def examine(self, predict: Callable[[Tensor], Tensor]) -> dict[str, Any] | None:
        """Which pairs are told right, beside what the reflection of ``k`` makes of the training pairs.

        Asked are the pairs of the test and those that were moved. Those whose reflection is trained on are
        the orbit of the training pairs: with features of the reflection, just they are right (2604.00316).

        Args:
            predict: outputs (n, p) of inputs (n, 2p), normalised.

        Returns:
            Plain values: ``groups``, the name of each to the numbers of right and of all pairs; and ``grid``,
            a line for each a with a character for each b: ``.`` trained on, ``+`` right, ``-`` wrong, and a
            blank elsewhere. None for products and quotients.
        """
        if self.operation not in ("add", "subtract"):
            return None
        trained = torch.zeros(len(self._y), dtype=torch.bool)
        trained[self._of["n_train"][: len(self._of["n_train"]) - self._validated]] = True
        asked = torch.cat([self._of["n_test"], self._moved])
        outputs = predict(self._transform.normalize(self._x[asked])).cpu()
        right = outputs.argmax(1) == self._y[asked]
        in_orbit = trained[self._images[asked]]
        signs = [" "] * len(self._y)
        for pair in trained.nonzero()[:, 0].tolist():
            signs[pair] = "."
        for pair, is_right in zip(asked.tolist(), right.tolist(), strict=True):
            signs[pair] = "+" if is_right else "-"
        return {
            "groups": {
                name: [int(right[group].sum()), int(group.sum())]
                for name, group in (("reflection trained", in_orbit), ("reflection not trained", ~in_orbit))
            },
            "grid": ["".join(signs[a * self.p : (a + 1) * self.p]) for a in range(self.p)],
        }

    def tested(self) -> Split:
        """The plain pairs, also where the model sees mapped ones."""
        test = self._split("test")
        return test if self.inputs == "plain" else Split(self._plain[self._of["n_test"]], test.y)

    def summary(self) -> dict[str, Any]:
        """With the modulus and the operation."""
        return super().summary() | {"p": self.p, "operation": self.operation}

    # ---- pairs ---------------------------------------------------------------------------------------------

    def _result(self, a: Tensor, b: Tensor) -> Tensor:
        if self.operation == "add":
            return (a + b) % self.p
        if self.operation == "subtract":
            return (a - b) % self.p
        if self.operation == "divide":
            b = torch.tensor([0] + [pow(n, -1, self.p) for n in range(1, self.p)])[b]
        return a * b % self.p

    def reflected(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs that a reflection makes of these, with the same results."""
        if self.operation == "add":
            return (b - self.k) % self.p, (a + self.k) % self.p
        return (self.k - b) % self.p, (self.k - a) % self.p

    def _trained(self, a: Tensor, b: Tensor) -> Tensor:
        """Which pairs are trained on, bool (n,)."""
        free = torch.ones(len(a), dtype=torch.bool)
        c, d = self.reflected(a, b)
        self._images = images = c * self.p + d  # as the pairs of sums and differences are ordered
        if self.hold_out == "reflection":
            free = images != torch.arange(len(a))
        order = free.nonzero()[:, 0]
        order = order[torch.randperm(len(order), generator=generator(self.seed, "modular split"))]
        trained = torch.zeros(len(a), dtype=torch.bool)
        trained[order[: round(self.train_fraction * len(order))]] = True
        candidates = order[trained[order]]
        if self.moved == "symmetric":
            candidates = candidates[trained[images[candidates]] & (candidates < images[candidates])]
        if self.move > len(candidates):
            raise NfaError(f"data.move must be at most {len(candidates)} of these pairs, got {self.move}")
        chosen = candidates[: self.move]
        self._moved = torch.cat([chosen, images[chosen]]) if self.moved == "symmetric" else chosen
        trained[self._moved] = False
        return trained

    def _map(self) -> Tensor:
        """What inputs are multiplied with, (2p, 2p) float64, symmetric."""
        if self.inputs == "circulant":
            return circulant_metric(
                self.p, _CYCLIC[self.operation], generator(self.seed, "modular circulant")
            )
        c, d = self.reflected(torch.arange(self.p), torch.arange(self.p))  # c tells of b alone, d of a
        swap = torch.zeros(2 * self.p, 2 * self.p, dtype=torch.float64)
        swap[self.p + torch.arange(self.p), c] = 1.0
        swap[torch.arange(self.p), self.p + d] = 1.0
        return (torch.eye(2 * self.p, dtype=torch.float64) - swap) / 2


def _is_prime(p: int) -> bool:
    return p > 1 and all(p % d for d in range(2, int(p**0.5) + 1))
