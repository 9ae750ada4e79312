"""The host's side of the git server that runs inside a sandbox: one process per sandbox."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import anyio

from dsv4agent.sandboxes import Process, Sandbox, SandboxCrashed
from dsv4agent.sandboxes.frames import read_frame
from dsv4agent.tools.settling import settle

PATIENCE = 600.0
"""Seconds after which a silent server counts as dead."""
SETTLE = 5.0
"""Seconds that a cancelled request which would leave something half-done is given to come to its end."""
GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL."""
MODULES = (
    "_git_view",
    "_git_repository",
    "_git_scan",
    "_git_history",
    "_git_files",
    "_git_restore",
    "_git_worktrees",
    "_git_actions",
    "_git_server",
)
"""What the server is made of, each after those that it imports."""

# Replies go to a descriptor of their own: what anything else prints ends up on the control channel. The
# modules arrive on standard input, so that no file of the package need be readable inside.
_BOOT = """
import json, os, sys, types
replies = os.fdopen(os.dup(1), "wb")
os.dup2(3, 1); os.dup2(3, 2); os.close(3)
for name in [name for name in os.environ if name.startswith("GIT_")]: del os.environ[name]
requests = os.fdopen(os.dup(0), "rb"); os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
package = sys.modules["dsv4agent.tools"] = types.ModuleType("dsv4agent.tools")
writable, modules = json.loads(requests.read(int(requests.readline())))
for name, source in modules:
    module = sys.modules["dsv4agent.tools." + name] = types.ModuleType("dsv4agent.tools." + name)
    setattr(package, name, module)
    exec(compile(source, name, "exec"), module.__dict__)
    # Before anything looks for git.
    if name == "_git_view": os.environ["PATH"] = module.safe_path(os.environ["PATH"], writable)
package._git_server.serve(requests, replies)
"""
# Each changes several things that belong together: a branch and the index, many files.
_SETTLING = frozenset({"commit", "branch", "worktree_add", "worktree_remove", "restore"})
# Isolated: neither the workspace nor a variable can add a module.
_ARGV = (sys.executable, "-I", "-X", "utf8", "-c", _BOOT)


class GitRefused(Exception):
    """Raised when the server refuses a request: a stable code, the next useful step, the paths concerned."""

    def __init__(self, code: str, reason: str, paths: Sequence[str] = ()) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.paths = tuple(paths)


class GitClient:
    """Sends one request at a time to a server that it starts when first needed, and again if it died.

    All users of one sandbox share one client: `GitClient.of(sandbox)`.
    """

    _clients: ClassVar[WeakKeyDictionary[Sandbox, GitClient]] = WeakKeyDictionary()

    def __init__(self, sandbox: Sandbox, modules: Sequence[tuple[str, str]] | None = None) -> None:
        self._sandbox = sandbox
        self._modules = modules or module_sources()
        self._server: Process | None = None
        self._lock = anyio.Lock()

    @classmethod
    def of(cls, sandbox: Sandbox) -> GitClient:
        """Return the client of a sandbox."""
        client = cls._clients.get(sandbox)
        if client is None:
            client = cls._clients[sandbox] = cls(sandbox)
        return client

    @classmethod
    def install(cls, sandbox: Sandbox, client: GitClient) -> None:
        """Make a client the one that all users of a sandbox get."""
        cls._clients[sandbox] = client

    async def ask(self, request: Mapping[str, Any], *, repeatable: bool = True) -> tuple[Any, bytes]:
        """Send a request and return the result and its bytes.

        A cancellation ends the server, if need be after `SETTLE` seconds; what a cut restore left half-done,
        the next request about checkpoints ends.

        Args:
            request: What the server's module describes.
            repeatable: Whether it may be sent again if the server died without an answer.

        Raises:
            GitRefused: The server says why not.
            SandboxCrashed: The server cannot be kept alive, or died in a request that is not repeatable.
        """
        async with self._lock:
            try:
                if request["operation"] in _SETTLING:
                    reply, body = await settle(lambda: self._answer(request, repeatable), SETTLE)
                else:
                    reply, body = await self._answer(request, repeatable)
            except BaseException:
                await self._bury()
                raise
        if "code" in reply:
            raise GitRefused(reply["code"], reply["reason"], reply["paths"])
        return reply["result"], body

    async def aclose(self) -> None:
        """End the server; a later request starts another."""
        if self._clients.get(self._sandbox) is self:
            del self._clients[self._sandbox]
        await self._bury()

    async def _answer(self, request: Mapping[str, Any], repeatable: bool) -> tuple[dict[str, Any], bytes]:
        if not repeatable and self._server is not None:
            # A server that died while it was idle is found out with something harmless.
            await self._try({"operation": "ping"}, again=True)
        return await self._try(request, again=repeatable)

    async def _try(self, request: Mapping[str, Any], *, again: bool) -> tuple[dict[str, Any], bytes]:
        fresh = self._server is None
        try:
            return await self._exchange(request)
        except (OSError, EOFError) as error:
            complaint = await self._bury()
            if again and not fresh:
                return await self._try(request, again=False)
            raise SandboxCrashed(f"the git server ended: {complaint or error}") from error

    async def _exchange(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        with anyio.fail_after(PATIENCE):
            if self._server is None:
                self._server = await self._sandbox.spawn(_ARGV, cwd="/", repositories=True)
                policy = self._sandbox.policy
                start = json.dumps([[policy.workspace, *policy.writable], self._modules]).encode()
                await self._server.write(b"%d\n" % len(start) + start)
            return await self._send(request)

    async def _send(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        assert self._server is not None
        text = json.dumps(request).encode()
        await self._server.write(struct.pack(">II", len(text), 0) + text)
        return await read_frame(self._server)

    async def _bury(self) -> str:
        """End the server and return what it said last."""
        server, self._server = self._server, None
        if server is None:
            return ""
        said = b""
        with anyio.CancelScope(shield=True):
            await server.kill(GRACE)
            with anyio.move_on_after(0.1):
                while data := await server.read_control():
                    said += data
        return said.decode("utf-8", "replace").strip()[-2000:]


def module_sources() -> list[tuple[str, str]]:
    """Return names and sources of the server's modules."""
    folder = Path(__file__).parent
    return [(name, (folder / f"{name}.py").read_text(encoding="utf-8")) for name in MODULES]
