"""Fixed sets of tools. Order is part of a profile: the schemas are prefix tokens."""

from __future__ import annotations

from dsv4agent.tools.base import Tool
from dsv4agent.tools.bash import BashTool
from dsv4agent.tools.editor import StrReplaceEditor


def minimal_profile() -> list[Tool]:
    """Return new tools for one session: a persistent shell and a file editor."""
    return [BashTool(), StrReplaceEditor()]
