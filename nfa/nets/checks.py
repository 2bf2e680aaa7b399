"""What networks check of their options and inputs."""

from collections.abc import Iterable, Sequence

from nfa.errors import NfaError


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse an option that is not among the known ones."""
    if value not in known:
        raise NfaError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def image_shape(input_shape: Sequence[int], model: str) -> tuple[int, int, int]:
    """(channels, height, width) of the input; NfaError when the data are not images."""
    if len(input_shape) != 3:
        raise NfaError(
            f"{model} needs images (channels, height, width), this data has inputs of shape "
            f"{tuple(input_shape)}; use model=mlp"
        )
    channels, height, width = input_shape
    return channels, height, width
