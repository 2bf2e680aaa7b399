"""SPEC of the command line: from a name to a network with its weights."""

from nfa.zoo.load import Loaded, list_models, load

__all__ = ["Loaded", "list_models", "load"]
