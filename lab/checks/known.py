"""Which options there are, and what they may be, by section and class."""

from omegaconf import DictConfig, ListConfig, OmegaConf

from lab.options import (
    ANSATZ,
    AUDIT,
    CATAPULTS,
    DATA,
    LOGGER,
    MODEL,
    RUN,
    TRAINER,
    TRAINING,
    VARIANTS,
    Table,
    shown,
)
from nfa.errors import NfaError

_OURS = ("models", "datamodules", "callbacks", "nfa")  # packages whose classes have tables
_CALLBACKS = {"AnsatzMonitor": ANSATZ, "Catapults": CATAPULTS}
OPEN = ("logger", "audit")  # what is not named in their tables is passed on


def known_options(cfg: DictConfig) -> list[str]:
    """Every option of the groups chosen, in its configuration or not: ``training.lr``, …."""
    names = list(RUN)
    for section in ("model", "data", "training", "trainer", "logger", "audit"):
        if section not in cfg:
            continue
        node = section_of(cfg, section)
        table = table_of(section, node.get("_target_") if node else None) or {}
        given = () if table and section not in OPEN else node or ()
        names += [f"{section}.{name}" for name in dict.fromkeys([*table, *given]) if str(name)[:1] != "_"]
    callbacks = section_of(cfg, "callbacks") if "callbacks" in cfg else None
    for name, options in (callbacks or {}).items():
        if isinstance(options, DictConfig):
            names += [f"callbacks.{name!s}.{option!s}" for option in options if str(option)[:1] != "_"]
    return names


def section_of(cfg: DictConfig, section: str) -> DictConfig | None:
    """The options of a section; None where there are none."""
    node = cfg.get(section)
    if node is not None and not isinstance(node, DictConfig):
        plain = OmegaConf.to_container(node) if isinstance(node, ListConfig) else node
        raise NfaError(f"{section} must be a group of options, got {shown(plain)}: set {section}.NAME=VALUE")
    return node


def table_of(section: str, target: object) -> Table | None:
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
        return _CALLBACKS.get(name)
    if section == "model" and package == "nfa.nets" and name in MODEL:
        return MODEL[name] | VARIANTS
    return {"model": MODEL, "data": DATA}.get(section, {}).get(name)
