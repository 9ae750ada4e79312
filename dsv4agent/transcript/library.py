"""Where sessions are kept, and how they are found again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from dsv4agent.errors import SessionCorrupt, SessionNotFound
from dsv4agent.transcript.events import RunFinished, StepFinished, UserMessage
from dsv4agent.transcript.transcript import DATABASE, Transcript


def home() -> Path:
    """Return the folder of all state: `DSV4AGENT_HOME`, else the user's state folder."""
    override = os.environ.get("DSV4AGENT_HOME")
    return Path(override).expanduser() if override else Path(platformdirs.user_state_dir("dsv4agent"))


def sessions_dir() -> Path:
    """Return the folder of the sessions, made with mode 0700."""
    folder = home() / "sessions"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class SessionSummary:
    """One line about a stored session; `problem` is set when it cannot be read."""

    session_id: str
    updated: float
    created: str = ""
    model: str = ""
    workspace: str = ""
    task: str = ""
    steps: int = 0
    tokens: int = 0
    stop_reason: str | None = None
    problem: str | None = None


def list_sessions() -> list[SessionSummary]:
    """Return all stored sessions, the last used first. Reads and checks each of them."""
    folders = [folder for folder in sessions_dir().iterdir() if (folder / DATABASE).is_file()]
    return sorted(
        (summarize(folder) for folder in folders), key=lambda summary: summary.updated, reverse=True
    )


def find_session(session_id: str | None = None) -> Path:
    """Return the folder of a session by its id, by a prefix that only one has, or of the last used.

    Raises:
        SessionNotFound: There is none, or the prefix fits several.
    """
    folders = [folder for folder in sessions_dir().iterdir() if (folder / DATABASE).is_file()]
    if session_id is None:
        if not folders:
            raise SessionNotFound("There is no session yet. Start one with `dsv4agent run`.")
        return max(folders, key=_last_write)
    matches = [folder for folder in folders if folder.name.startswith(session_id)]
    exact = [folder for folder in matches if folder.name == session_id]
    if len(exact or matches) != 1:
        what = "No session has" if not matches else f"{len(matches)} sessions have"
        raise SessionNotFound(f"{what} the id {session_id!r}. `dsv4agent sessions list` shows what there is.")
    return (exact or matches)[0]


def summarize(folder: Path) -> SessionSummary:
    """Read one session into a line."""
    try:
        transcript = Transcript.open(folder, read_only=True)
    except SessionCorrupt as error:
        return SessionSummary(folder.name, _last_write(folder), problem=str(error))
    try:
        events = transcript.live_events()
    finally:
        transcript.close()
    task = next((event.text for event in events if isinstance(event, UserMessage)), "")
    last_run = next((event for event in reversed(events) if isinstance(event, RunFinished)), None)
    # A run that began after the last one ended did not end itself: its process was killed.
    ended = last_run is not None and isinstance(events[-1], RunFinished)
    return SessionSummary(
        session_id=folder.name,
        updated=events[-1].time if events else _last_write(folder),
        created=transcript.header.created,
        model=transcript.header.model.name,
        workspace=transcript.header.workspace,
        task=task,
        steps=sum(isinstance(event, StepFinished) for event in events),
        tokens=len(transcript.tokens),
        stop_reason=last_run.stop_reason.value if last_run is not None and ended else None,
    )


def _last_write(folder: Path) -> float:
    files = [folder / DATABASE, folder / f"{DATABASE}-wal"]
    return max(file.stat().st_mtime for file in files if file.exists())
