"""DATA of the command line: from a name to batches of inputs."""

from nfa.inputs.load import DIGITS, TORCHVISION_SETS, Inputs, load_inputs

__all__ = ["DIGITS", "TORCHVISION_SETS", "Inputs", "load_inputs"]
