"""A folder of transformers comes from anywhere: what its files may name, and no question to a network."""

import json
import re
from pathlib import Path
from typing import Any, NoReturn

from nfa.errors import NfaError

_READ = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
_LOADED = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict")
_DEEPEST, _LONGEST = 20, 10**7  # levels of a configuration, bytes of its file
_MOST_LAYERS, _MOST_LABELS, _LARGEST = 10**4, 10**5, 10**15  # of what is counted; a label is kept as text
_PLACES = ("repo_path", "class_info_file")  # of files that image processors read


def check_folder(folder: Path) -> None:
    """Refuse a folder whose files name other repositories, files elsewhere, or what has no derivatives.

    Names that are notes alone (``_name_or_path``) and code that comes along (``auto_map``), which is not run,
    are let pass: transformers builds its own class, or says that it has none.

    Raises:
        NfaError: it names what is refused; the message says where.
    """
    if (folder / "adapter_config.json").is_file():
        raise NfaError(
            f"{folder} holds an adapter to another network (adapter_config.json): merge the two, as "
            "merge_and_unload() does, and save the whole"
        )
    for name in _READ:
        path = folder / name
        if path.is_file():
            _check(path, _json(path), ())
    for path in folder.glob("*.index.json"):
        _check_parts(path, _json(path).get("weight_map"))


def _check_parts(path: Path, parts: object) -> None:
    """Refuse weights in several files where one of these is no file of the folder."""
    names = set(parts.values()) if isinstance(parts, dict) else {None}
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or (path.parent / name).is_symlink():
            raise NfaError(
                f"{path} names {name!r:.200} among the files of its weights, which is none of its folder"
            )


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > _LONGEST:
            raise ValueError(f"more than {_LONGEST} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise NfaError(f"expected JSON in {path}, could not read it ({_line(error)})") from None
    if not isinstance(content, dict):
        raise NfaError(f"expected named values in {path}, got a {type(content).__name__}")
    return content


def _check(path: Path, value: object, place: tuple[str, ...]) -> None:
    if len(place) > _DEEPEST:
        raise NfaError(f"{path} is nested more than {_DEEPEST} deep: it is no configuration of a network")
    entries = value.items() if isinstance(value, dict) else ()
    for key, entry in [
        *entries,
        *([(place[-1], v) for v in value] if isinstance(value, list) and place else ()),
    ]:
        key = str(key)
        _check_entry(path, place, key, entry)
        if isinstance(entry, dict | list):
            _check(path, entry, (*place, key))


def _check_entry(path: Path, place: tuple[str, ...], key: str, entry: object) -> None:
    title = ".".join((*place, key))
    text = entry if isinstance(entry, str) else ""
    if key == "quantization_config" and entry:
        raise NfaError(
            f"{path} is of a quantised network ({title}), which has no derivatives: take the full network"
        )
    if key in ("backbone", "architecture") and re.search("[/:]", text):
        _refuse(path, title, text, "another repository")
    if key == "base_model_name_or_path" and text:
        _refuse(path, title, text, "another network")
    if "implementation" in key and "/" in text:
        _refuse(path, title, text, "code of another repository")
    if place and place[-1] in ("model_args", "backbone_kwargs") and key in _LOADED and entry:
        _refuse(path, title, str(entry), "weights elsewhere")
    if (key in _PLACES and text) or (key.endswith("_file") and re.search(r"[/\\:]", text)):
        _refuse(path, title, text, "a file elsewhere")
    if isinstance(entry, int) and path.name == "config.json":
        most = _MOST_LAYERS if "layer" in key else _MOST_LABELS if "label" in key else _LARGEST
        if abs(entry) > most:
            what = {_MOST_LAYERS: " layers", _MOST_LABELS: " labels"}.get(most, "")
            raise NfaError(f"{path}: expected {title} of at most {most}{what}, got {entry!r:.40}")


def _refuse(path: Path, title: str, text: str, what: str) -> NoReturn:
    raise NfaError(
        f"{path} names {what} ({title}: {text[:200]!r}), which is not read: a folder brings its own network. "
        "If you trust it, build the network in a function of yours: my_module:build --weights FILE"
    )


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
