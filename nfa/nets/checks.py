"""What networks of images check of their inputs."""

from collections.abc import Sequence

from nfa.errors import NfaError


def image_shape(input_shape: Sequence[int], model: str) -> tuple[int, int, int]:
    """(channels, height, width) of the input; NfaError when the data are not images."""
    if len(input_shape) != 3:
        raise NfaError(
            f"{model} needs images (channels, height, width), this data has inputs of shape "
            f"{tuple(input_shape)}; use model=mlp"
        )
    channels, height, width = input_shape
    return channels, height, width
