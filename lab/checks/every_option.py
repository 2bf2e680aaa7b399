"""Every option of a configuration: known, given, and within its range."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from lab.checks.known import OPEN, known_options, section_of, table_of
from lab.mistakes.near import option_like
from lab.mistakes.unknown import no_such_option
from lab.options import RUN, Option, Table
from nfa.errors import NfaError

_OF_HYDRA = "hydra:"
_SET_ELSEWHERE = {
    "trainer.logger": "logger=NAME chooses it",
    "trainer.callbacks": "+callbacks.NAME._target_=… adds one",
    "trainer.enable_progress_bar": "there is a bar on a terminal, and a line an epoch elsewhere",
}
_NEEDED = ("model", "data", "training", "trainer")


def check_options(cfg: DictConfig, *, early: bool = False, swept: Collection[str] = ()) -> None:
    """Refuse the first option that is misspelt, of another type, or out of range.

    Args:
        cfg: the options of a run, Hydra's own left out or not.
        early: before Hydra has begun the run: what depends on Hydra is left for later.
        swept: options and groups that a sweep varies, each of whose jobs looks into them again.

    Raises:
        NfaError: it names the option, what is expected, and what came.
    """
    groups = {option for option in swept if "." not in option}
    names = known_options(cfg)
    for key, option in RUN.items():
        if key in cfg and key not in swept:
            _check(key, option, cfg, key, early)
    for section in ("audit",) if cfg.get("audit") else ("model", "data", "training", "trainer", "logger"):
        if section not in groups:
            _check_section(section, cfg, names, early, swept)
    callbacks = None if "callbacks" in groups else section_of(cfg, "callbacks")
    if callbacks is None:
        return
    for name in map(str, callbacks):
        callback = callbacks[name] if not OmegaConf.is_missing(callbacks, name) else None
        if isinstance(callback, DictConfig) and "_target_" in callback:  # else options for another choice
            table = table_of("callbacks", callback.get("_target_"))
            _check_values(f"callbacks.{name}", callback, table, names, early, swept)


def _check_section(
    section: str, cfg: DictConfig, names: Sequence[str], early: bool, swept: Collection[str]
) -> None:
    node = section_of(cfg, section)
    if node is None:
        if section in _NEEDED and not (early and swept):
            raise NfaError(f"{section} must be given, got null: leave {section}=… and ~{section} out")
        return
    if section in ("data", "trainer") and node.get("_target_") is None:
        raise NfaError(f"{section}._target_ must be the dotted path of a class, got null")
    _check_values(section, node, table_of(section, node.get("_target_")), names, early, swept)


def _check_values(
    section: str,
    node: DictConfig,
    table: Table | None,
    names: Sequence[str],
    early: bool,
    swept: Collection[str],
) -> None:
    for name in map(str, node):
        key = f"{section}.{name}"
        if key in swept or name == "_target_":
            continue
        if key in _SET_ELSEWHERE:
            raise NfaError(f"{key} is set by train.py, {_SET_ELSEWHERE[key]}: leave it out")
        option = None if table is None else table.get(name)
        if table is not None and option is None:
            names = [other for other in names if other != key]
            near = option_like(key, _typed(node, name), names)
            if section not in OPEN or (near and near.rpartition(".")[0] == section):
                raise NfaError(no_such_option(key, _typed(node, name), names))
        _check(key, option, node, name, early)


def _check(key: str, option: Option | None, node: DictConfig, name: str, early: bool) -> None:
    if early and any(_OF_HYDRA in text for text in _texts(node, name)):
        return
    try:
        if OmegaConf.is_missing(node, name):
            raise NfaError(f"{key} must be given: {key}=VALUE")
        value = node[name]
        if isinstance(value, DictConfig | ListConfig):
            value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise NfaError(f"{error.full_key or key} must be given: {error.full_key or key}=VALUE") from None
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise NfaError(f"{key}={_typed(node, name)} cannot be resolved: {reason}") from None
    if option is not None:
        option.check(key, value)


def _texts(node: DictConfig, name: str) -> Iterator[str]:
    """All texts in a value as it was written, not resolved."""

    def walk(value: object) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            for item in value.values():
                yield from walk(item)
        elif isinstance(value, list):
            for item in value:
                yield from walk(item)

    raw = node._get_node(name)
    if isinstance(raw, Node):
        container = isinstance(raw, DictConfig | ListConfig)
        yield from walk(OmegaConf.to_container(raw) if container else raw._value())


def _typed(node: DictConfig, name: str) -> str:
    return next(_texts(node, name), None) or str(node._get_node(name))
