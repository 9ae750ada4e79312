"""An image for tests, made of this machine's own programs, so that nothing has to be fetched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

NAME = "localhost/dsv4agent-test:2"
_PYTHON = "/usr/bin/python3"
_PROGRAMS = ("bash", "cat", "env", "head", "id", "ln", "ls", "mkdir", "mv", "rm", "setsid", "sh", "sleep")
_MORE = (
    "stat",
    "tail",
    "touch",
    "tr",
    "true",
    "truncate",
    "wc",
    "mknod",
    "chmod",
    "git",
    "test",
    "mkfifo",
    "grep",
    "seq",
    "find",
    "sync",
)


@cache
def image() -> str | None:
    """Return the name of an image that runs under the engine here, or None with nothing to say why."""
    engine = shutil.which("podman") or shutil.which("docker")
    if engine is None or not os.path.exists(_PYTHON):
        return None
    if _run(engine, "image", "inspect", NAME).returncode != 0:
        with tempfile.TemporaryDirectory(prefix="dsv4agent-image-") as folder:
            archive = f"{folder}/root.tar"
            if not _pack(archive) or _run(engine, "import", archive, NAME).returncode != 0:
                return None
    return NAME


def _pack(archive: str) -> bool:
    programs = [path for name in (*_PROGRAMS, *_MORE) if (path := shutil.which(name, path="/usr/bin:/bin"))]
    version = subprocess.run(
        [_PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"],
        capture_output=True,
        text=True,
    ).stdout.strip()
    modules = [str(path) for path in Path(version, "lib-dynload").glob("*.so")]
    files = {
        *programs,
        "/bin/sh",
        "/bin/bash",
        _PYTHON,
        version,
        *_libraries([*programs, _PYTHON, *modules]),
        "/etc/passwd",
        "/etc/group",
    }
    excluded = [f"--exclude={name}" for name in ("__pycache__", "test", "idlelib", "dist-packages")]
    # Links are followed, so that a merged /usr does not matter.
    command = [
        "tar",
        "-chf",
        archive,
        "--hard-dereference",
        *excluded,
        "-C",
        "/",
        *(f[1:] for f in sorted(files)),
    ]
    return subprocess.run(command, capture_output=True).returncode == 0


def _libraries(programs: Iterable[str]) -> set[str]:
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True).stdout
    return set(re.findall(r"(?:=> |^\s+)(/\S+)", said, re.MULTILINE))


def _run(*argv: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, capture_output=True, timeout=120, check=False)
