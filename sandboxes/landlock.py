"""The second choice: Landlock rules and a system-call filter, which need no program and no namespaces."""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dsv4agent.sandboxes._launcher import landlock_abi
from dsv4agent.sandboxes.caged import CagedCommand, CagedSandbox
from dsv4agent.sandboxes.environment import memory_file
from dsv4agent.sandboxes.errors import SandboxUnavailable
from dsv4agent.sandboxes.masking import is_below, masked_paths, shown_paths
from dsv4agent.sandboxes.protocol import NetworkMode
from dsv4agent.sandboxes.seccomp import seccomp_filter

LAUNCHER_SOURCE = Path(__file__).with_name("_launcher.py").read_text(encoding="utf-8")
"""Read once: the file may lie in a workspace, whose programs could change it before it runs outside."""
_LAUNCHER = marshal.dumps(compile(LAUNCHER_SOURCE, "launcher", "exec"))
_PYTHON = os.path.realpath(sys.executable)
_BOOT = "import marshal,sys;f=open(int(sys.argv.pop(1)),'rb');c=marshal.load(f);f.close();exec(c)"
_ABI_OF_SIGNALS = 6
LEAST_ABI = 3
"""Below it files outside the workspace could still be truncated."""

_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
# Besides the hidden paths: other programs' temporary files, and devices, through which root could read
# whole disks.
_UNREADABLE = ("/tmp", "/dev")


class LandlockSandbox(CagedSandbox):
    """Runs every program confined by Landlock and seccomp, under a supervisor that kills what it leaves.

    Without namespaces /tmp is not private: TMPDIR names a private folder, and /tmp itself cannot be used.
    """

    provider = "landlock"
    machinery = 1  # the supervisor

    promises = ("writes", "reads", "network", "environment", "system_calls", "secrets")
    missing = {  # noqa: RUF012
        "repositories": "Landlock cannot make a folder read-only inside one that may be written",
    }
    partial = {  # noqa: RUF012
        "writes": "mode, owner and times of files outside the workspace are not covered by Landlock",
        "reads": "names and sizes of hidden files can be seen, and command lines of other processes",
        "processes": "shared process namespace; the kernel refuses signals and debugging across the border",
    }

    def _prepare(self) -> None:
        if self._policy.network.mode is NetworkMode.ALLOW_LIST:
            raise SandboxUnavailable(
                "landlock cannot tell hosts apart, so it cannot keep a list of allowed hosts; use bubblewrap "
                "or another network mode"
            )
        if landlock_abi() < _ABI_OF_SIGNALS:
            self.missing = {**self.missing, "processes": "signals to others are free before Linux 6.12"}
        if self._protection.secrets:
            raise SandboxUnavailable(
                f"landlock cannot hide {self._protection.secrets[0]} inside a folder that may be written; "
                "install bubblewrap, or let programs read such files with Policy(mask_env_files=False)"
            )
        hidden = {*masked_paths(self._policy), *_UNREADABLE}
        writable = [self._policy.workspace, *self._policy.writable, self._scratch]
        shown = shown_paths(self._policy)
        for path in hidden:
            inside = next(
                (root for root in (*writable, *shown) if path != root and is_below(path, root)), None
            )
            if inside is not None:
                raise SandboxUnavailable(
                    f"landlock cannot hide {path} inside {inside}; use bubblewrap or another workspace"
                )
        network = self._policy.network.mode is NetworkMode.ON
        rules = {
            "read": [*_readable("/", hidden), *shown],
            "write": writable,
            "devices": _DEVICES,
            "network": network,
        }
        program = seccomp_filter(sockets=network, own_pid_namespace=False)
        self._config: dict[str, object] = {"landlock": rules, "seccomp": program}

    @classmethod
    def require(cls) -> None:
        """Raise `SandboxUnavailable` if the kernel's Landlock is missing or too old."""
        abi = landlock_abi()
        if abi < LEAST_ABI:
            raise SandboxUnavailable(
                f"the kernel offers Landlock version {abi}, {LEAST_ABI} is needed; {cls.remedy()}"
            )

    @classmethod
    def remedy(cls) -> str:
        """Say how to get it."""
        return "use Linux 6.2 or later with `landlock` in the `lsm=` list of the kernel's command line"

    def _command(
        self, argv: Sequence[str], cwd: str, environment: Mapping[str, str], *, repositories: bool
    ) -> CagedCommand:
        return launcher_command({**self._config, "cwd": cwd}, argv, environment)


def launcher_command(
    config: dict[str, object], argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> CagedCommand:
    """Return the command line of the supervisor for a program; without an environment it gets ours."""
    given = {**config, "environment": None if environment is None else dict(environment)}
    code = memory_file("launcher", _LAUNCHER)
    # Not arguments: those of every process can be read by every user of the machine.
    settings = memory_file("settings", marshal.dumps(given))
    supervisor = (_PYTHON, "-I", "-S", "-c", _BOOT, str(code), str(settings))
    return CagedCommand((*supervisor, *argv), pass_fds=(code, settings))


def _readable(folder: str, hidden: set[str]) -> Iterator[str]:
    """Yield the fewest paths that cover all but the hidden ones; Landlock can only allow.

    Links are left out: following one needs no permission, what it leads to does.
    """
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.path in hidden or entry.is_symlink():
            continue
        if any(is_below(path, entry.path) for path in hidden):
            yield from _readable(entry.path, hidden)
        else:
            yield entry.path
