"""The environment inside a cage: a few harmless variables, and the running interpreter first on PATH."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping

_KEPT = ("LANG", "LANGUAGE", "TZ")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MACHINERY_ENVIRONMENT = {"PATH": _SYSTEM_PATH, "LANG": "C.UTF-8"}
"""For programs that build a cage, and so run outside of it: variables meant for the inside may name code."""


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


def environment_descriptor(entries: Iterable[str]) -> int:
    """Return a descriptor, to be inherited and closed, of a file with NUL-terminated entries.

    Not arguments: those of every process can be read by every user of the machine.
    """
    text = "".join(f"{entry}\0" for entry in entries)
    return memory_file("environment", os.fsencode(text))


def memory_file(name: str, data: bytes) -> int:
    """Return a descriptor of a nameless file that holds `data`, at its start."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
