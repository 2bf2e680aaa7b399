"""Updates by their names, by which options and files call them."""

from nfa.machines.fact import Fact
from nfa.machines.update import Agop, Fixed, Update

UPDATES: dict[str, type[Update]] = {update.name: update for update in (Agop, Fact, Fixed)}
