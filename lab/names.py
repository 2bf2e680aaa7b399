"""What the configurations call: ``${uid:}`` and ``${file_name:…}`` in names, ``${published:…}`` in sizes."""

import hashlib
import re
import secrets

from omegaconf import DictConfig, OmegaConf

_LONGEST_NAME = 180


def file_name(words: str) -> str:
    """Text as the name of one file: no slashes, and not too long; what is lost makes it end in a digest."""
    name = re.sub(r"[^\w.,=+-]+", "-", words)[:_LONGEST_NAME]
    return name if name == words else f"{name}-{hashlib.sha256(words.encode()).hexdigest()[:6]}"


def published(theirs: object, ours: object, *, _root_: DictConfig) -> object:
    """What an experiment takes with ``+setting=published``, and without."""
    return theirs if _root_.get("setting") == "published" else ours


OmegaConf.register_new_resolver("uid", lambda: secrets.token_hex(3), use_cache=True, replace=True)
OmegaConf.register_new_resolver("file_name", file_name, replace=True)
OmegaConf.register_new_resolver("published", published, replace=True)
