"""The part of the self-check about what a policy protects in the workspace, and about resource limits.

Each check returns an empty string, or what got through.
"""

from __future__ import annotations

from pathlib import Path

import anyio

from dsv4agent.sandboxes.masking import system_secrets
from dsv4agent.sandboxes.scene import LIMITS, REPOSITORIES, SECRET, SECRET_FILES, Scene

_PYTHON = 'python3 -I -S -c "import os, time; {}"'


async def repositories_are_read_only(scene: Scene) -> str:
    """Try to change `.git` folders in place, by moving what is above them, and through files."""
    for name in REPOSITORIES:
        top = scene.workspace / name
        before = (top / ".git" / "config").read_bytes()
        for attempt in (
            f"echo x >> {top}/.git/config",
            f"echo x > {top}/.git/hooks/pre-commit",
            f"ln -s /dev/null {top}/.git/new",
            f"rm -rf {top}/.git",
            f"mv {top}/.git {scene.workspace}/taken",
            f"mv {top} {scene.workspace}/moved && echo x >> {scene.workspace}/moved/.git/config",
        ):
            await scene.shell(attempt)
            if not (top / ".git").is_dir() or (top / ".git" / "config").read_bytes() != before:
                return f"`{attempt}` changed the repository"
            if (top / ".git" / "hooks" / "pre-commit").exists() or (top / ".git" / "new").is_symlink():
                return f"`{attempt}` wrote into the repository"
        try:
            await scene.sandbox.write_bytes(f"{top}/.git/config", b"x")
        except OSError:
            pass
        else:
            return f"write_bytes of {top}/.git/config worked"
        done = await scene.sandbox.run(
            ["git", "-C", str(top), "config", "check.value", "1"], timeout=20, repositories=True
        )
        if done.exit_code != 0:
            return f"git cannot work with repositories=True: {done.stderr.decode('utf-8', 'replace')}"
    return ""


async def secret_files_look_empty(scene: Scene) -> str:
    """Try to read masked files in place, through links, and after moving what is above them."""
    for name in SECRET_FILES:
        path = scene.workspace / name
        for attempt in (
            f"cat {path}",
            f"ln {path} {scene.workspace}/hard-secret && cat {scene.workspace}/hard-secret",
            f"ln -s {path} {scene.workspace}/soft-secret && cat {scene.workspace}/soft-secret",
            f"mv {path} {scene.workspace}/moved-secret && cat {scene.workspace}/moved-secret",
            f"cat /proc/self/root{path}",
        ):
            if SECRET.encode() in (await scene.shell(attempt)).stdout:
                return f"`{attempt}` showed it"
        if SECRET.encode() in await scene.sandbox.read_bytes(str(path)):
            return f"read_bytes of {path} showed it"
    await scene.shell(f"mv {scene.workspace}/app {scene.workspace}/app2")
    found = await scene.shell(f"cat {scene.workspace}/.env* {scene.workspace}/*/.env*")
    return "moving the folder above it showed it" if SECRET.encode() in found.stdout else ""


async def system_secrets_stay_hidden(scene: Scene) -> str:
    """Try to read what only root, or a privileged group, may read on this machine."""
    for path in map(Path, system_secrets()[:50]):
        if not path.is_file() or not path.stat().st_size:
            continue
        try:
            if await scene.sandbox.read_bytes(str(path), 64) == path.read_bytes()[:64]:
                return f"{path} was read"
        except OSError:
            continue
    return ""


async def limit_of_memory(scene: Scene) -> str:
    """Take more memory than allowed: in one process, in many, and in files that are in memory."""
    one = _PYTHON.format("x = bytes(1 << 20) * 500; x.count(1); time.sleep(15); print(500)")
    part = _PYTHON.format("x = b'a' * (90 << 20); time.sleep(4); print(90)")
    write = "f = os.memfd_create('x'); [os.write(f, bytes(1 << 20)) for _ in range(500)]"
    file = _PYTHON.format(f"{write}; time.sleep(4); print(500)")
    for attempt in (one, f"for i in 1 2 3 4 5 6 7; do {part} & done; wait", file):
        megabytes = sum(map(int, (await scene.shell(attempt)).stdout.split()))
        if megabytes << 20 > (LIMITS.memory_bytes or 0):
            return f"`{attempt}` took {megabytes} MiB"
    return ""


async def limit_of_processes(scene: Scene) -> str:
    """Start more processes than allowed, and count those that run after a while."""
    most = LIMITS.processes or 0
    script = f"for ((i = 0; i < {most * 2}; i++)); do sleep 10 & done; sleep 2; jobs -r | wc -l"
    counted = (await scene.shell(script)).stdout.split()
    return f"{int(counted[0])} ran" if counted and int(counted[0]) > most else ""


async def limit_of_processor_time(scene: Scene) -> str:
    """Compute for longer than allowed."""
    with anyio.move_on_after(15) as scope:
        done = await scene.shell("exec sh -c 'while :; do :; done'")
        return "" if done.limit is not None or done.exit_code != 0 else "the loop ended by itself"
    assert scope.cancelled_caught
    return "it computed on"


async def limit_of_file_size(scene: Scene) -> str:
    """Write a larger file than allowed."""
    large = scene.workspace / "large"
    done = await scene.shell(f"head -c {(LIMITS.file_bytes or 0) * 2} /dev/zero > {large}")
    if not large.exists():
        return f"nothing was written: {done}"
    size = large.stat().st_size
    large.unlink()
    return f"{size} bytes were written" if size > (LIMITS.file_bytes or 0) else ""


async def limit_of_open_files(scene: Scene) -> str:
    """Open more files than allowed."""
    done = await scene.shell(
        f"python3 -c 'import os\nfor _ in range({LIMITS.open_files}): os.dup(0)' && echo survived"
    )
    return "too many were open" if b"survived" in done.stdout else ""


async def limit_of_disk(scene: Scene) -> str:
    """Fill the disk with many files."""
    size = (LIMITS.disk_bytes or 0) // 8
    fill = f"for i in {{1..16}}; do head -c {size} /dev/zero > {scene.workspace}/fill$i; done"
    done = await scene.shell(f"{fill}; sleep 6; echo survived")
    for path in scene.workspace.glob("fill*"):
        path.unlink()
    return "it was not ended" if b"survived" in done.stdout else ""
