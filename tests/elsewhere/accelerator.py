"""The other device for Lightning's trainer: an accelerator of its name, and options that choose it."""

import torch
from pytorch_lightning.accelerators import Accelerator, AcceleratorRegistry
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from tests.elsewhere.device import NAME

STRATEGY = (
    f"trainer.accelerator={NAME}",
    "+trainer.strategy._target_=pytorch_lightning.strategies.SingleDeviceStrategy",
    f"+trainer.strategy.device='{NAME}:0'",
)


class ElsewhereAccelerator(Accelerator):
    """One device."""

    def setup_device(self, device: torch.device) -> None:
        """Refuse others."""
        if device.type != NAME:
            raise MisconfigurationException(f"{device} is not {NAME}")

    def get_device_stats(self, device):
        """None are known."""
        return {}

    def teardown(self) -> None:
        """Nothing is held."""

    @staticmethod
    def parse_devices(devices):
        """How many were asked for."""
        return int(devices)

    @staticmethod
    def get_parallel_devices(devices):
        """All there are."""
        return [torch.device(NAME, 0)] * devices

    @staticmethod
    def auto_device_count() -> int:
        """One."""
        return 1

    @staticmethod
    def is_available() -> bool:
        """Where the plugin is."""
        return True

    @staticmethod
    def name() -> str:
        """Of the device."""
        return NAME


def register() -> None:
    """Make it known to the trainer, once."""
    AcceleratorRegistry.register(NAME, ElsewhereAccelerator)
