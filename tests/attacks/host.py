"""The prepared host: folders with secrets, listening sockets, a victim process, a repository."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dsv4agent.sandboxes import Policy, Sandbox
from dsv4agent.sandboxes.scene import SECRET, SECRET_VARIABLE, OpenSandbox, Scene, prepared_host

# Where programs of all kinds keep what opens doors, relative to a home folder.
HOME_SECRETS = (
    ".ssh/id_ed25519",
    ".aws/credentials",
    ".config/gcloud/application_default_credentials.json",
    ".azure/accessTokens.json",
    ".kube/config",
    ".docker/config.json",
    ".git-credentials",
    ".config/gh/hosts.yml",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".cargo/credentials.toml",
    ".gnupg/private-keys-v1.d/key",
    ".bash_history",
)

_DATAGRAMS = ("datagrams", "abstract datagrams")

# Holds a secret in memory, in a variable, in an unlinked file, in System V shared memory and as a key, says
# where, and sleeps. Only same-user permissions protect them from a program that nothing confines.
_VICTIM = """
import ctypes, os, sys, tempfile, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
secrets = sys.stdin.buffer.read().split(b"\\n")
memory = ctypes.create_string_buffer(secrets[0])
file = tempfile.TemporaryFile(buffering=0)
file.write(secrets[1])
segment = libc.shmget(0, ctypes.c_size_t(4096), 0o1600)
if segment >= 0:
    address = libc.shmat(segment, None, 0)
    ctypes.memmove(address, secrets[2], len(secrets[2]))
    libc.shmctl(segment, 0, None)  # Goes with the process.
queue = libc.msgget(0, 0o1600)
print(ctypes.addressof(memory), file.fileno(), segment, queue, flush=True)
try:
    time.sleep(1000)
finally:
    libc.msgctl(queue, 0, None)
"""


@dataclass(frozen=True)
class Snapshot:
    """A folder's whole state: by path its kind, mode, owner, time of change, attributes and content."""

    entries: Mapping[str, tuple[object, ...]]

    @classmethod
    def of(cls, folder: Path) -> Snapshot:
        """Look at a folder."""
        found: dict[str, tuple[object, ...]] = {}
        for path in (folder, *sorted(folder.rglob("*"))):
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            marks = (status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_nlink)
            names = tuple(os.listxattr(path, follow_symlinks=False))
            found[str(path.relative_to(folder))] = (*marks, status.st_mtime_ns, names, content)
        return cls(found)

    def difference(self, later: Snapshot) -> str:
        """Return which paths changed since, or an empty string."""
        paths = {**self.entries, **later.entries}
        changed = [path for path in paths if self.entries.get(path) != later.entries.get(path)]
        return f"changed outside: {', '.join(sorted(changed))}" if changed else ""


@dataclass
class Host:
    """What must not be changed, read or reached.

    Attributes:
        scene: Folders, sockets and a process that the self-check uses too.
        home: A home folder full of credentials; HOME while the host stands.
        victim: A process with a secret in memory, environment, descriptors and System V memory.
        sockets: Listening sockets by name.
        addresses: What the programs are told: where all this is.
        secrets: By place, what must not be seen.
        outside_snapshot: The outside folder before any attack.
    """

    scene: Scene
    home: Path
    victim: subprocess.Popen[bytes]
    sockets: Mapping[str, socket.socket]
    addresses: Mapping[str, str]
    secrets: Mapping[str, bytes]
    outside_snapshot: Snapshot

    @property
    def workspace(self) -> Path:
        """The workspace of all sandboxes."""
        return self.scene.workspace

    @property
    def outside(self) -> Path:
        """A folder in sight that must not change."""
        return self.scene.outside

    def restore(self) -> None:
        """Put the outside folder right after an attack that succeeded."""
        for path in self.outside.iterdir():
            if path.name not in {"file", "program", "socket", "datagrams"}:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        _fill(self.outside)
        self.outside_snapshot = Snapshot.of(self.outside)

    def clear_workspace(self) -> None:
        """Remove all that attacks made in the workspace."""
        for path in self.workspace.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()

    def visitors(self) -> list[str]:
        """Return the sockets on which somebody came, and let them go."""
        found: list[str] = []
        for name, listener in self.sockets.items():
            try:
                if listener.type == socket.SOCK_DGRAM:
                    listener.recv(1)
                else:
                    listener.accept()[0].close()
            except BlockingIOError:
                continue
            found.append(name)
        return found + (self.visitors() if found else [])


@contextmanager
def prepared() -> Generator[
    Callable[[Callable[[Policy], Awaitable[Sandbox]]], Awaitable[tuple[Sandbox, Host]]]
]:
    """Prepare the host; yield what opens a sandbox in it."""
    with ExitStack() as stack:
        make_scene = stack.enter_context(prepared_host())
        secrets: dict[str, bytes] = {"the masked folder": SECRET.encode()}
        sockets: dict[str, socket.socket] = {}
        built: list[Host] = []

        async def make(open_sandbox: OpenSandbox) -> tuple[Sandbox, Host]:
            async def open_among_homes(policy: Policy) -> Sandbox:
                base = Path(policy.workspace).parent
                if not sockets:
                    _make_home(stack, base / "home", secrets)
                    sockets.update(_listen(stack, base / "outside"))
                return await open_sandbox(policy)

            scene = await make_scene(open_among_homes)
            if not built:
                built.append(_build(stack, scene, {**scene.listeners, **sockets}, secrets))
            return scene.sandbox, built[0]

        yield make


def _make_home(stack: ExitStack, home: Path, secrets: dict[str, bytes]) -> None:
    before = os.environ.get("HOME")
    stack.callback(lambda: os.environ.update(HOME=before) if before else os.environ.pop("HOME", None))
    os.environ["HOME"] = str(home)
    for name in HOME_SECRETS:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        secrets[f"~/{name}"] = _token()
        path.write_bytes(secrets[f"~/{name}"])
        path.chmod(0o600)


def _listen(stack: ExitStack, outside: Path) -> dict[str, socket.socket]:
    """Open more sockets, before any sandbox opens: what is there then must be out of reach."""
    datagrams = {kind: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for kind in _DATAGRAMS}
    datagrams["datagrams"].bind(str(outside / "datagrams"))
    datagrams["abstract datagrams"].bind(f"\0dsv4agent-datagrams-{os.urandom(8).hex()}")
    streams = {"all interfaces": socket.create_server(("0.0.0.0", 0))}
    if socket.has_ipv6:
        streams["tcp6"] = socket.create_server(("::1", 0), family=socket.AF_INET6)
    for opened in (*datagrams.values(), *streams.values()):
        stack.callback(opened.close)
    return datagrams | streams


def _build(
    stack: ExitStack, scene: Scene, sockets: dict[str, socket.socket], secrets: dict[str, bytes]
) -> Host:
    outside = scene.outside
    for listener in sockets.values():
        listener.setblocking(False)
    _fill(outside)
    for place in ("a process's memory", "a process's open file", "System V memory"):
        secrets[place] = _token()
    secrets["a process's environment"] = _token()
    environment = {**os.environ, "VICTIM_TOKEN": secrets["a process's environment"].decode()}
    del environment[SECRET_VARIABLE]
    victim = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _VICTIM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    stack.callback(victim.wait)
    stack.callback(victim.terminate)
    assert victim.stdin is not None
    assert victim.stdout is not None
    places = ("a process's memory", "a process's open file", "System V memory")
    victim.stdin.write(b"\n".join(secrets[place] for place in places))
    victim.stdin.close()
    memory, descriptor, segment, queue = victim.stdout.readline().decode().split()
    stack.callback(victim.stdout.close)
    addresses = {
        "WORKSPACE": str(scene.workspace),
        "OUTSIDE": str(outside),
        "HIDDEN": str(scene.masked),
        "HOST_HOME": str(outside.parent / "home"),
        "HOST": str(os.getpid()),
        "VICTIM": str(victim.pid),
        "MEMORY": memory,
        "DESCRIPTOR": descriptor,
        "SEGMENT": segment,
        "QUEUE": queue,
        "TCP": str(scene.tcp),
        "TCP6": str(sockets["tcp6"].getsockname()[1]) if "tcp6" in sockets else "9",
        "EVERYWHERE": str(sockets["all interfaces"].getsockname()[1]),
        "UDP": str(scene.udp.getsockname()[1]),
        "ABSTRACT": scene.abstract,
        "ABSTRACT_DATAGRAMS": sockets["abstract datagrams"].getsockname()[1:].decode(),
        "HOST_NAME": socket.gethostname(),
        "ADDRESSES": " ".join(own_addresses()),
    }
    home = outside.parent / "home"
    return Host(scene, home, victim, sockets, addresses, secrets, Snapshot.of(outside))


def own_addresses() -> list[str]:
    """Return this machine's addresses that are not loopback, as the kernel would choose them as a source."""
    found: list[str] = []
    for family, target in ((socket.AF_INET, "192.0.2.77"), (socket.AF_INET6, "2001:db8::77")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))  # Sends nothing.
                found.append(probe.getsockname()[0])
        except OSError:
            continue
    return found


def _fill(outside: Path) -> None:
    for name, content, mode in (("file", b"before", 0o644), ("program", b"#!/bin/sh\n", 0o755)):
        path = outside / name
        if path.is_symlink() or (path.exists() and path.stat().st_nlink > 1):
            path.unlink()
        path.write_bytes(content)
        path.chmod(mode)


def _token() -> bytes:
    return b"secret-" + os.urandom(16).hex().encode()
