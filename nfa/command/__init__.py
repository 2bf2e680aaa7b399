"""The ``nfa`` command: what it is asked, what it does, and what the person in front of it sees."""
