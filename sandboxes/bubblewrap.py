"""The first choice: bubblewrap, with namespaces and a file system put together for each program."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dsv4agent.sandboxes.caged import CagedCommand, CagedSandbox
from dsv4agent.sandboxes.environment import environment_descriptor, memory_file
from dsv4agent.sandboxes.errors import SandboxUnavailable
from dsv4agent.sandboxes.masking import is_below, masked_paths, service_sockets, shown_paths
from dsv4agent.sandboxes.private_network import PrivateNetwork
from dsv4agent.sandboxes.protocol import NetworkMode, Policy
from dsv4agent.sandboxes.seccomp import seccomp_filter

_NAMESPACES = (
    "--unshare-user",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
)
_MOST_SHARED_MEMORY = 1 << 30
_PAGE = 4096


class BubblewrapSandbox(CagedSandbox):
    """Runs every program under its own `bwrap`: read-only root, writable workspace, own /tmp, hidden homes.

    All programs of a sandbox share files, /tmp included, and a network, so that one reaches the server that
    another started. Each has its own process namespace, so that ending one ends its daemons too.
    """

    provider = "bubblewrap"
    machinery = 2  # bwrap, and the first process of the new process namespace

    def _prepare(self) -> None:
        program = shutil.which("bwrap")
        assert program is not None, "checked by require()"
        self._program = program
        self._empty = os.path.join(self._base, "empty")
        os.close(os.open(self._empty, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
        self._masked, self._shown, self._sockets = (
            masked_paths(self._policy),
            shown_paths(self._policy),
            service_sockets(),
        )
        self._work_out_mounts()
        self._filter = seccomp_filter(sockets=True, own_pid_namespace=True)

    async def _open_network(self) -> PrivateNetwork | None:
        if self._policy.network.mode is NetworkMode.ON:
            return None
        try:
            return await PrivateNetwork.open(self._gate)
        except SandboxUnavailable as error:
            raise SandboxUnavailable(f"{error}; {self.remedy()}") from error

    @classmethod
    def require(cls) -> None:
        """Raise `SandboxUnavailable` if there is no `bwrap`."""
        if shutil.which("bwrap") is None:
            raise SandboxUnavailable(f"bubblewrap is not installed; {cls.remedy()}")

    @classmethod
    def remedy(cls) -> str:
        """Say how to get it."""
        return (
            "install the package `bubblewrap` (and `util-linux`) and allow unprivileged user namespaces "
            "(sysctl user.max_user_namespaces > 0, kernel.apparmor_restrict_unprivileged_userns = 0)"
        )

    def _home_and_temporary(self) -> tuple[str, str]:
        return "/tmp/home", "/tmp"

    def _command(
        self, argv: Sequence[str], cwd: str, environment: Mapping[str, str], *, repositories: bool
    ) -> CagedCommand:
        variables = [part for item in environment.items() for part in ("--setenv", *item)]
        given = environment_descriptor(["--clearenv", *variables])
        filter_ = memory_file("seccomp", self._filter)
        arguments = ("--args", str(given), "--seccomp", str(filter_), "--chdir", cwd, "--", *argv)
        # A service that ended took its socket along; a mount over nothing would fail.
        gone = [path for path in self._sockets if not os.path.lexists(path)]
        if gone:
            self._sockets = [path for path in self._sockets if path not in gone]
            self._work_out_mounts()
        return CagedCommand((*self._mounts[repositories], *arguments), pass_fds=(given, filter_))

    def _renew(self) -> None:
        self._work_out_mounts()

    def _work_out_mounts(self) -> None:
        network = self._network
        self._mounts: dict[bool, tuple[str, ...]] = {}
        for repositories in (False, True):
            command = (self._program, *_NAMESPACES, *self._arguments(repositories=repositories))
            self._mounts[repositories] = command if network is None else network.entered(command)

    def _arguments(self, *, repositories: bool) -> list[str]:
        """Return everything between the namespaces and the program."""
        policy = self._policy
        writable = (policy.workspace, *policy.writable)
        # By destination: a mount must come after those above it, and of two at one place the later entry
        # wins.
        mounts: dict[str, list[str]] = {"/tmp": ["--bind", self._scratch, "/tmp"]}
        read_only: list[str] = []
        for path in self._masked:
            if os.path.isdir(path):
                mounts[path] = ["--tmpfs", path]
                read_only.append(path)
            else:
                mounts[path] = ["--ro-bind", self._empty, path]
        for path in self._shown:
            if not any(is_below(path, root) for root in writable):
                mounts[path] = ["--ro-bind", os.path.realpath(path), path]
        for path in self._sockets:
            # Where nothing is mounted over it already, and in the workspace, whose sockets belong to the
            # host.
            if not any(is_below(path, mount) for mount in mounts):
                mounts[path] = ["--ro-bind", "/dev/null", path]
        for path in writable:
            mounts[path] = ["--bind", path, path]
        mounts |= self._protected_mounts(repositories=repositories)
        if not repositories:
            mounts |= {path: ["--bind", path, path] for path in folders_to_pin(mounts, writable)}
        arguments = ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--cap-drop", "ALL"]
        arguments += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
        arguments += ["--size", str(shared_memory(policy)), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
        for path in _kernel_settings():
            arguments += ["--ro-bind", path, path]
        for _, mount in sorted(mounts.items()):
            arguments += mount
        for path in read_only:
            if mounts[path][0] == "--tmpfs":
                arguments += ["--remount-ro", path]
        return arguments

    def _protected_mounts(self, *, repositories: bool) -> dict[str, list[str]]:
        """Return what covers secrets and repositories inside writable folders, by destination."""
        # What the host removes between a look at it and the mount is no reason to fail.
        read_only, writable = "--ro-bind-try", "--bind-try"
        mounts = {path: [read_only, self._empty, path] for path in self._protection.secrets}
        for path in self._protection.main_folders:
            mounts[path] = [writable if repositories else read_only, path, path]
        if not repositories:
            mounts |= {path: [read_only, path, path] for path in self._protection.read_only}
        return mounts


def folders_to_pin(mounts: Iterable[str], writable: Sequence[str]) -> set[str]:
    """Return the folders between writable ones and what is mounted inside those.

    A mount stays with its folder. If a program could move a folder above it, the next program's mount would
    miss; but what is itself a mount cannot be moved.
    """
    pinned: set[str] = set()
    for path in mounts:
        for root in writable:
            above = os.path.dirname(path)
            while path != root and is_below(above, root) and above != root and above not in mounts:
                pinned.add(above)
                above = os.path.dirname(above)
    return pinned


def shared_memory(policy: Policy) -> int:
    """Return the size of /dev/shm in bytes: a part of the memory limit, since files there count nowhere."""
    limit = policy.limits.memory_bytes
    return _MOST_SHARED_MEMORY if limit is None else max(_PAGE, min(_MOST_SHARED_MEMORY, limit // 4))


def _kernel_settings() -> Iterator[str]:
    """Yield what a fresh /proc lets the owner of its files change.

    An ordinary user owns the settings of the new namespaces only, and programs need none of them. Root, even
    without capabilities, owns the rest too, and could set `kernel.core_pattern` for the whole machine.
    """
    if os.geteuid() != 0:
        yield "/proc/sys"
        return
    for entry in sorted(os.scandir("/proc"), key=lambda entry: entry.name):
        if entry.name.isdigit() or entry.is_symlink():
            continue
        if entry.is_dir() or entry.stat().st_mode & 0o222:
            yield entry.path
