"""``python -m nfa``: the same as the ``nfa`` command."""

from nfa.cli import main

raise SystemExit(main())
