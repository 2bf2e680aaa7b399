"""No account, and nothing of W&B outside of ``tmp_path``."""

import pytest

from callbacks.loggers import finish_wandb
from tests.callbacks.offline_runs import leave_accounts


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    leave_accounts(monkeypatch, tmp_path)
    yield
    finish_wandb()
