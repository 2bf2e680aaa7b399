"""The check of a run or sweep before there is a folder for it."""

from collections.abc import Iterator

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from lab.checkout import CONFIGS
from lab.checks.every_option import check_options
from lab.checks.known import known_options
from lab.mistakes.overrides import choices, parsed, parsed_value, typed, typed_value
from lab.mistakes.told import stop
from lab.mistakes.unknown import no_such_option
from nfa.errors import NfaError

_ONE_OF = ("model", "data", "trainer", "logger")


class CheckOptions(Callback):
    """Hydra's callback that looks into all options before there is a folder for the run."""

    def on_run_start(self, config: DictConfig, **options: object) -> None:
        """Of a single run."""
        _check_or_stop(config, set())

    def on_multirun_start(self, config: DictConfig, **options: object) -> None:
        """Of a sweep: what all of its jobs have in common. Each of them looks into the rest."""
        parser = OverridesParser.create()
        given = parser.parse_overrides(typed(config))
        varied = OmegaConf.select(config, "hydra.sweeper.params") or {}
        swept = {o.get_key_element().lstrip("+") for o in given if o.is_sweep_override()} | set(varied)
        _check_or_stop(config, swept)


def _check_or_stop(config: DictConfig, swept: set[str]) -> None:
    try:
        for override in parsed(typed(config)):
            if override.key_or_group in _ONE_OF and isinstance(parsed_value(override), list):
                raise NfaError(
                    f"{override.key_or_group} must be one choice, got {typed_value(override)}: "
                    "-m with commas and no brackets has a run for each"
                )
        check_options(config, early=True, swept=swept)
        for key, value in _idle(config):
            raise NfaError(no_such_option(key, value, known_options(config)))
        _check_setting(config)
    except NfaError as error:
        stop(str(error))


def _check_setting(config: DictConfig) -> None:
    """Refuse ``+setting=published`` where nothing has a published size.

    Raises:
        NfaError: it names the experiments that have one.
    """
    setting = config.get("setting")
    marks = [f"${{{name}:" for name in choices("setting")]
    if not setting or any(mark in OmegaConf.to_yaml(config) for mark in marks):
        return
    folder = CONFIGS / "experiment"
    having = [path.stem for path in folder.glob("*.yaml") if any(m in path.read_text() for m in marks)]
    if config.hydra.runtime.choices.get("experiment") in having:  # all of them may have been typed
        return
    raise NfaError(
        f"+setting={setting} is of experiments with such a size, {', '.join(sorted(having))}: add "
        "+experiment=NAME of one of them, or leave it out"
    )


def _idle(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Options added beside the groups, which nothing refers to."""
    text = OmegaConf.to_yaml(config, resolve=False)
    for override in parsed(typed(config)):
        key = override.key_or_group
        if override.is_add() and "." not in key and "/" not in key and override.package is None:
            used = f"${{{key}" in text or key in config.hydra.runtime.choices
            if not used:
                yield key, typed_value(override)
