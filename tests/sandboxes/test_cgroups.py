import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsv4agent.sandboxes import ResourceLimits
from dsv4agent.sandboxes.cgroups import ROOT, ControlGroup, delegated

MOUNTS = (ROOT, ROOT / "unified")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A group of version 2, which need not be able to count anything."""
    for mount in MOUNTS:
        made = mount / f"dsv4agent-test-{os.urandom(4).hex()}"
        if (mount / "cgroup.procs").exists():
            try:
                made.mkdir()
            except OSError:
                continue
            yield made
            if made.exists():
                made.rmdir()
            return
    pytest.skip("no control group of version 2 can be made here")


def test_programs_start_inside_and_end_with_the_group(folder: Path) -> None:
    group = ControlGroup(folder)
    with subprocess.Popen(
        [*group.prefix, "sh", "-c", "cat /proc/self/cgroup; sleep 60 & wait"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith("0::"):
            lines.append(process.stdout.readline())
        assert lines[-1].strip().endswith(folder.name)
        for _ in range(100):
            if len((folder / "cgroup.procs").read_text().split()) >= 2:
                break
            time.sleep(0.01)
        if not (folder / "cgroup.kill").exists():
            process.kill()
        group.close()
        assert process.wait(10) == -9
    assert not folder.exists()


def test_a_program_that_cannot_enter_does_not_start(folder: Path) -> None:
    group = ControlGroup(folder)
    group.close()
    done = subprocess.run([*group.prefix, "echo", "ran"], capture_output=True)
    assert done.returncode != 0 and done.stdout == b""


def test_without_counters_no_group_is_left_behind() -> None:
    before = [set(mount.iterdir()) for mount in MOUNTS if mount.exists()]
    group = ControlGroup.make(ResourceLimits(memory_bytes=64 << 20, processes=20))
    assert (group is not None) is delegated()
    if group is not None:
        done = subprocess.run([*group.prefix, "python3", "-c", "x = b'a' * (200 << 20)"], check=False)
        assert done.returncode == -9 and group.killed_for_memory()
        group.close()
    assert [set(mount.iterdir()) for mount in MOUNTS if mount.exists()] == before


def test_version_one_is_no_place_for_a_group(tmp_path: Path) -> None:
    assert ControlGroup.make(ResourceLimits(), root=tmp_path) is None
