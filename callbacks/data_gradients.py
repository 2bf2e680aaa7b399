"""The gradient of the loss of the data in every linear map, averaged over the steps of training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from nfa import NfaError
from nfa.ansatz.fact import FactNumbers, fact_numbers
from nfa.layers.maps import LinearMap, find_maps
from nfa.sweep.untouched import untouched

FACT = ("fact", "fact_cosine", "fact_residual")  # columns, of the mean over steps
SNAPSHOT = ("fact_snapshot", "fact_snapshot_residual")  # of the samples, as the network is when measured
_COUPLED = (SGD, Adam)  # add λ W to the gradient, where they are not told otherwise


class DataGradients:
    """Sum up the gradients that training computes anyway: one buffer for each weight of a linear map.

    A network with ReLU comes to rest on kinks, where the gradient of one step chatters for ever: the mean
    over an epoch satisfies what the snapshot does not.

    Args:
        network: whose maps count.
        optimizers: those that train it.
        layers: pattern or patterns of layer names; None for all.

    Attributes:
        steps: that were summed up; a weight that was frozen for a while has fewer of them.
    """

    def __init__(
        self, network: nn.Module, optimizers: Sequence[Optimizer], layers: str | Sequence[str] | None = None
    ):
        decays = {id(p): d for optimizer in optimizers for p, d in _coupled_decays(optimizer)}
        self.maps: list[tuple[LinearMap, Tensor, float]] = []
        for found in find_maps(network, layers)[0]:
            kept = found.trained
            if kept is not None and decays.get(id(kept), 0.0) > 0:
                self.maps.append((found, kept, decays[id(kept)]))
        self._weights = {id(kept): kept for _, kept, _ in self.maps}
        self._sums: dict[int, Tensor] = {}
        self._counts: dict[int, int] = {}
        self.steps = 0

    @torch.no_grad()
    def see(self) -> None:
        """Add what stands in ``.grad``, before the optimizer takes its step."""
        for key, weight in self._weights.items():
            if weight.grad is None:
                continue
            if key in self._sums:
                self._sums[key] += weight.grad
            else:
                self._sums[key] = weight.grad.detach().clone()
            self._counts[key] = self._counts.get(key, 0) + 1
        self.steps += 1

    def begin_anew(self) -> None:
        """Forget the steps so far."""
        self._sums, self._counts, self.steps = {}, {}, 0

    def numbers(self, snapshot: dict[int, Tensor]) -> dict[str, dict[str, float]]:
        """The columns `FACT` and `SNAPSHOT` of each layer, by its name.

        Args:
            snapshot: gradients as the network is now, by the id of the weight. Before the first step they
                stand for the mean.
        """
        found = {}
        for layer, kept, decay in self.maps:
            now = self._compare(layer, kept, decay, snapshot[id(kept)])
            mean = self._mean(kept) if self.steps else snapshot[id(kept)]
            columns = dict(zip(SNAPSHOT, (now.pearson, now.residual), strict=True))
            if mean is not None:  # else it was frozen all the while
                rest = self._compare(layer, kept, decay, mean)
                columns |= zip(FACT, (rest.pearson, rest.cosine, rest.residual), strict=True)
            found[layer.name] = columns
        return found

    def snapshot(self, pl_module: Any, x: Tensor, y: Tensor, batch_size: int) -> dict[int, Tensor]:
        """Gradients of the module's loss of some samples, as its network is now; it is left as it was.

        Args:
            pl_module: with the loss, a mean over samples.
            x: inputs (n, …).
            y: targets (n, …).
            batch_size: samples differentiated at once.
        """
        weights = list(self._weights.values())
        sums = [torch.zeros_like(weight) for weight in weights]
        x, y = (t.to(pl_module.dtype) if t.is_floating_point() else t for t in (x, y))
        with untouched(pl_module.network), torch.enable_grad():
            for weight in weights:
                weight.requires_grad_()
            for inputs, targets in zip(x.split(batch_size), y.split(batch_size), strict=True):
                outputs = pl_module(inputs.to(pl_module.device))
                loss = pl_module.loss(outputs, targets.to(pl_module.device)) * (len(inputs) / len(x))
                slopes = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
                for total, slope in zip(sums, slopes, strict=True):
                    total += slope
        return dict(zip(self._weights, sums, strict=True))

    def _compare(self, layer: LinearMap, kept: Tensor, decay: float, gradient: Tensor) -> FactNumbers:
        return fact_numbers(layer.as_blocks(kept.detach()), layer.as_blocks(gradient), decay)

    def _mean(self, kept: Tensor) -> Tensor | None:
        total = self._sums.get(id(kept))
        return None if total is None else total.double() / self._counts[id(kept)]

    # ---- resume --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The sums so far and how many steps they are of, by layer."""
        seen = [(layer.name, id(kept)) for layer, kept, _ in self.maps if id(kept) in self._sums]
        sums = {name: self._sums[key] for name, key in seen}
        return {"steps": self.steps, "sums": sums, "counts": {name: self._counts[key] for name, key in seen}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from such sums; those of other shapes are left out."""
        self.steps = int(state_dict["steps"])
        for layer, kept, _ in self.maps:
            total = state_dict["sums"].get(layer.name)
            if isinstance(total, Tensor) and total.shape == kept.shape:
                self._sums[id(kept)] = total.to(kept.device)
                self._counts[id(kept)] = int(state_dict.get("counts", {}).get(layer.name, self.steps))


def why_not(optimizers: Sequence[Optimizer]) -> str | None:
    """Why a training has no FACT, in words; None where it has one."""
    groups = [(optimizer, group) for optimizer in optimizers for group in optimizer.param_groups]
    if all(not group.get("weight_decay") for _, group in groups):
        return "FACT is a gradient over the weight decay, which is 0: give training.weight_decay"
    if not any(_is_coupled(optimizer, group) for optimizer, group in groups if group.get("weight_decay")):
        name = type(groups[0][0]).__name__
        return (
            f"{name} decays the weights apart from the gradient, so that no point where it rests has a FACT: "
            "give training.optimizer=sgd or adam"
        )
    return None


def check_fact(optimizers: Sequence[Optimizer], kind: str) -> None:
    """Refuse a training without FACT.

    Args:
        optimizers: of the training.
        kind: of the model, ``net`` or ``kernel``.

    Raises:
        NfaError: a model that is fitted by solving, decoupled or no weight decay.
    """
    reason = why_not(optimizers)
    if kind == "kernel":
        reason = "callbacks.ansatz.fact is of networks that are trained by gradients: take one"
    if reason is not None:
        raise NfaError(f"{reason}, or leave callbacks.ansatz.fact out")


def _is_coupled(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    known = isinstance(optimizer, _COUPLED) and not isinstance(optimizer, AdamW)
    return known and not group.get("decoupled_weight_decay", False)


def _coupled_decays(optimizer: Optimizer) -> list[tuple[Tensor, float]]:
    return [
        (p, float(group.get("weight_decay", 0.0)))
        for group in optimizer.param_groups
        if _is_coupled(optimizer, group)
        for p in group["params"]
    ]
