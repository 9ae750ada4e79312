"""Fixed sets of tools. Order is part of a profile: the schemas are prefix tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dsv4agent.tools.apply_patch import ApplyPatchTool
from dsv4agent.tools.ask_user import Ask, AskUser
from dsv4agent.tools.base import Tool
from dsv4agent.tools.bash import DEFAULT_TIMEOUT, BashTool
from dsv4agent.tools.bash_jobs import shell_tools
from dsv4agent.tools.browser import BrowserTool
from dsv4agent.tools.editor import StrReplaceEditor
from dsv4agent.tools.git import GitTool
from dsv4agent.tools.glob import GlobTool
from dsv4agent.tools.grep import GrepTool
from dsv4agent.tools.notes import Notes
from dsv4agent.tools.python import PythonTool
from dsv4agent.tools.search_providers import SearchProvider
from dsv4agent.tools.todo import TodoWrite
from dsv4agent.tools.web_fetch import WebFetchTool
from dsv4agent.tools.web_search import WebSearchTool


class Profile(StrEnum):
    """Which tools a session has, fixed when it is created.

    `minimal`: a shell and a file editor, what V4 was trained and measured with. `full`: what a person at a
    repository wants. `research`: the web, a browser and an interpreter.
    """

    MINIMAL = "minimal"
    FULL = "full"
    RESEARCH = "research"


@dataclass(frozen=True)
class ToolSettings:
    """What the tools of one session are made with.

    Attributes:
        session_id: Names checkpoints, and the writer of notes.
        command_seconds: Seconds before a shell command is stopped.
        ask: Puts a question to the user; None if nobody is there.
        search: Searches the web; without it there is no `web_search`.
        worktrees: Folder for git work trees that the policy lets be written.
        checkpoint_store: Where checkpoints of a workspace without git are kept; as writable.
    """

    session_id: str = "session"
    command_seconds: float = DEFAULT_TIMEOUT
    ask: Ask | None = None
    search: SearchProvider | None = None
    worktrees: Path | None = None
    checkpoint_store: str | None = None


def profile_tools(profile: Profile, settings: ToolSettings) -> list[Tool]:
    """Return new tools for one session."""
    return _PROFILES[profile](settings)


def minimal_profile(command_seconds: float = DEFAULT_TIMEOUT) -> list[Tool]:
    """Return new tools for one session: a persistent shell and a file editor.

    Args:
        command_seconds: Seconds before a shell command is stopped.
    """
    return [BashTool(timeout=command_seconds), StrReplaceEditor()]


def _full(settings: ToolSettings) -> list[Tool]:
    bash, bash_output, bash_kill = shell_tools(settings.command_seconds)
    return [
        bash,
        StrReplaceEditor(),
        bash_output,
        bash_kill,
        ApplyPatchTool(),
        GrepTool(),
        GlobTool(),
        GitTool(
            session_id=settings.session_id,
            worktrees=settings.worktrees,
            store=settings.checkpoint_store,
        ),
        TodoWrite(),
        Notes(source=settings.session_id),
        AskUser(settings.ask),
        *_web(settings),
    ]


def _research(settings: ToolSettings) -> list[Tool]:
    return [
        *reversed(_web(settings)),
        BrowserTool(),
        PythonTool(),
        StrReplaceEditor(),
        TodoWrite(),
        Notes(source=settings.session_id),
        AskUser(settings.ask),
    ]


def _web(settings: ToolSettings) -> list[Tool]:
    search: list[Tool] = [] if settings.search is None else [WebSearchTool(settings.search)]
    return [WebFetchTool(), *search]


_PROFILES: Mapping[Profile, Callable[[ToolSettings], list[Tool]]] = {
    Profile.MINIMAL: lambda settings: minimal_profile(settings.command_seconds),
    Profile.FULL: _full,
    Profile.RESEARCH: _research,
}
