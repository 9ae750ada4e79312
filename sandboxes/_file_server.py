"""Serves file requests inside a cage, so that the kernel's policy for the shell is the policy for file tools.

Sent as text to a bare interpreter and run there, so it uses the standard library alone and needs no file of
its own to be readable. A message, either way, is two 32-bit big-endian lengths, a JSON object and bytes.
"""

from __future__ import annotations

# Not `socket`, whose import takes long; a sandbox waits for this program when it opens.
import _socket
import errno
import json
import os
import stat
import struct
import sys

TYPE_CHECKING = False  # `typing` takes long as well.
if TYPE_CHECKING:
    from typing import Any, BinaryIO


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until the end of the input."""
    while len(header := requests.read(8)) == 8:
        size, data_size = struct.unpack(">II", header)
        request: dict[str, Any] = json.loads(requests.read(size))
        data = requests.read(data_size)
        try:
            reply, body = _answer(request, data)
        except OSError as error:
            reply, body = {"errno": error.errno or errno.EIO, "message": error.strerror or str(error)}, b""
        except ValueError as error:  # a NUL in a path
            reply, body = {"errno": errno.EINVAL, "message": str(error)}, b""
        text = json.dumps(reply).encode()
        replies.write(struct.pack(">II", len(text), len(body)) + text + body)
        replies.flush()


def _answer(request: dict[str, Any], data: bytes) -> tuple[Any, bytes]:
    path: str = request["path"]
    operation: str = request["operation"]
    if operation == "stat":
        return _described(os.stat(path)), b""
    if operation == "read":
        return None, _read(path, request["max_bytes"])
    if operation == "write":
        _write(path, data, request["mode"])
        return None, b""
    if operation == "remove":
        try:
            os.unlink(path)
        except FileNotFoundError:
            # The server that was asked first may have done it before it died.
            if not request.get("repeated"):
                raise
        return None, b""
    if operation == "list":
        with os.scandir(path) as entries:
            found = [(entry.name, _described(entry.stat(follow_symlinks=False))) for entry in entries]
        return sorted(found), b""
    if operation == "facts":
        return _facts(request["masked"], request["outside"]), b""
    raise OSError(errno.ENOSYS, f"unknown operation {operation}")


def _described(result: os.stat_result) -> list[Any]:
    kind = "file" if stat.S_ISREG(result.st_mode) else "dir" if stat.S_ISDIR(result.st_mode) else "other"
    return [kind, result.st_size, stat.S_IMODE(result.st_mode), result.st_mtime_ns]


def _read(path: str, max_bytes: int | None) -> bytes:
    # Looked at before it is opened: opening a device may already act on it.
    _require_regular(os.stat(path), path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(os.fstat(descriptor), path)
        return file.read(-1 if max_bytes is None else max_bytes)


def _require_regular(result: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(result.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(result.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)


def _write(path: str, data: bytes, mode: int | None) -> None:
    if os.path.basename(path) in {"", ".", ".."}:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    # A rename would replace a link; resolved first, the file it leads to is replaced.
    target = os.path.realpath(path)
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
    except FileExistsError:
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
    try:
        old = os.stat(target)
    except FileNotFoundError:
        if mode is None:
            mode = 0o666 & ~_umask()
    else:
        _require_regular(old, path)
        if mode is None:
            mode = stat.S_IMODE(old.st_mode) & 0o1777  # A write takes these rights away elsewhere too.
    temporary = os.path.join(os.path.dirname(target), f".dsv4agent-{os.urandom(8).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            os.rename(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _facts(masked: list[str], outside: list[str]) -> dict[str, Any]:
    """Try what the policy forbids, and say what the kernel answered."""
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
    namespaces = {
        name: _link(f"/proc/self/ns/{name}") for name in ("user", "pid", "ipc", "net", "uts", "mnt")
    }
    return {
        "no_new_privileges": int(status.get("NoNewPrivs", "0")),
        "seccomp": int(status.get("Seccomp", "0")),
        "capabilities": int(status.get("CapEff", "0"), 16),
        "namespaces": namespaces,
        "writable": {folder: _identity(folder) for folder in outside if _can_write(folder)},
        "readable": {path: _identity(path) for path in masked if _can_read(path)},
        "network": _has_route(),
        "environment": sorted(os.environ),
    }


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _can_write(folder: str) -> bool:
    trial = os.path.join(folder, f".dsv4agent-{os.urandom(8).hex()}")
    try:
        if not os.path.isdir(folder):  # the `.git` file of a worktree: opened, but not changed
            os.close(os.open(folder, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
            return True
        os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError:
        return False
    os.unlink(trial)
    return True


def _can_read(path: str) -> bool:
    try:
        if os.path.isdir(path):
            os.listdir(path)
        else:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _identity(path: str) -> list[int]:
    """Return device and inode, by which the host can tell its own folder from a stand-in."""
    result = os.stat(path)
    return [result.st_dev, result.st_ino]


def _has_route() -> bool:
    """Tell whether a packet to an address reserved for documentation would find a way out; sends none."""
    try:
        probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
        probe.connect(("192.0.2.1", 9))
        probe.close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
