"""Look into all options of a run before anything of it is built."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from lab.near import option_like
from nfa.errors import NfaError
from options import ANSATZ, AUDIT, DATA, LOGGER, MODEL, RUN, TRAINER, TRAINING, Option, Table, shown

_OURS = ("models", "datamodules", "callbacks", "nfa")  # packages whose classes have tables
_MONITOR = "AnsatzMonitor"
_OF_HYDRA = "hydra:"
_SET_ELSEWHERE = {
    "trainer.logger": "logger=NAME chooses it",
    "trainer.callbacks": "+callbacks.NAME._target_=… adds one",
    "trainer.enable_progress_bar": "there is a bar on a terminal, and a line an epoch elsewhere",
}
_OPEN = ("logger", "audit")  # what is not named in their tables is passed on
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
    callbacks = None if "callbacks" in groups else _section(cfg, "callbacks")
    for name in callbacks or ():
        callback = callbacks[name] if not OmegaConf.is_missing(callbacks, name) else None
        if isinstance(callback, DictConfig) and "_target_" in callback:  # else options for another choice
            table = _table("callbacks", callback.get("_target_"))
            _check_values(f"callbacks.{name}", callback, table, names, early, swept)


def check_data(datamodule: Any) -> None:
    """Refuse what the lab cannot take its data from.

    Raises:
        NfaError: it names what is missing.
    """
    needed = ("prepare_data", "setup", "train_dataloader", "probe", "fingerprint", "summary")
    missing = [name for name in needed if not hasattr(datamodule, name)]
    if missing:
        raise NfaError(
            f"data._target_ must give a datamodules.TensorDataModule, got {type(datamodule).__name__}, which "
            f"has no {missing[0]}: let it inherit that, and implement load()"
        )


def known_options(cfg: DictConfig) -> list[str]:
    """Every option of the groups chosen, in its configuration or not: ``training.lr``, …."""
    names = list(RUN)
    for section in ("model", "data", "training", "trainer", "logger", "audit"):
        if section not in cfg:
            continue
        node = _section(cfg, section)
        table = _table(section, node.get("_target_") if node else None) or {}
        given = () if table and section not in _OPEN else node or ()
        names += [f"{section}.{name}" for name in dict.fromkeys([*table, *given]) if str(name)[:1] != "_"]
    callbacks = _section(cfg, "callbacks") if "callbacks" in cfg else None
    for name in callbacks or ():
        if isinstance(callbacks[name], DictConfig):
            names += [f"callbacks.{name}.{option}" for option in callbacks[name] if str(option)[:1] != "_"]
    return names


def unknown_option(key: str, value: str, names: Sequence[str], chosen: str = "") -> NfaError:
    """What to say of an option there is not.

    Args:
        key: such as ``model.depht``.
        value: as it was typed.
        names: all options there are.
        chosen: what the group was set to, such as ``model=resnet``.
    """
    near = option_like(key, value, names)
    with_ = f" with {chosen}" if chosen else ""
    if near is not None:
        return NfaError(f"there is no option {key}{with_}: did you mean {near}?")
    group = key.rpartition(".")[0]
    siblings = [name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == group]
    if not group or not siblings:
        return NfaError(f"there is no option {key}{with_}: python train.py --help shows all there are")
    return NfaError(f"there is no option {key}{with_}: there are {', '.join(sorted(siblings))}")


def _check_section(
    section: str, cfg: DictConfig, names: Sequence[str], early: bool, swept: Collection[str]
) -> None:
    node = _section(cfg, section)
    if node is None:
        if section in _NEEDED and not (early and swept):
            raise NfaError(f"{section} must be given, got null: leave {section}=… and ~{section} out")
        return
    if section in ("data", "trainer") and node.get("_target_") is None:
        raise NfaError(f"{section}._target_ must be the dotted path of a class, got null")
    _check_values(section, node, _table(section, node.get("_target_")), names, early, swept)


def _section(cfg: DictConfig, section: str) -> DictConfig | None:
    """The options of a section; None where there are none."""
    node = cfg.get(section)
    if node is not None and not isinstance(node, DictConfig):
        plain = OmegaConf.to_container(node) if isinstance(node, ListConfig) else node
        raise NfaError(f"{section} must be a group of options, got {shown(plain)}: set {section}.NAME=VALUE")
    return node


def _table(section: str, target: Any) -> Table | None:
    """What a section may hold; None where that is not known."""
    if section in ("training", "audit"):
        return {"training": TRAINING, "audit": AUDIT}[section]
    if target is not None and not isinstance(target, str):
        raise NfaError(f"{section}._target_ must be the dotted path of a class, got {shown(target)}")
    package, _, name = (target or "").rpartition(".")
    if section == "trainer":
        return TRAINER if target == "pytorch_lightning.Trainer" else None
    if section == "logger" and (package.startswith("pytorch_lightning.") or package.startswith("callbacks.")):
        return LOGGER.get(name)
    if package.partition(".")[0] not in _OURS:
        return None
    if section == "callbacks":
        return ANSATZ if name == _MONITOR else None
    return {"model": MODEL, "data": DATA}.get(section, {}).get(name)


def _check_values(
    section: str,
    node: DictConfig,
    table: Table | None,
    names: Sequence[str],
    early: bool,
    swept: Collection[str],
) -> None:
    for name in node:
        key = f"{section}.{name}"
        if key in swept or name == "_target_":
            continue
        if key in _SET_ELSEWHERE:
            raise NfaError(f"{key} is set by train.py, {_SET_ELSEWHERE[key]}: leave it out")
        option = None if table is None else table.get(str(name))
        if table is not None and option is None:
            names = [other for other in names if other != key]
            near = option_like(key, _typed(node, name), names)
            if section not in _OPEN or (near and near.rpartition(".")[0] == section):
                raise unknown_option(key, _typed(node, name), names)
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

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            for item in value.values():
                yield from walk(item)
        elif isinstance(value, list):
            for item in value:
                yield from walk(item)

    raw = node._get_node(name)
    yield from walk(OmegaConf.to_container(raw) if isinstance(raw, DictConfig | ListConfig) else raw._value())


def _typed(node: DictConfig, name: str) -> str:
    return next(_texts(node, name), None) or str(node._get_node(name))
