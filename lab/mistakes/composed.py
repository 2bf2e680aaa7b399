"""The configuration of some choices, composed without a run."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lab.checkout import CONFIGS
from lab.mistakes.overrides import is_group


def composed(typed: Sequence[Override], places: Sequence[str]) -> DictConfig | None:
    """The configuration of the groups that were chosen, without any other option.

    Args:
        typed: options and choices.
        places: further folders of configurations.
    """
    chosen = [
        str(o.input_line)
        for o in typed
        if "." not in o.key_or_group and not o.is_sweep_override() and not o.is_delete()
    ]
    urls = [f"file://{Path(place).absolute()}" for place in places if Path(place).is_dir()]
    ours = [option for option in chosen if is_group(option.lstrip("+").partition("=")[0])]
    for attempt in ([*chosen, f"hydra.searchpath=[{','.join(urls)}]"], ours, []):
        with contextlib.suppress(HydraException, OmegaConfBaseException, ValueError), fresh_hydra():
            return compose("train", attempt, return_hydra_config=True)
    return None


@contextlib.contextmanager
def fresh_hydra() -> Iterator[None]:
    """Context in which configurations can be composed, whatever Hydra is doing."""
    state = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().clear()
        if state is not None:
            GlobalHydra.instance().initialize(state)
