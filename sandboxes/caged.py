"""What all sandboxes of real processes share; a provider adds the command line of its cage."""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

import anyio

from dsv4agent.sandboxes.enforcement import Facts, assess
from dsv4agent.sandboxes.environment import scrubbed_environment
from dsv4agent.sandboxes.errors import SandboxClosed, SandboxError, SandboxUnavailable
from dsv4agent.sandboxes.file_client import SERVER_ARGV, FileClient
from dsv4agent.sandboxes.gate import Gate
from dsv4agent.sandboxes.masking import is_below, masked_paths, resolved_policy
from dsv4agent.sandboxes.pipes import CONTROL_WRAPPER, PipeProcess
from dsv4agent.sandboxes.private_network import PrivateNetwork
from dsv4agent.sandboxes.protocol import (
    Completed,
    Enforcement,
    EnforcementReport,
    FileStat,
    NetworkMode,
    Policy,
    Process,
)

DRAIN = 0.5
"""Seconds given to pipes to reach their end after a program's end, so that nothing written is lost."""


@dataclass(frozen=True)
class CagedCommand:
    """A command line that starts a program inside the cage.

    Attributes:
        argv: The whole command line, cage included.
        pass_fds: Descriptors that it needs; closed once it started.
    """

    argv: Sequence[str]
    pass_fds: tuple[int, ...] = ()


class CagedSandbox(ABC):
    """Runs processes, and file requests through a helper process, inside a cage that a subclass describes.

    Use `open`, which tries the cage out before anything else runs in it.
    """

    provider: ClassVar[str]
    machinery: ClassVar[int]
    """Levels of processes above a program that belong to the cage."""
    promises: ClassVar[tuple[str, ...]] = ("writes", "reads", "network", "environment", "system_calls")
    """Guarantees without which the sandbox does not open."""
    limits: ClassVar[Mapping[str, str]] = {}
    """Guarantees that hold in part only, with the reason."""

    def __init__(self, policy: Policy, gate: Gate | None = None) -> None:
        self._policy = resolved_policy(policy)
        self._gate = gate or Gate(policy.network)
        self._network: PrivateNetwork | None = None
        # Shared by all processes of the sandbox; private to them and to this user.
        self._scratch = os.path.realpath(tempfile.mkdtemp(prefix="dsv4agent-"))
        os.mkdir(os.path.join(self._scratch, "home"), 0o700)
        self._running: set[PipeProcess] = set()
        self._files = FileClient(lambda: self._start(SERVER_ARGV, cwd="/"))
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
    def _command(self, argv: Sequence[str], cwd: str, *, repositories: bool) -> CagedCommand:
        """Return the command line that runs `argv` in `cwd` inside the cage."""

    def _assess(self, facts: Facts) -> EnforcementReport:
        """Judge what was found.

        Raises:
            SandboxUnavailable: A guarantee that the provider promises does not hold.
        """
        report = assess(self.provider, facts, self._policy, self.limits)
        broken = [name for name in self.promises if report.guarantees[name] is Enforcement.NONE]
        if self._policy.network.mode is NetworkMode.ON:
            broken = [name for name in broken if name != "network"]
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
        process = self._start(argv, cwd=cwd, env=env, repositories=repositories)
        collected = (bytearray(), bytearray())
        code: int | None = None
        try:
            with anyio.move_on_after(timeout):
                code = await _communicate(process, input, collected)
        finally:
            with anyio.CancelScope(shield=True):
                await process.kill(0.0 if code is not None else 2.0)
            process.close()
            self._running.discard(process)
        if code is None:
            raise TimeoutError(f"{argv[0]} ran longer than {timeout} s and was stopped")
        return Completed(code, bytes(collected[0]), bytes(collected[1]))

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
        return self._start((*CONTROL_WRAPPER, *argv), cwd=cwd, env=env, repositories=repositories)

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
        # Left behind rather than raised: a program may have made folders that cannot be removed.
        shutil.rmtree(self._scratch, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def _file_client(self) -> FileClient:
        if self._closed:
            raise SandboxClosed("the sandbox was closed; open a new one")
        return self._files

    def _start(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        repositories: bool = False,
    ) -> PipeProcess:
        if self._closed:
            raise SandboxClosed("the sandbox was closed; open a new one")
        command = self._command(argv, cwd or self._policy.workspace, repositories=repositories)
        try:
            process = PipeProcess.start(
                command.argv,
                env=self._environment(env),
                pass_fds=command.pass_fds,
                machinery=self.machinery,
            )
        finally:
            for descriptor in command.pass_fds:
                os.close(descriptor)
        self._running = {old for old in self._running if old.running} | {process}
        return process

    def _trials(self) -> tuple[list[str], list[str]]:
        """Return the hidden paths to try to read, and the folders to try to write in."""
        roots = {self._policy.workspace, *self._policy.writable}
        hidden = [path for path in masked_paths(self._policy) if path not in roots]
        outside = ["/", "/etc", "/usr", "/var/tmp", os.path.dirname(self._scratch), *hidden]
        return hidden, [path for path in outside if not any(is_below(path, root) for root in roots)]

    async def _try_out(self) -> Facts:
        hidden, outside = self._trials()
        found = await self._files.facts(hidden, outside)
        allowed = {"PWD", "OLDPWD", "SHLVL", "_", *self._environment(None)}
        return Facts(
            writable=_same_as_host(found["writable"]),
            readable=_same_as_host(found["readable"]),
            network=found["network"],
            capabilities=found["capabilities"],
            seccomp=found["seccomp"] == 2,
            own_pids=found["namespaces"]["pid"] != os.readlink("/proc/self/ns/pid"),
            secrets=tuple(sorted(os.environ.keys() & set(found["environment"]) - allowed)),
        )


async def _communicate(process: PipeProcess, data: bytes, collected: tuple[bytearray, bytearray]) -> int:
    """Feed a process and collect both its streams until it ends, but not until survivors close them."""

    async def feed() -> None:
        try:
            await process.write(data)
        except BrokenPipeError:
            pass  # It did not want all of its input.
        process.close_stdin()

    async def collect(read: Callable[[int], Awaitable[bytes]], into: bytearray) -> None:
        while chunk := await read(65536):
            into += chunk

    code = 0
    async with anyio.create_task_group() as group:
        group.start_soon(feed)
        async with anyio.create_task_group() as readers:
            readers.start_soon(collect, process.read, collected[0])
            readers.start_soon(collect, process.read_control, collected[1])
            code = await process.wait()
            readers.cancel_scope.deadline = anyio.current_time() + DRAIN
        group.cancel_scope.cancel()
    return code


def _same_as_host(found: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """Return those paths that are the host's own and not a stand-in mounted over them."""
    same: list[str] = []
    for path, identity in found.items():
        result = os.stat(path)
        if [result.st_dev, result.st_ino] == list(identity):
            same.append(path)
    return tuple(sorted(same))
