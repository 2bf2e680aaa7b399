"""Overrides that an earlier run or sweep was started with, as YAML files hold them; none of it is built."""

from pathlib import Path

import yaml

from nfa import NfaError

_YAML_TYPES = {f"tag:yaml.org,2002:{name}" for name in ("seq", "str", "int", "float", "bool", "null")}


def nodes(path: Path, *names: str) -> yaml.Node | None:
    """The YAML node under names, None where it is empty; as a node, nothing in it is built.

    Raises:
        NfaError: the file cannot be read, or has no such place.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NfaError(f"the options in {path} cannot be read ({reason}): start a new run") from None
    for name in names:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in pairs if key.value == name), None)
    return node


def texts(node: yaml.Node | None, path: Path) -> list[str]:
    """The overrides in a list of a file.

    Args:
        node: the list.
        path: of the file, for what is said.

    Raises:
        NfaError: it is no list of texts.
    """
    items = node.value if isinstance(node, yaml.SequenceNode) else ()
    scalars = [item for item in items if isinstance(item, yaml.ScalarNode)]
    tags = {item.tag for item in (node, *scalars) if item is not None}
    if not isinstance(node, yaml.SequenceNode) or len(scalars) < len(items) or tags - _YAML_TYPES:
        raise NfaError(f"{path} does not hold a list of options key=value: start a new run")
    return [item.value for item in scalars]
