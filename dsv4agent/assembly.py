"""Putting a session together: model, transcript, tools and sandbox, new or as they were stored."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsv4agent.backends import Backend
from dsv4agent.dialect import Dialect
from dsv4agent.encoding.modes import THINK_MAX_WINDOW, ThinkingMode
from dsv4agent.errors import CheckpointMismatch, UsageError
from dsv4agent.run import Parts
from dsv4agent.sandboxes import Policy, ProviderName, Sandbox, choose_sandbox
from dsv4agent.saves import WorkspaceSaves
from dsv4agent.toolbox import Toolbox
from dsv4agent.tools import Checkpoints, Profile, Tool
from dsv4agent.transcript import (
    Event,
    Header,
    Sampling,
    SessionStarted,
    SessionWarning,
    Transcript,
    find_session,
    new_session_id,
    sessions_dir,
)
from dsv4agent.transcript.transcript import DATABASE, SPILL

CUSTOM = "custom"
"""Stands for a profile where the program chose the tools itself."""
WORKTREES, CHECKPOINTS = "worktrees", "checkpoints"


@dataclass(frozen=True)
class Place:
    """Where one session lives.

    Attributes:
        folder: Its own folder, named by its id, outside the workspace.
        profile: Its set of tools.
        checkpoints: Whether its steps save the files.
    """

    folder: Path
    profile: str
    checkpoints: bool = False

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.folder.name

    @property
    def writable(self) -> tuple[Path, ...]:
        """The folders of it that programs in the sandbox may write; all exist."""
        names = [SPILL]
        if self.profile == Profile.FULL:
            names.append(WORKTREES)
        if self.profile == Profile.FULL or self.checkpoints:
            names.append(CHECKPOINTS)
        folders = tuple(self.folder / name for name in names)
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)
        return folders


@dataclass(frozen=True)
class Setup:
    """What a session is to be; `resume` names a stored one, whose header then decides all but the sandbox."""

    load: Callable[[], Awaitable[Backend]]
    make_tools: Callable[[Backend, Place], Iterable[Tool]]
    profile: str
    checkpoints: bool
    instructions: str
    mode: str | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    workspace: Path
    sandbox: ProviderName | Sandbox
    policy: Policy | None
    resume: str | None


async def assemble(stack: AsyncExitStack, setup: Setup) -> tuple[Parts, list[Event]]:
    """Open everything a session needs, to be closed by `stack`; return it with the events that say so."""
    transcript: Transcript | None = None
    if setup.resume is not None:
        transcript = stack.enter_context(closing(Transcript.open(find_session(setup.resume))))
        setup = replace(setup, workspace=Path(transcript.header.workspace))
    if not setup.workspace.is_dir():
        raise UsageError(f"The workspace {setup.workspace} is not a folder. Give one that exists.")
    backend = await setup.load()
    if transcript is not None:
        _check_model(transcript.header, backend)
        place = Place(transcript.spill_dir.parent, transcript.header.profile, setup.checkpoints)
    else:
        place = Place(_new_folder(stack), setup.profile, setup.checkpoints)
    toolbox = Toolbox(setup.make_tools(backend, place))
    sandbox = await _open_sandbox(stack, setup, place)
    if transcript is None:
        header = _header(place, setup, backend, toolbox, sandbox)
        transcript = stack.enter_context(closing(Transcript.create(place.folder, header)))
    dialect = Dialect(transcript.header, backend.tokenizer, vocab_size=backend.vocab_size)
    saves = _saves(sandbox, place)
    if saves is not None:
        stack.push_async_callback(saves.aclose)
    parts = Parts(transcript, backend, dialect, toolbox, sandbox, saves)
    stack.push_async_callback(parts.close_sequence)
    stack.push_async_callback(toolbox.aclose)
    return parts, _announce(parts, resumed=setup.resume is not None)


def _new_folder(stack: AsyncExitStack) -> Path:
    """Make a session's folder. It goes again if the session never came to be."""
    folder = sessions_dir() / new_session_id()
    (folder / SPILL).mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)

    def remove_unused() -> None:
        if not (folder / DATABASE).exists():
            shutil.rmtree(folder, ignore_errors=True)

    stack.callback(remove_unused)
    return folder


def _header(place: Place, setup: Setup, backend: Backend, toolbox: Toolbox, sandbox: Sandbox) -> Header:
    defaults = backend.defaults
    mode = setup.mode or defaults.mode
    try:
        ThinkingMode(mode)
    except ValueError:
        known = ", ".join(item.value for item in ThinkingMode)
        raise UsageError(f"There is no mode {mode!r}; use one of {known}.") from None
    sampling: dict[str, Any] = {
        "temperature": defaults.temperature if setup.temperature is None else setup.temperature,
        "top_p": defaults.top_p if setup.top_p is None else setup.top_p,
    }
    if setup.seed is not None:
        sampling["seed"] = setup.seed
    return Header(
        session_id=place.session_id,
        model=backend.record,
        mode=mode,
        instructions=setup.instructions,
        sampling=Sampling(**sampling),
        profile=place.profile,
        tools=tuple(toolbox.functions),
        sandbox=sandbox_summary(sandbox),
        workspace=str(setup.workspace),
    )


async def _open_sandbox(stack: AsyncExitStack, setup: Setup, place: Place) -> Sandbox:
    if not isinstance(setup.sandbox, str):
        return setup.sandbox
    policy = setup.policy or Policy(workspace=str(setup.workspace))
    # Results name the files that hold outputs too long to show, so the model must be able to read them.
    own = map(str, place.writable)
    policy = replace(policy, workspace=str(setup.workspace), writable=(*policy.writable, *own))
    return await stack.enter_async_context(await choose_sandbox(policy, setup.sandbox))


def _saves(sandbox: Sandbox, place: Place) -> WorkspaceSaves | None:
    if not place.checkpoints:
        return None
    store = str(place.folder / CHECKPOINTS)
    return WorkspaceSaves(Checkpoints(sandbox, place.session_id, store=store))


def sandbox_summary(sandbox: Sandbox) -> dict[str, Any]:
    """Return a sandbox's enforcement report as plain data."""
    report = sandbox.report
    guarantees = {name: level.value for name, level in report.guarantees.items()}
    return {"provider": report.provider, "guarantees": guarantees, "notes": list(report.notes)}


def _check_model(header: Header, backend: Backend) -> None:
    written, given = header.model, backend.record
    if written.fingerprint != given.fingerprint:
        raise CheckpointMismatch(
            f"Session {header.session_id} was written by {written.name} ({written.path}, fingerprint "
            f"{written.fingerprint}), not by {given.name} ({given.fingerprint}). Resume it with that model."
        )


def _announce(parts: Parts, *, resumed: bool) -> list[Event]:
    header = parts.transcript.header
    step = parts.progress.step
    events: list[Event] = [
        SessionStarted(
            step=step,
            session_id=header.session_id,
            model=header.model.name,
            mode=header.mode,
            workspace=header.workspace,
            tools=tuple(str(function["name"]) for function in header.tools),
            sandbox=sandbox_summary(parts.sandbox),
            resumed=resumed,
        )
    ]
    if list(header.tools) != parts.toolbox.functions:
        message = (
            "the agent's tools are not those that the session began with; the model still reads the old "
            "descriptions, and calls are checked against the new ones"
        )
        events.append(SessionWarning(step=step, code="tools_changed", message=message))
    window = header.model.context_window
    if header.mode == ThinkingMode.THINK_MAX and window < THINK_MAX_WINDOW:
        message = (
            f"think-max reasons at length and wants a window of {THINK_MAX_WINDOW} tokens; this model has "
            f"{window}. Use think-high"
        )
        events.append(SessionWarning(step=step, code="small_window", message=message))
    return parts.transcript.commit(*events)
