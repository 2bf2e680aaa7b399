"""Mistakes in the options, in one line each: what Hydra says in ten, or does not see."""
