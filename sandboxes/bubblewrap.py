"""The first choice: bubblewrap, with namespaces and a file system put together for each program."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence

from dsv4agent.sandboxes.caged import CagedCommand, CagedSandbox
from dsv4agent.sandboxes.errors import SandboxUnavailable
from dsv4agent.sandboxes.masking import is_below, masked_paths, service_sockets, shown_paths
from dsv4agent.sandboxes.private_network import PrivateNetwork
from dsv4agent.sandboxes.protocol import NetworkMode
from dsv4agent.sandboxes.seccomp import seccomp_filter

_NAMESPACES = (
    "--unshare-user",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
)


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
        self._mounts = (program, *_NAMESPACES, *self._arguments())
        if self._network is not None:
            self._mounts = self._network.entered(self._mounts)
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

    def _command(self, argv: Sequence[str], cwd: str, *, repositories: bool) -> CagedCommand:
        descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        os.write(descriptor, self._filter)
        os.lseek(descriptor, 0, os.SEEK_SET)
        arguments = ("--seccomp", str(descriptor), "--chdir", cwd, "--", *argv)
        return CagedCommand((*self._mounts, *arguments), (descriptor,))

    def _arguments(self) -> list[str]:
        """Return everything between the namespaces and the program."""
        policy = self._policy
        writable = (policy.workspace, *policy.writable)
        # By destination: a mount must come after those above it, and of two at one place the later entry
        # wins.
        mounts: dict[str, list[str]] = {"/tmp": ["--bind", self._scratch, "/tmp"]}
        read_only: list[str] = []
        for path in masked_paths(policy):
            if os.path.isdir(path):
                mounts[path] = ["--tmpfs", path]
                read_only.append(path)
            else:
                mounts[path] = ["--ro-bind", "/dev/null", path]
        for path in shown_paths(policy):
            if not any(is_below(path, root) for root in writable):
                mounts[path] = ["--ro-bind", os.path.realpath(path), path]
        for path in service_sockets():
            # Where nothing is mounted over it already, and in the workspace, whose sockets belong to the
            # host.
            if not any(is_below(path, mount) for mount in mounts):
                mounts[path] = ["--ro-bind", "/dev/null", path]
        for path in writable:
            mounts[path] = ["--bind", path, path]
        arguments = ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--cap-drop", "ALL"]
        arguments += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
        for path in _kernel_settings():
            arguments += ["--ro-bind", path, path]
        for _, mount in sorted(mounts.items()):
            arguments += mount
        for path in read_only:
            if mounts[path][0] == "--tmpfs":
                arguments += ["--remount-ro", path]
        return arguments


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
