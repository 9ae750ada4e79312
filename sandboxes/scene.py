"""A host prepared for the self-check: what must not be changed, read or reached."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dsv4agent.sandboxes.errors import SandboxUnavailable
from dsv4agent.sandboxes.protocol import Completed, Policy, ResourceLimits, Sandbox

SECRET = "dsv4agent-self-check-secret"
SECRET_VARIABLE = "DSV4AGENT_SELF_CHECK_TOKEN"
PATIENCE = 20.0
"""Seconds for one attempt."""
SECRET_FILES = (".env", "app/.env.local")
REPOSITORIES = ("app", "library")
LIMITS = ResourceLimits(
    cpu_seconds=2,
    memory_bytes=384 << 20,
    processes=100,
    file_bytes=64 << 20,
    disk_bytes=96 << 20,
    open_files=256,
)
"""Small enough to be met at once and large enough for the checks themselves."""

OpenSandbox = Callable[[Policy], Awaitable[Sandbox]]


@dataclass(frozen=True)
class Scene:
    """A host prepared for the checks.

    Attributes:
        sandbox: The sandbox under test.
        workspace: Its workspace.
        outside: A visible host folder that must not change.
        masked: A host folder with a secret that must not be read.
        tcp: Port of a TCP listener of the host on 127.0.0.1.
        udp: A bound UDP socket of the host, non-blocking.
        abstract: Name of a listening abstract Unix socket of the host, without the leading NUL.
        socket_path: Path of a listening Unix socket of the host.
        victim: A host process that must survive.
        listeners: The listening sockets by name, on which the host sees who came.
    """

    sandbox: Sandbox
    workspace: Path
    outside: Path
    masked: Path
    tcp: int
    udp: socket.socket
    abstract: str
    socket_path: Path
    victim: subprocess.Popen[bytes]
    listeners: Mapping[str, socket.socket]

    async def shell(self, script: str) -> Completed:
        """Run a script inside."""
        return await self.sandbox.run(["bash", "-c", script], timeout=PATIENCE)

    async def python(self, code: str) -> Completed:
        """Run Python code inside."""
        return await self.sandbox.run(["python3", "-I", "-S", "-c", code], timeout=PATIENCE)


@contextmanager
def prepared_host() -> Generator[Callable[[OpenSandbox], Awaitable[Scene]]]:
    """Prepare folders, sockets, a process and a secret variable; yield what opens a sandbox among them."""
    with ExitStack() as stack:
        # Not in /tmp, which a sandbox may replace whole: the outside folder should be in sight.
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dsv4agent-", dir="/var/tmp")))
        workspace, outside, masked = (base / name for name in ("workspace", "outside", "masked"))
        for folder in (workspace, outside, masked):
            folder.mkdir()
        (outside / "file").write_bytes(b"before")
        (workspace / "app").mkdir()
        for name in SECRET_FILES:
            (workspace / name).write_text(f"TOKEN={SECRET}\n")
        for folder in REPOSITORIES:
            subprocess.run(["git", "init", "-q", str(workspace / folder)], check=True)
        (masked / "secret").write_text(SECRET)
        os.environ[SECRET_VARIABLE] = SECRET
        stack.callback(os.environ.pop, SECRET_VARIABLE, None)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        name = f"dsv4agent-{os.urandom(8).hex()}"
        listeners = {"tcp": tcp, "udp": udp}
        for kind, address in (("abstract", f"\0{name}"), ("path", str(outside / "socket"))):
            local = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            local.bind(address)
            local.listen()
            listeners[kind] = local
        victim = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        stack.callback(victim.wait)
        stack.callback(victim.kill)

        async def make_scene(open_sandbox: OpenSandbox) -> Scene:
            policy = Policy(str(workspace), masked=(str(masked),), limits=LIMITS)
            try:
                sandbox = await open_sandbox(policy)
            except SandboxUnavailable:
                # Some cannot hide files in the workspace, and say so by refusing. The rest is tried still.
                sandbox = await open_sandbox(replace(policy, mask_env_files=False))
            return Scene(
                sandbox=sandbox,
                workspace=workspace,
                outside=outside,
                masked=masked,
                tcp=tcp.getsockname()[1],
                udp=udp,
                abstract=name,
                socket_path=outside / "socket",
                victim=victim,
                listeners=listeners,
            )

        yield make_scene
