"""``python -m nfa``: the ``nfa`` command, which by itself imports nothing of the working directory."""

import os
import sys

sys.path[:] = [place for place in sys.path if place not in ("", os.getcwd())]

from nfa.command.cli import main  # noqa: E402

raise SystemExit(main())
