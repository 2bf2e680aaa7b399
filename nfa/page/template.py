"""The pages' templates, in all of which text of others is harmless, and shown as it is."""

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nfa.page.text import escape, shown


def render(name: str, **content: object) -> str:
    """Fill in a template of this package.

    Every value but `Markup`, which the charts are, is escaped and has its invisible characters written out.

    Args:
        name: of the template, like ``contents.html``.
        **content: all that it asks for; leaving out any of it is an error.
    """
    return _environment().get_template(name).render(content)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("nfa.page"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else shown(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (_asset(name) for name in ("style.css", "script.js"))
    environment.globals.update(style=Markup(style), script=Markup(script), script_digest=_digest(script))
    environment.filters["breakable"] = _breakable
    return environment


def _asset(name: str) -> str:
    return resources.files("nfa.page").joinpath("templates", name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """What tells a browser that this very script may run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _breakable(label: str) -> Markup:
    """A label that may break where its options do."""
    return Markup(re.sub(r"([_,]|\.(?=[a-z]))", r"\1<wbr>", escape(label)))
