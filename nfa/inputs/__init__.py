"""DATA of the command line: from a name to batches of inputs."""

from nfa.inputs.load import DIGITS, TABLES, TORCHVISION_SETS, Inputs, load_inputs

__all__ = ["DIGITS", "TABLES", "TORCHVISION_SETS", "Inputs", "load_inputs"]
