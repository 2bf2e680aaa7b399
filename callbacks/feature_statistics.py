"""What a data set knows of the features that are to be learned, measured on every model while it trains."""

import math
import warnings
from collections.abc import Callable

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from lab.options import COUNT, SEED, check_all
from nfa import NfaError, input_agop, neural_feature_matrix
from nfa.layers.maps import map_kind, weight_blocks
from nfa.machines.network import DeepNetwork, KernelNetwork


class FeatureStatistics(Callback):
    """Log the ``feature_statistics`` of the data module after every epoch, of nets and kernel machines alike.

    A data module may have the method ``feature_statistics(M)``, which tells numbers by name of a feature
    matrix (d, d) of flattened inputs. Of a kernel machine it is given M, and the numbers are logged as
    ``features/NAME``; of a network ``WᵀW`` of the first linear map of the inputs, and as
    ``features/NAME_agop`` the root of the AGOP with respect to the inputs.

    Args:
        samples: training samples that the AGOP of a network is taken over.
        seed: of these samples.

    Raises:
        NfaError: an option is out of range.
    """

    def __init__(self, samples: int = 256, seed: int = 0):
        check_all("callbacks.features", {"samples": COUNT, "seed": SEED}, {"samples": samples, "seed": seed})
        self.samples, self.seed = samples, seed
        self._refused = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure and log."""
        datamodule = getattr(trainer, "datamodule", None)
        statistics = getattr(datamodule, "feature_statistics", None)
        if statistics is None:
            return
        network = getattr(pl_module, "fitted", pl_module.network)  # of a machine, where the best one is shown
        found = _named(statistics, weight_matrix(network, math.prod(datamodule.input_shape)))
        if not isinstance(network, KernelNetwork | DeepNetwork):
            found |= _named(statistics, self._agop_root(network, datamodule), "_agop")
        for name, value in found.items():
            pl_module.log(name, value, on_step=False, on_epoch=True, batch_size=1)

    def _agop_root(self, network: nn.Module, datamodule: pl.LightningDataModule) -> Tensor | None:
        """None for a network whose AGOP cannot be taken, which is told once."""
        if self._refused:
            return None
        x, _ = datamodule.probe(self.samples, seed=self.seed)
        try:
            G = input_agop(network, [x]).double()
        except NfaError as error:
            self._refused = True
            warnings.warn(f"features/…_agop are not logged: {error}", stacklevel=2)
            return None
        values, vectors = torch.linalg.eigh(G)
        return (vectors * values.clamp_min(0).sqrt()) @ vectors.mT


def weight_matrix(network: nn.Module, width: int) -> Tensor | None:
    """``WᵀW`` (d, d) of the first linear map of flattened inputs; None where there is no such map."""
    for module in network.modules():
        if map_kind(module) is not None and weight_blocks(module).shape[::2] == (1, width):
            return neural_feature_matrix(module)
    return None


def _named(
    statistics: Callable[[Tensor], dict[str, float]], M: Tensor | None, ending: str = ""
) -> dict[str, float]:
    return {} if M is None else {f"features/{name}{ending}": value for name, value in statistics(M).items()}
