"""Which host paths a cage hides, and which of those it shows again so that Python still runs."""

from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from dsv4agent.sandboxes.errors import SandboxError
from dsv4agent.sandboxes.protocol import NetworkMode, Policy

_RUNTIME_SHOWN = ("/run/current-system",)
_RUNTIME_SHOWN_WITH_NETWORK = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager/resolv.conf")

# What holds keys, passwords or others' data on the systems in use. Most of it only root can read; groups
# such as `docker` and `adm` are the exception.
_SYSTEM_SECRETS = (
    "/boot",
    "/etc/NetworkManager/system-connections",
    "/etc/docker/key.json",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/krb5.keytab",
    "/etc/kubernetes",
    "/etc/letsencrypt",
    "/etc/mysql/debian.cnf",
    "/etc/openvpn",
    "/etc/pki/tls/private",
    "/etc/rancher",
    "/etc/security/opasswd",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/ssl/private",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/wireguard",
    "/lost+found",
    "/var/backups",
    "/var/cache/debconf/passwords.dat",
    "/var/lib/cloud",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/lib/libvirt",
    "/var/lib/mysql",
    "/var/lib/NetworkManager",
    "/var/lib/postgresql",
    "/var/lib/private",
    "/var/lib/rancher",
    "/var/mail",
    "/var/spool",
)
# Looked through by root, down to the depth: what is closed to other users there is closed to programs too.
_CLOSED_BELOW = (("/etc", 3), ("/opt", 1), ("/srv", 1), ("/var/cache", 2), ("/var/lib", 1), ("/var/log", 2))
_MOST_ENTRIES = 10_000


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
        # One in another would give a program that moves its parent a way to where the path then leads.
        writable=tuple(path for path in _outermost(folders) if path != folders[0]),
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
    """Return what is hidden: homes, /run with its service sockets, the system's secrets, the policy's list.

    Nothing stands for itself below another hidden path, unless the policy names it.
    """
    own = {path for path in policy.masked if os.path.lexists(path)}
    folders = {*home_folders(), *filter(os.path.isdir, [os.path.realpath("/run")])}
    secrets = [path for path in system_secrets() if not any(is_below(root, path) for root in _roots(policy))]
    return sorted({*own, *_outermost((*folders, *secrets))})


@cache
def system_secrets() -> tuple[str, ...]:
    """Return the files and folders outside homes that this user can read and no program should.

    Inside a cage root has no capabilities but still owns its files, so for root the list of known places is
    not enough: whatever the system keeps from ordinary users is kept from programs too. Found once.
    """
    known = {os.path.realpath(path) for path in _SYSTEM_SECRETS if os.access(path, os.R_OK)}
    known.update(path for path in _host_keys() if os.access(path, os.R_OK))
    if os.geteuid() == 0:
        for folder, depth in _CLOSED_BELOW:
            known.update(_closed(folder, depth))
    return tuple(_outermost(known))


def _host_keys() -> Iterator[str]:
    try:
        yield from (entry.path for entry in os.scandir("/etc/ssh") if entry.name.endswith("_key"))
    except OSError:
        return


def _closed(top: str, depth: int) -> Iterator[str]:
    """Yield what other users may not read, outermost only, breadth first and bounded."""
    level, left = [top], _MOST_ENTRIES
    for _ in range(depth):
        below: list[str] = []
        for folder in level:
            try:
                entries = list(os.scandir(folder)) if left > 0 else []
                left -= len(entries)
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    is_folder = stat.S_ISDIR(found.st_mode)
                    wanted = 0o005 if is_folder else 0o004
                    if found.st_mode & wanted == wanted:
                        below += [entry.path] if is_folder else []
                    elif (is_folder or stat.S_ISREG(found.st_mode)) and 0 in (found.st_uid, found.st_gid):
                        yield entry.path
            except OSError:
                continue  # It went away.
        level = below


def _roots(policy: Policy) -> tuple[str, ...]:
    return (policy.workspace, *policy.writable)


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
