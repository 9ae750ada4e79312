"""What all sandboxes of real processes share; a provider adds the command line of its cage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import ClassVar, Self

import anyio

from dsv4agent.sandboxes.cgroups import ControlGroup
from dsv4agent.sandboxes.enforcement import Facts, asked_for, assess
from dsv4agent.sandboxes.environment import MACHINERY_ENVIRONMENT, scrubbed_environment
from dsv4agent.sandboxes.errors import SandboxClosed, SandboxError, SandboxUnavailable
from dsv4agent.sandboxes.file_client import FileClient, server_argv
from dsv4agent.sandboxes.gate import Gate
from dsv4agent.sandboxes.limits import human_size, limit_behind, shell_prefix, user_processes
from dsv4agent.sandboxes.masking import is_below, masked_paths, resolved_policy
from dsv4agent.sandboxes.pipes import CONTROL_CHANNEL, PipeProcess, communicate
from dsv4agent.sandboxes.private_network import PrivateNetwork
from dsv4agent.sandboxes.protection import Protection
from dsv4agent.sandboxes.protocol import (
    Completed,
    Enforcement,
    EnforcementReport,
    FileStat,
    Policy,
    Process,
)
from dsv4agent.sandboxes.survey import MOST_ENTRIES
from dsv4agent.sandboxes.watch import ResourceWatch

WATCHED = "no delegated control group: memory, processes and disk are looked at several times a second"


@dataclass(frozen=True)
class CagedCommand:
    """A command line that starts a program inside the cage.

    Attributes:
        argv: The whole command line, cage included.
        env: The environment of the cage's own programs, which run outside of it: nothing of a caller's.
        pass_fds: Descriptors that it needs; closed once it started.
        token: What identifies the program to its cage, if the cage needs that.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=lambda: dict(MACHINERY_ENVIRONMENT))
    pass_fds: tuple[int, ...] = ()
    token: str = ""


class CagedSandbox(ABC):
    """Runs processes, and file requests through a helper process, inside a cage that a subclass describes.

    Use `open`, which tries the cage out before anything else runs in it.
    """

    provider: ClassVar[str]
    machinery: ClassVar[int]
    """Levels of processes above a program that belong to the cage."""
    promises: ClassVar[tuple[str, ...]] = (
        "writes",
        "reads",
        "network",
        "environment",
        "system_calls",
        "secrets",
        "repositories",
    )
    """Guarantees without which the sandbox does not open, if the policy asks for them."""
    server_python: ClassVar[str] = sys.executable
    """The Python inside that serves files."""
    counts_by_itself: ClassVar[bool] = False
    """Whether the cage limits memory and processes without our help."""
    partial: ClassVar[Mapping[str, str]] = {}
    """Guarantees that hold in part only, with the reason."""
    missing: Mapping[str, str] = {}
    """Guarantees that the provider cannot give, with the reason."""

    def __init__(self, policy: Policy, gate: Gate | None = None) -> None:
        self._policy = resolved_policy(policy)
        self._gate = gate or Gate(policy.network)
        self._network: PrivateNetwork | None = None
        # Shared by all processes of the sandbox; private to them and to this user.
        self._base = os.path.realpath(tempfile.mkdtemp(prefix="dsv4agent-"))
        self._scratch = os.path.join(self._base, "tmp")
        os.makedirs(os.path.join(self._scratch, "home"), 0o700)
        self._protection = Protection(self._policy)
        self._running: set[PipeProcess] = set()
        self._user_processes = user_processes(policy.limits)
        self._group = None if self.counts_by_itself else ControlGroup.make(policy.limits)
        # Where the kernel counts memory and processes the watch looks after disks alone.
        self._counted = self.counts_by_itself or self._group is not None
        watched = (
            replace(policy.limits, memory_bytes=None, processes=None) if self._counted else policy.limits
        )
        growing = (self._policy.workspace, *self._policy.writable, self._scratch)
        self._watch = ResourceWatch(watched, growing)
        # Not watched: it runs nothing but requests of ours, and would keep the watch awake.
        self._files = FileClient(self._start_server)
        self._report: EnforcementReport | None = None
        self._closed = False

    @classmethod
    async def open(cls, policy: Policy, *, gate: Gate | None = None) -> Self:
        """Make the cage, try it out, and return it.

        Args:
            policy: What its processes may do.
            gate: Decides about connections in place of one made from the policy's network.

        Raises:
            SandboxUnavailable: The cage does not work here, or does not hold what it promises.
            SandboxError: The policy cannot be meant.
        """
        cls.require()
        sandbox = cls(policy, gate)
        try:
            sandbox._network = await sandbox._open_network()
            await anyio.to_thread.run_sync(sandbox._protection.look)
            sandbox._prepare()
            sandbox._report = sandbox._assess(await sandbox._try_out())
        except BaseException as error:
            await sandbox.aclose()
            if isinstance(error, SandboxError | OSError) and not isinstance(error, SandboxUnavailable):
                raise SandboxUnavailable(
                    f"{cls.provider} does not work here: {error}; {cls.remedy()}"
                ) from error
            raise
        return sandbox

    @classmethod
    @abstractmethod
    def require(cls) -> None:
        """Raise `SandboxUnavailable` if something that the cage is made of is missing on this machine."""

    @classmethod
    @abstractmethod
    def remedy(cls) -> str:
        """Say what to install or switch on when the cage does not work."""

    async def _open_network(self) -> PrivateNetwork | None:
        """Make the network of the sandbox, if it gets one of its own.

        Raises:
            SandboxUnavailable: It cannot be made.
        """
        return None

    @abstractmethod
    def _prepare(self) -> None:
        """Work out what all command lines share.

        Raises:
            SandboxUnavailable: The policy cannot be enforced.
        """

    @abstractmethod
    def _command(
        self, argv: Sequence[str], cwd: str, environment: Mapping[str, str], *, repositories: bool
    ) -> CagedCommand:
        """Return the command line that runs `argv` in `cwd` with `environment` inside the cage."""

    def _assess(self, facts: Facts) -> EnforcementReport:
        """Judge what was found.

        Raises:
            SandboxUnavailable: A guarantee that the provider promises does not hold.
        """
        report = assess(self.provider, facts, self._policy, self._partial_now(), self.missing)
        asked = asked_for(self._policy)
        broken = [
            name for name in self.promises if name in asked and report.guarantees[name] is Enforcement.NONE
        ]
        if broken:
            reasons = "; ".join(report.notes)
            raise SandboxUnavailable(
                f"{self.provider} does not enforce {', '.join(broken)} here ({reasons}); {self.remedy()}"
            )
        return report

    def _environment(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        home, temporary = self._home_and_temporary()
        given = {**(self._network.environment if self._network else {}), **(self._policy.env or {})}
        return scrubbed_environment(home, temporary, given) | dict(extra or {})

    def _home_and_temporary(self) -> tuple[str, str]:
        """Return HOME and TMPDIR as programs see them."""
        return os.path.join(self._scratch, "home"), self._scratch

    @property
    def policy(self) -> Policy:
        """The policy in force, with links in its folders resolved."""
        return self._policy

    @property
    def report(self) -> EnforcementReport:
        """What the trial at opening found."""
        assert self._report is not None, "made by open()"
        return self._report

    @property
    def gate(self) -> Gate:
        """The way out for requests of the runtime, and what the proxy of the programs asks."""
        return self._gate

    async def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        repositories: bool = False,
    ) -> Completed:
        """Run a program to its end, with standard output and error apart.

        Raises:
            TimeoutError: It took longer than `timeout` seconds; its process tree is gone.
            SandboxClosed: The sandbox was closed.
        """
        self._require_open()
        self._keep_up()
        await self._make_ready(repositories=repositories)
        process = self._start(argv, cwd=cwd, env=env, repositories=repositories)
        collected = (bytearray(), bytearray())
        code: int | None = None
        try:
            with anyio.move_on_after(timeout):
                code = await communicate(process, input, collected)
        finally:
            with anyio.CancelScope(shield=True):
                await process.kill(0.0 if code is not None else 2.0)
            process.close()
            self._running.discard(process)
        if code is None:
            raise TimeoutError(f"{argv[0]} ran longer than {timeout} s and was stopped")
        return Completed(code, bytes(collected[0]), bytes(collected[1]), process.limit_hit)

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        repositories: bool = False,
    ) -> Process:
        """Start a program with merged output and the control channel as descriptor 3.

        Raises:
            SandboxClosed: The sandbox was closed.
        """
        self._require_open()
        self._keep_up()
        await self._make_ready(repositories=repositories)
        return self._start(argv, cwd=cwd, env=env, repositories=repositories, control=True)

    async def stat(self, path: str) -> FileStat:
        """Follow links and describe `path`."""
        return await self._file_client().stat(path)

    async def read_bytes(self, path: str, max_bytes: int | None = None) -> bytes:
        """Read a regular file."""
        return await self._file_client().read_bytes(path, max_bytes)

    async def write_bytes(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        """Replace a file whole; a file that exists keeps its mode unless `mode` is given."""
        await self._file_client().write_bytes(path, data, mode)

    async def remove(self, path: str) -> None:
        """Remove a file, or a link itself."""
        await self._file_client().remove(path)

    async def list_dir(self, path: str) -> list[tuple[str, FileStat]]:
        """Return sorted names with what they are."""
        return await self._file_client().list_dir(path)

    async def aclose(self) -> None:
        """Kill everything that runs inside and remove the private temporary folder."""
        self._closed = True
        self._files.close()
        running, self._running = self._running, set()
        for process in running:
            process.close()
        if self._network is not None:
            self._network.close()
        self._watch.close()
        if self._group is not None:
            self._group.close()
        # Left behind rather than raised: a program may have made folders that cannot be removed.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_remove, self._base)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def _file_client(self) -> FileClient:
        self._require_open()
        self._keep_up()
        return self._files

    def _keep_up(self) -> None:
        """Cover again what was moved or replaced; the file server, which runs on, has to see it too."""
        if self._protection.refresh():
            self._renew()
            self._files.renew()

    def _renew(self) -> None:  # noqa: B027
        """Work out anew what depends on where the protected files are; nothing for some."""

    def _require_open(self) -> None:
        if self._closed:
            raise SandboxClosed("the sandbox was closed; open a new one")

    def _start(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        repositories: bool = False,
        control: bool = False,
        watched: bool = True,
    ) -> PipeProcess:
        self._require_open()
        last = CONTROL_CHANNEL if control else ""
        prefix = shell_prefix(self._policy.limits, user=self._user_processes, then=last)
        command = self._command(
            (*prefix, *argv),
            cwd or self._policy.workspace,
            self._environment(env),
            repositories=repositories,
        )
        try:
            process = self._process(command, control=control)
        finally:
            for descriptor in command.pass_fds:
                os.close(descriptor)
        self._running = {old for old in self._running if old.running} | {process}
        if watched:
            self._watch.add(process)
        return process

    def _process(self, command: CagedCommand, *, control: bool) -> PipeProcess:
        group = () if self._group is None else self._group.prefix
        return PipeProcess.start(
            (*group, *command.argv),
            env=command.env,
            pass_fds=command.pass_fds,
            machinery=self.machinery,
            judge=self._limit_behind,
            control=control,
        )

    async def _start_server(self) -> PipeProcess:
        await self._make_ready(repositories=False)
        return self._start(server_argv(self.server_python), cwd="/", watched=False)

    async def _make_ready(self, *, repositories: bool) -> None:  # noqa: B027
        """Start what must run before a program can; nothing for most."""

    def _limit_behind(self, exit_code: int) -> str | None:
        limits = self._policy.limits
        if exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            if self._group is not None and limits.memory_bytes and self._group.killed_for_memory():
                return f"memory limit of {human_size(limits.memory_bytes)}"
            return None
        return limit_behind(exit_code, limits)

    def _partial_now(self) -> Mapping[str, str]:
        partial = dict(self.partial)
        if not self._counted:
            partial["limits"] = WATCHED
        if not self._protection.complete:
            for name in ("secrets", "repositories"):
                partial.setdefault(name, f"only {MOST_ENTRIES} entries of writable folders were looked at")
        return partial

    def _trials(self) -> tuple[list[str], list[str]]:
        """Return the hidden paths to try to read, and the folders to try to write in."""
        roots = {self._policy.workspace, *self._policy.writable}
        hidden = [path for path in masked_paths(self._policy) if path not in roots]
        outside = ["/", "/etc", "/usr", "/var/tmp", os.path.dirname(self._base), *hidden]
        outside = [path for path in outside if not any(is_below(path, root) for root in roots)]
        return [*hidden, *self._protection.secrets], [*outside, *self._protection.read_only]

    async def _try_out(self) -> Facts:
        found = await self._files.facts(*self._trials())
        writable, readable = _same_as_host(found["writable"]), _same_as_host(found["readable"])
        secrets, repositories = set(self._protection.secrets), set(self._protection.read_only)
        allowed = {"PWD", "OLDPWD", "SHLVL", "_", *self._environment(None)}
        return Facts(
            writable=tuple(path for path in writable if path not in repositories),
            readable=tuple(path for path in readable if path not in secrets),
            open_repositories=tuple(path for path in writable if path in repositories),
            open_secrets=tuple(path for path in readable if path in secrets),
            network=found["network"],
            capabilities=found["capabilities"],
            seccomp=found["seccomp"] == 2,
            own_pids=found["namespaces"]["pid"] != os.readlink("/proc/self/ns/pid"),
            secrets=tuple(sorted(os.environ.keys() & set(found["environment"]) - allowed)),
        )


def _remove(folder: str) -> None:
    """Remove a folder by the one program that no depth of folders defeats."""
    argv = ["rm", "-rf", "--one-file-system", "--", folder]
    subprocess.run(argv, stderr=subprocess.DEVNULL, env=MACHINERY_ENVIRONMENT)


def _same_as_host(found: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """Return those paths that are the host's own and not a stand-in mounted over them."""
    same: list[str] = []
    for path, identity in found.items():
        result = os.stat(path)
        if [result.st_dev, result.st_ino] == list(identity):
            same.append(path)
    return tuple(sorted(same))
