"""Which host paths a cage hides, and which of those it shows again so that Python still runs."""

from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dsv4agent.sandboxes.errors import SandboxError
from dsv4agent.sandboxes.protocol import NetworkMode, Policy

_RUNTIME_SHOWN = ("/run/current-system",)
_RUNTIME_SHOWN_WITH_NETWORK = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager/resolv.conf")


def resolved_policy(policy: Policy) -> Policy:
    """Return the policy with links in its folders resolved, as mounts and rules need them.

    Raises:
        SandboxError: The workspace or a writable folder is missing, or is the root of the file system.
    """
    folders = [os.path.realpath(path) for path in (policy.workspace, *policy.writable)]
    for given, path in zip((policy.workspace, *policy.writable), folders, strict=True):
        if not os.path.isabs(given) or not os.path.isdir(path):
            raise SandboxError(f"{given} is not the absolute path of a folder; make it first")
        if path == "/":
            raise SandboxError(
                "the root of the file system cannot be made writable; choose a folder below it"
            )
    return replace(
        policy,
        workspace=folders[0],
        writable=tuple(folders[1:]),
        masked=tuple(os.path.realpath(path) for path in policy.masked),
        readable=tuple(os.path.realpath(path) for path in policy.readable),
    )


def home_folders() -> list[str]:
    """Return the existing folders that hold users' files, outermost ones only."""
    candidates = {"/root", "/home", os.path.expanduser("~")}
    try:
        candidates.add(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        pass  # A user without an entry has no further home.
    return _outermost(
        path for path in map(os.path.realpath, candidates) if os.path.isdir(path) and path != "/"
    )


def masked_paths(policy: Policy) -> list[str]:
    """Return what is hidden: homes, /run with its service sockets, and the policy's own list."""
    paths = {*home_folders(), *(path for path in policy.masked if os.path.lexists(path))}
    if os.path.isdir("/run"):
        paths.add(os.path.realpath("/run"))
    return sorted(paths)


def shown_paths(policy: Policy) -> list[str]:
    """Return what stays visible below hidden paths: the interpreter, and what the policy wants."""
    executable = os.path.realpath(sys.executable)
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(Path(executable).parent.parent)}
    prefixes |= {os.path.realpath(prefix) for prefix in prefixes}
    shown = [
        *prefixes,
        *policy.readable,
        *_RUNTIME_SHOWN,
        *(_RUNTIME_SHOWN_WITH_NETWORK if policy.network.mode is NetworkMode.ON else ()),
    ]
    hidden = [*masked_paths(policy), "/tmp"]
    return sorted(
        path for path in shown if os.path.exists(path) and any(is_below(path, mask) for mask in hidden)
    )


def service_sockets() -> list[str]:
    """Return the sockets at paths that host processes listen on, which a read-only mount leaves open.

    Those that come up later are not known; the usual places for them (/run, /tmp, homes) are hidden anyway.
    """
    found: set[str] = set()
    for line in Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].startswith("/"):
            path = os.path.realpath(fields[7])
            try:
                if stat.S_ISSOCK(os.stat(path).st_mode):
                    found.add(path)
            except OSError:
                pass  # Gone, or in another mount namespace.
    return sorted(found)


def is_below(path: str, folder: str) -> bool:
    """Tell whether a normal absolute path is `folder` or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _outermost(paths: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(is_below(path, above) for above in kept):
            kept.append(path)
    return kept
