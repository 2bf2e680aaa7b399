"""pytest plugin, ``-p tests.elsewhere.plugin``: tests run with the other device, and have data there."""

import os

import pytest

from tests.elsewhere import accelerator, device

device.register()
accelerator.register()
os.environ["NFA_TEST_DEVICE"] = device.NAME


@pytest.fixture(autouse=True)
def _elsewhere():
    with device.Elsewhere():
        yield
