"""The agent: a model, tools, instructions and limits; and the loop that makes them work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Literal, Self, cast

import anyio

from dsv4agent.assembly import CHECKPOINTS, CUSTOM, WORKTREES, Place, Setup, assemble
from dsv4agent.backends import Backend, EmbeddedBackend
from dsv4agent.budgets import Limits
from dsv4agent.context import PERSONA
from dsv4agent.functions import AnyFunction, Deps, ToolFunction, tool
from dsv4agent.progress import Phase
from dsv4agent.run import Run
from dsv4agent.sandboxes import Policy, ProviderName, Sandbox
from dsv4agent.session import Session
from dsv4agent.tools import (
    Ask,
    Profile,
    Tool,
    ToolSettings,
    profile_tools,
    search_provider_from_environment,
)
from dsv4agent.transcript import StopReason

if TYPE_CHECKING:
    from dsv4agent.engine import Engine

ToolSource = Tool | ToolFunction | Callable[[], Tool]


async def drive(run: Run) -> StopReason:
    """Sample a turn, run its calls, give the results back, until there is nothing left to do: the agent loop.

    It holds no state of its own: a run may begin within a turn or between two calls, and goes on from there.
    """
    while not (progress := run.progress).idle:
        if stop := run.must_stop():
            return stop
        if progress.phase is Phase.BETWEEN and not await run.start_step():
            return StopReason.CONTEXT_FULL
        if progress.phase is not Phase.CALLING and (stop := await run.sample()):
            return stop
        turn = run.turn()
        if await run.discard_repeat(turn):
            continue
        for call in turn.calls:
            if stop := await run.call(call):
                return stop
        await run.finish_step(turn)
    return StopReason.FINISHED


class Agent(Generic[Deps]):
    """What stays the same from session to session.

    The model is loaded when the first session is entered. `aclose`, or `async with`, releases it.
    """

    def __init__(
        self,
        model: str | Path | Engine | Backend = "mini",
        *,
        tools: Sequence[ToolSource] | None = None,
        profile: Profile | Literal["minimal", "full", "research"] = Profile.MINIMAL,
        ask: Ask | None = None,
        checkpoints: bool | None = None,
        instructions: str = PERSONA,
        mode: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Describe an agent; nothing is loaded yet.

        Args:
            model: `mini` (comes with the package), a checkpoint folder, an engine, or a backend.
            tools: Tools, functions made tools with `@tool`, or callables that make a tool, called once for
                each session. None gives those of the profile.
            profile: Which tools a new session has; a resumed one keeps those it was created with. `minimal`
                is a shell and a file editor; `full` adds background jobs, patches, searches, git with
                checkpoints, a plan, notes and the web; `research` is the web, a browser and an interpreter.
            ask: Puts a question of the model to the user, for the profiles that have `ask_user`.
            checkpoints: Whether the files are saved before and after each step, so that `Session.rewind` and
                `Session.restore` can take them back; None means for all profiles but `minimal`.
            instructions: The system text.
            mode: `non-think`, `think-high` or `think-max`; None takes what the checkpoint recommends.
            temperature: None takes what the checkpoint recommends.
            top_p: None takes what the checkpoint recommends.
            limits: Limits of each run; None takes the number of steps that the checkpoint recommends.
        """
        self._model = model
        self._tools = tools
        self._profile = Profile(profile)
        self._ask = ask
        self._checkpoints = self._profile is not Profile.MINIMAL if checkpoints is None else checkpoints
        self._functions: list[ToolFunction] = []
        self._instructions = instructions
        self._mode = mode
        self._temperature = temperature
        self._top_p = top_p
        self._limits = limits
        self._backend: Backend | None = None
        self._loading = anyio.Lock()

    def tool(self, function: AnyFunction) -> ToolFunction:
        """Decorate an async function as a tool of this agent; see `dsv4agent.tool`."""
        made = tool(function)
        self._functions.append(made)
        return made

    def session(
        self,
        repo: str | Path = ".",
        *,
        sandbox: ProviderName | Sandbox = "auto",
        policy: Policy | None = None,
        resume: str | None = None,
        seed: int | None = None,
        deps: Deps | None = None,
    ) -> Session:
        """Return a session, to be entered with `async with`.

        Args:
            repo: The workspace folder. A resumed session works where it began.
            sandbox: A provider's name, or a sandbox that is already open, and stays open afterwards.
            policy: What sandboxed processes may do; None allows writing in the workspace, and no network.
            resume: Id of a stored session to go on with, or a start of it that no other has.
            seed: Seed of a new session's sampling; None draws one. It is stored.
            deps: What tool functions get as `RunContext.deps`.

        Raises:
            ModelNotFound: On entering: there is no checkpoint under the model's name.
            BackendError: On entering: the checkpoint cannot be loaded.
            SandboxUnavailable: On entering: no sandbox works here; says what to do about it.
            SessionError: On entering: the session cannot be resumed.
            CheckpointMismatch: On entering: another model wrote the session.
            UsageError: On entering: the workspace is not a folder, or the mode does not exist.
        """
        setup = Setup(
            load=self.load,
            make_tools=lambda backend, place: self._make_tools(backend, place, deps),
            profile=self._profile.value if self._tools is None else CUSTOM,
            checkpoints=self._checkpoints,
            instructions=self._instructions,
            mode=self._mode,
            temperature=self._temperature,
            top_p=self._top_p,
            seed=seed,
            workspace=Path(repo).expanduser().resolve(),
            sandbox=sandbox,
            policy=policy,
            resume=resume,
        )

        def reopen(session_id: str) -> Session:
            return self.session(repo, sandbox=sandbox, policy=policy, resume=session_id, deps=deps)

        return Session(lambda stack: assemble(stack, setup), drive, reopen, self._limits)

    async def load(self) -> Backend:
        """Load the model, if it is not loaded yet, and return it.

        Raises:
            ModelNotFound: There is no checkpoint under the name or path.
            BackendError: The checkpoint cannot be loaded.
        """
        async with self._loading:
            if self._backend is None:
                self._backend = await _open_backend(self._model)
            return self._backend

    async def aclose(self) -> None:
        """Release the model, if this agent loaded it."""
        backend, self._backend = self._backend, None
        if backend is not None and isinstance(self._model, str | Path):
            await backend.aclose()

    async def __aenter__(self) -> Self:
        """Return the agent; the first session loads the model."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Release the model."""
        with anyio.CancelScope(shield=True):
            await self.aclose()

    def _make_tools(self, backend: Backend, place: Place, deps: object) -> list[Tool]:
        sources: Sequence[ToolSource] | None = self._tools
        if sources is None:
            settings = ToolSettings(
                session_id=place.session_id,
                command_seconds=backend.defaults.command_seconds,
                ask=self._ask,
                search=search_provider_from_environment(),
                worktrees=place.folder / WORKTREES,
                checkpoint_store=str(place.folder / CHECKPOINTS),
            )
            known = place.profile in set(Profile)
            sources = profile_tools(Profile(place.profile) if known else self._profile, settings)
        return [_make_tool(source, deps) for source in (*sources, *self._functions)]


async def _open_backend(model: str | Path | Engine | Backend) -> Backend:
    if isinstance(model, str | Path):
        return await EmbeddedBackend.load(model)
    # An engine knows neither tokenizer nor checkpoint of a conversation; a backend does.
    return cast("Backend", model) if hasattr(model, "tokenizer") else EmbeddedBackend(cast("Engine", model))


def _make_tool(source: ToolSource, deps: object) -> Tool:
    if isinstance(source, ToolFunction):
        return source.bind(deps)
    # Tools are callable too; what has no schema is something that makes a tool. So is a class of tools, whose
    # schema is an attribute of the class.
    if isinstance(source, type) or not hasattr(source, "parameters"):
        return cast("Callable[[], Tool]", source)()
    return cast("Tool", source)
