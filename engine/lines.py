"""Lines for whoever waits for a long measurement."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Print a line to standard output at once, though it may go to a file or a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
