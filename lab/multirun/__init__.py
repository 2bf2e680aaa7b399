"""A sweep as a whole: which of its jobs are done, what failed, and the comparison at its end."""
