"""Configurations as ``train.py`` composes them, without a run."""

from lab.mistakes import _CONFIGS, _fresh_hydra  # noqa: F401


def composed(*overrides):
    from hydra import compose

    with _fresh_hydra():
        return compose("train", list(overrides))
