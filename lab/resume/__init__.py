"""Going on with a run: from the last whole epoch or, after the last one, with what is left to do."""
