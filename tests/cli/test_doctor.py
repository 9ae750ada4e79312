"""The doctor, and the choice of a sandbox, on machines that lack something."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dsv4agent.cli.exits import ExitCode
from dsv4agent.sandboxes.landlock import LEAST_ABI, landlock_abi

ROOT = Path(__file__).parent.parent.parent
DOCTOR = "from dsv4agent.cli.main import run; run()"
CHOICE = """
import anyio, sys
from dsv4agent.sandboxes import Policy, SandboxUnavailable, choose_sandbox
async def main():
    try:
        async with await choose_sandbox(Policy(sys.argv[1])) as sandbox:
            print(sandbox.report.provider)
    except SandboxUnavailable as error:
        print("unavailable:", error)
anyio.run(main)
"""

# A kernel without Landlock: its three calls answer ENOSYS in this process and all below it.
WITHOUT_LANDLOCK = """
import os, struct, sys
from dsv4agent.sandboxes._launcher import _PR_SET_NO_NEW_PRIVS, _libc, install_seccomp
def step(code, value, if_true=0, if_false=0):
    return struct.pack("<HBBI", code, if_true, if_false, value)
program = [step(0x20, 0)]
for number in (444, 445, 446):
    program += [step(0x15, number, 0, 1), step(0x06, 0x00050000 | 38)]
_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
install_seccomp(b"".join([*program, step(0x06, 0x7FFF0000)]))
os.execv(sys.argv[1], sys.argv[1:])
"""
PYTHON = (sys.executable, "-P", "-c")
NO_LANDLOCK = (*PYTHON, WITHOUT_LANDLOCK)
NO_NAMESPACES = (
    "unshare",
    "-Ur",
    "sh",
    "-c",
    'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"',
    "sh",
)


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH with a few programs and none that a sandbox or a browser needs."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("bash", "cat", "git", "sh", "unshare"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return str(folder)


def start(machine: tuple[str, ...], code: str, *arguments: str, path: str | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("DSV4AGENT_CONTAINER_IMAGE", None)
    if path is not None:
        environment["PATH"] = path
    done = subprocess.run(
        [*machine, sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + f"\n{done.returncode}" if arguments[0] == "doctor" else done.stdout


def doctor(machine: tuple[str, ...], path: str | None = None) -> tuple[dict[str, dict[str, Any]], int]:
    *lines, code = start(machine, DOCTOR, "doctor", "--json", path=path).split("\n")
    rows = [json.loads(line) for line in lines if line]
    return {row["name"]: row for row in rows}, int(code)


def require(machine: tuple[str, ...]) -> None:
    if subprocess.run([*machine, shutil.which("true") or "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine cannot play the other one")


def test_every_part_has_a_row_and_what_is_missing_a_remedy(home: Path) -> None:
    rows, code = doctor(())
    assert {
        *("git", "rg", "bwrap", "user namespaces", "landlock", "control groups", "container engine"),
        *("chromium", "sandbox bubblewrap", "sandbox landlock", "sandbox container", "sandbox auto"),
    } <= set(rows)
    for row in rows.values():
        assert row["ok"] or (row["remedy"] and row["detail"])
    assert (code == ExitCode.OK) is all(row["ok"] for row in rows.values() if row["needed"])
    if rows["sandbox landlock"]["ok"]:
        assert "not: repositories" in rows["sandbox landlock"]["detail"]


def test_without_programs_landlock_is_taken(home: Path, workspace: Path, bare_path: str) -> None:
    if landlock_abi() < LEAST_ABI:
        pytest.skip("no Landlock")
    rows, code = doctor((), bare_path)
    assert code == 0
    for name in ("rg", "bwrap", "chromium", "container engine", "sandbox bubblewrap"):
        assert not rows[name]["ok"], name
    assert "apt install bubblewrap" in rows["bwrap"]["remedy"]
    assert "needed for the browser tool" in rows["chromium"]["detail"]
    assert "install the package `bubblewrap`" in rows["sandbox bubblewrap"]["remedy"]
    assert rows["sandbox auto"]["detail"] == "takes landlock"
    assert start((), CHOICE, str(workspace), path=bare_path) == "landlock\n"
    # What Landlock cannot hide is not shown instead.
    (workspace / ".env").write_text("TOKEN=1\n")
    said = start((), CHOICE, str(workspace), path=bare_path)
    assert said.startswith("unavailable:") and "Policy(mask_env_files=False)" in said


def test_without_user_namespaces_bubblewrap_says_why(home: Path, workspace: Path) -> None:
    require(NO_NAMESPACES)
    rows, _ = doctor(NO_NAMESPACES)
    assert "user.max_user_namespaces = 0" in rows["user namespaces"]["detail"]
    assert "sysctl user.max_user_namespaces" in rows["user namespaces"]["remedy"]
    assert not rows["sandbox bubblewrap"]["ok"]
    said = start(NO_NAMESPACES, CHOICE, str(workspace))
    assert said == "landlock\n" if rows["sandbox landlock"]["ok"] else said.startswith("unavailable:")


def test_without_anything_nothing_starts(home: Path, workspace: Path, bare_path: str) -> None:
    require(NO_LANDLOCK)
    rows, code = doctor(NO_LANDLOCK, bare_path)
    assert code == ExitCode.SANDBOX_UNAVAILABLE
    assert rows["landlock"]["detail"].startswith("not offered by this kernel")
    assert "Linux 6.2 or later" in rows["landlock"]["remedy"]
    assert not rows["sandbox auto"]["ok"] and "--sandbox none" in rows["sandbox auto"]["remedy"]
    said = start(NO_LANDLOCK, CHOICE, str(workspace), path=bare_path)
    assert said.startswith("unavailable: no sandbox works on this machine")
    for part in ("install the package `bubblewrap`", "Linux 6.2 or later", "install podman or docker"):
        assert part in said
