"""Fixed sets of tools. Order is part of a profile: the schemas are prefix tokens."""

from __future__ import annotations

from dsv4agent.tools.base import Tool
from dsv4agent.tools.bash import DEFAULT_TIMEOUT, BashTool
from dsv4agent.tools.editor import StrReplaceEditor


def minimal_profile(command_seconds: float = DEFAULT_TIMEOUT) -> list[Tool]:
    """Return new tools for one session: a persistent shell and a file editor.

    Args:
        command_seconds: Seconds before a shell command is stopped.
    """
    return [BashTool(timeout=command_seconds), StrReplaceEditor()]
