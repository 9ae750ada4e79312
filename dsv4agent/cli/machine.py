"""What this machine offers to sandboxes and tools, tried and not guessed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dsv4agent.sandboxes.cgroups import delegated
from dsv4agent.sandboxes.container import IMAGE_VARIABLE, find_engine
from dsv4agent.sandboxes.landlock import LEAST_ABI, LandlockSandbox, landlock_abi

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
_CLONE_NEWUSER = 0x10000000
_USER_NAMESPACE_SETTINGS = {
    "user.max_user_namespaces": "0",
    "kernel.unprivileged_userns_clone": "0",
    "kernel.apparmor_restrict_unprivileged_userns": "1",
}
"""Settings with the value that keeps an ordinary user from making a namespace."""
_PATIENCE = 20


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: What was looked at.
        ok: Whether it is there and works.
        detail: What was found, or what its absence means.
        needed: Whether the command cannot do without.
        remedy: How to get it.
    """

    name: str
    ok: bool
    detail: str
    needed: bool = False
    remedy: str = ""


def examine_machine() -> list[Finding]:
    """Look at everything that sandboxes and the browser are made of, besides single programs."""
    return [_user_namespaces(), _landlock(), _control_groups(), _container_engine(), _chromium()]


def _user_namespaces() -> Finding:
    name = "user namespaces"
    attempt = f"import ctypes,sys;sys.exit(ctypes.CDLL(None).unshare({_CLONE_NEWUSER}) != 0)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", attempt], capture_output=True, check=False)
    if done.returncode == 0:
        return Finding(name, True, "a process of this user can make one")
    blocking = [
        f"{setting} = {value}"
        for setting, value in _USER_NAMESPACE_SETTINGS.items()
        if _setting(setting) == value
    ]
    reason = f" ({', '.join(blocking)})" if blocking else ""
    return Finding(
        name,
        False,
        f"none can be made{reason}; without them bubblewrap does not work",
        remedy="as root: sysctl user.max_user_namespaces=15000, and where it exists "
        "kernel.apparmor_restrict_unprivileged_userns=0; inside a container, start that with them allowed",
    )


def _landlock() -> Finding:
    abi = landlock_abi()
    if abi >= LEAST_ABI:
        return Finding("landlock", True, f"version {abi}")
    found = f"version {abi}, {LEAST_ABI} is needed" if abi else "not offered by this kernel"
    detail = f"{found}; without it there is no sandbox where bubblewrap does not work"
    return Finding("landlock", False, detail, remedy=LandlockSandbox.remedy())


def _control_groups() -> Finding:
    if delegated():
        return Finding("control groups", True, "version 2, delegated: the kernel keeps memory and processes")
    version = "version 2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "no version 2"
    return Finding(
        "control groups",
        False,
        f"{version} that this process may divide; memory and processes are watched instead, several times a "
        "second",
        remedy="run in a delegated group: systemd-run --user --scope -p Delegate=yes dsv4agent ...",
    )


def _container_engine() -> Finding:
    name, engine = "container engine", find_engine()
    image = os.environ.get(IMAGE_VARIABLE)
    if engine is None:
        return Finding(
            name,
            False,
            "neither podman nor docker was found; needed for the third choice of sandbox",
            remedy="apt install podman (or your system's like)",
        )
    try:
        subprocess.run([engine, "info"], capture_output=True, timeout=_PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        remedy = "start the engine's service, or let this user reach it"
        return Finding(name, False, f"{engine} does not run: {error}", remedy=remedy)
    if not image:
        remedy = f"set {IMAGE_VARIABLE} to an image with python3 that the engine has"
        return Finding(name, False, f"{engine} runs, but {IMAGE_VARIABLE} names no image", remedy=remedy)
    return Finding(name, True, f"{engine}, image {image}")


def _chromium() -> Finding:
    path = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if path is not None:
        return Finding("chromium", True, path)
    remedy = "apt install chromium (or your system's like)"
    return Finding("chromium", False, "not found; needed for the browser tool", remedy=remedy)


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return ""
