"""How a file tool says no: a stable code, the reason and the next useful step."""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Callable, Mapping

from dsv4agent.sandboxes import Policy
from dsv4agent.tools.base import Status, ToolResult


class Refusal(Exception):
    """The call ends with this code and reason.

    Args:
        code: Stable code, the first word of the result's text.
        reason: What is wrong and the next useful step.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def result(self) -> ToolResult:
        """Return the result that the model reads."""
        return ToolResult(
            text=f"{self.code}: {self.reason}",
            status=_STATUSES.get(self.code, Status.ERROR),
            code=self.code,
        )


def require_text(**arguments: str | None) -> None:
    """Refuse arguments with lone surrogates: no file, name or program can take them.

    Raises:
        Refusal: `invalid_arguments`.
    """
    for name, value in arguments.items():
        if value is not None and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Refusal(
                    "invalid_arguments", f"{name} holds a lone surrogate; write it as plain text"
                ) from None


def require_path(path: str) -> None:
    """Refuse what cannot be the name of a file.

    Raises:
        Refusal: `invalid_arguments`.
    """
    if not path or "\0" in path:
        raise Refusal("invalid_arguments", "path is empty or holds a NUL character")
    require_text(path=path)


def is_inside(policy: Policy, path: str) -> bool:
    """Tell whether an absolute path, `..` resolved as text, lies in a writable folder."""
    path = posixpath.normpath(path) + "/"
    return any(path.startswith(posixpath.join(root, "")) for root in (policy.workspace, *policy.writable))


def os_refusal(error: OSError, shown: str) -> Refusal:
    """Return what to say of the kernel's error about a path as the model wrote it."""
    explain = _ERRORS.get(error.errno or 0)
    if explain is None:
        return Refusal("io_error", f"{shown}: {error.strerror or error}")
    return explain(shown)


def write_refusal(error: OSError, shown: str, path: str, policy: Policy) -> Refusal:
    """Return what to say of a write to `path` that the kernel refused."""
    refusal = os_refusal(error, shown)
    if refusal.code == "permission_denied" and not is_inside(policy, path):
        return Refusal("outside_workspace", f"{shown} is not below {policy.workspace}; write there")
    return refusal


def folder_refusal(shown: str) -> Refusal:
    """Return what to say when a file was meant and a folder is there."""
    return Refusal("not_a_file", f"{shown} is a directory; give the path of a file")


def _missing(shown: str) -> Refusal:
    return Refusal("not_found", f"{shown} does not exist; view its folder to see what does")


def _denied(shown: str) -> Refusal:
    return Refusal("permission_denied", f"{shown} may not be accessed; work with other files")


def _not_a_folder(shown: str) -> Refusal:
    return Refusal("not_found", f"{shown} leads through something that is not a folder; check the path")


def _special(shown: str) -> Refusal:
    return Refusal("not_a_file", f"{shown} is a pipe, socket or device; only regular files can be used")


def _no_space(shown: str) -> Refusal:
    return Refusal("no_space", f"no space is left to write {shown}; remove files first")


_STATUSES: Mapping[str, Status] = {
    "outside_workspace": Status.DENIED,
    "permission_denied": Status.DENIED,
    "timeout": Status.TIMEOUT,
}
_ERRORS: Mapping[int, Callable[[str], Refusal]] = {
    errno.ENOENT: _missing,
    errno.EACCES: _denied,
    errno.EPERM: _denied,
    errno.EROFS: _denied,
    errno.ENOTDIR: _not_a_folder,
    errno.ELOOP: _not_a_folder,
    errno.EINVAL: _special,
    errno.ENXIO: _special,
    errno.EISDIR: folder_refusal,
    errno.ENOSPC: _no_space,
    errno.EDQUOT: _no_space,
}
