"""Checks that all models share."""

from nfa.nets.checks import check_choice, image_shape

__all__ = ["check_choice", "image_shape"]
