"""The exception that stands for a mistake the user can mend, and the one for a process that went away."""


class NfaError(ValueError):
    """Bad input: the message says what was expected, what came, and what to do about it.

    ``train.py`` and the ``nfa`` command print the message as one line and exit with a non-zero status;
    every other exception is a defect and keeps its traceback.

    Example:
        >>> import nfa
        >>> nfa.RFM(rounds=-1)
        Traceback (most recent call last):
        nfa.errors.NfaError: rounds must be a whole number of 0 or more, got -1
    """


class ProcessLost(RuntimeError):
    """Another process of the group ended, or cannot be reached: this one cannot go on alone."""
