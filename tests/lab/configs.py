"""Configurations as ``train.py`` composes them, without a run."""

from lab.mistakes.composed import fresh_hydra


def composed(*overrides):
    from hydra import compose

    with fresh_hydra():
        return compose("train", list(overrides))
