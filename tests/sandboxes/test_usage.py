"""The gauge of a disk that others use too."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsv4agent.sandboxes.usage import DiskGauge

MIB = 1 << 20
LIMIT = 8 * MIB


def write(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        os.fsync(file)


def noticed(gauge: DiskGauge, within: float) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if gauge.exceeded(lambda: 0):
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def disk() -> Iterator[Path]:
    # On a disk and not in memory, where the folders for tests may be.
    with tempfile.TemporaryDirectory(prefix="dsv4agent-", dir="/var/tmp") as folder:
        (Path(folder) / "inside").mkdir()
        yield Path(folder)


def test_what_others_write_is_not_held_against_it_and_does_not_blind_it(disk: Path) -> None:
    gauge = DiskGauge([str(disk / "inside")], LIMIT)
    write(disk / "outside", 4 * LIMIT)
    assert not noticed(gauge, 0.5)
    write(disk / "inside" / "file", 2 * LIMIT)
    assert noticed(gauge, 2)


def test_what_others_free_hides_nothing_for_long(disk: Path) -> None:
    write(disk / "outside", 4 * LIMIT)
    gauge = DiskGauge([str(disk / "inside")], LIMIT)
    (disk / "outside").unlink()
    write(disk / "inside" / "file", 2 * LIMIT)
    assert noticed(gauge, 4)


def test_what_was_there_is_forgiven_once(disk: Path) -> None:
    gauge = DiskGauge([str(disk / "inside")], LIMIT)
    write(disk / "inside" / "file", 2 * LIMIT)
    assert noticed(gauge, 2)
    gauge.forgive()
    assert not noticed(gauge, 0.5)
    write(disk / "inside" / "more", LIMIT)
    assert noticed(gauge, 2)
