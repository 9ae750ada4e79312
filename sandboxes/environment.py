"""The environment inside a cage: a few harmless variables, and the running interpreter first on PATH."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

_KEPT = ("LANG", "LANGUAGE", "TZ")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def scrubbed_environment(home: str, temporary: str, extra: Mapping[str, str] | None) -> dict[str, str]:
    """Return the whole environment of a caged program.

    Args:
        home: HOME inside.
        temporary: TMPDIR inside.
        extra: The policy's variables, which win.
    """
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("LC_")}
    python = os.path.dirname(sys.executable)
    inherited = os.environ.get("PATH", _SYSTEM_PATH).split(":")
    path = [python, *(folder for folder in inherited if os.path.isabs(folder) and folder != python)]
    return {
        **kept,
        "PATH": ":".join(path),
        "HOME": home,
        "TMPDIR": temporary,
        "TERM": "dumb",
        # Python trusts cached bytecode whose source has the same size and the same whole second of change:
        # an agent that edits one character and reruns would test the old code.
        "PYTHONDONTWRITEBYTECODE": "1",
        **(extra or {}),
    }
