"""Restores that are cut at each system call in turn, and files that change in the very moment of the move."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dsv4agent.tools._git_files import ChangedMeanwhile, Replacement
from dsv4agent.tools._git_history import AGENT, History
from dsv4agent.tools._git_repository import Repository
from dsv4agent.tools._git_restore import Item, Outcome, Restorer
from dsv4agent.tools._git_scan import Entry, blob_id

CALLS = ("rename", "link", "unlink", "symlink", "mkdir", "rmdir", "lstat", "fsync")


class Cut(BaseException):
    """The end of a process, as far as one can be had without ending it."""


class Scissors:
    """Counts calls to the operating system and cuts at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left = -1
        for name in CALLS:
            patch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            if self.left == 0:
                raise Cut
            self.left -= 1
            return call(*args, **kwargs)

        return counting


class CutRestorer(Restorer):
    """Lets the scissors count from the moment the plan is written down."""

    scissors: Scissors
    at = 0

    def _write_journal(self, outcome: Outcome, items: Sequence[Item]) -> str:
        identity = super()._write_journal(outcome, items)
        self.scissors.left = self.at
        return identity


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    for name in os.environ:
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    made = Repository(str(workspace), str(tmp_path / "store/.git"))
    yield made
    made.close()


def test_cut_anywhere_it_is_finished_and_the_users_bytes_stay(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hardest user puts the very bytes back that the restore has just replaced."""
    folder = Path(repository.folder)
    scissors = Scissors(monkeypatch)
    cuts = ended = 0
    put_back = 0
    for at in range(200):
        (folder / "replaced").write_text("then")
        (folder / "created").write_text("then")
        (folder / "link").unlink(missing_ok=True)
        (folder / "link").symlink_to("then")
        scissors.left = -1
        history = History(repository, f"s{at}")
        target, _ = history.save("target", AGENT)
        (folder / "replaced").write_text("now")
        (folder / "created").unlink()
        (folder / "link").unlink()
        (folder / "link").symlink_to("now")
        (folder / "removed").write_text("now")
        restorer = CutRestorer(history)
        restorer.scissors, restorer.at = scissors, at
        try:
            restorer.restore(target.number)
        except Cut:
            cuts += 1
        else:
            break
        finally:
            scissors.left = -1
        expected = {"replaced": "then", "created": "then"}
        if (folder / "replaced").read_text() == "then":
            (folder / "replaced").write_text("now")
            expected["replaced"] = "now"
            put_back += 1
        elif not (folder / "removed").exists():
            (folder / "removed").write_text("now")
            expected["removed"] = "now"
            put_back += 1
        outcome = Restorer(History(repository, f"s{at}")).recover()
        # Only the very last cut comes when nothing is left to do.
        ended += outcome is not None
        names = {path.name for path in folder.iterdir()} - {"link"}
        assert {name: (folder / name).read_text() for name in names} == expected, (at, outcome)
        assert os.readlink(folder / "link") == "then"
        assert Restorer(History(repository, f"s{at}")).recover() is None
        (folder / "removed").unlink(missing_ok=True)
    assert cuts > 15
    assert ended >= cuts - 1
    assert put_back > 10


class Interrupted(Replacement):
    """A step in whose middle the user writes the file."""

    def _write_aside(self, data: bytes, permissions: int) -> None:
        super()._write_aside(data, permissions)
        Path(os.fsdecode(self.root), os.fsdecode(self.path)).write_bytes(b"the user's")


def entry(data: bytes) -> Entry:
    return Entry("100644", blob_id(data, "sha1"))


def step(
    root: Path, now: bytes | None, then: bytes | None, kind: type[Replacement] = Replacement
) -> Replacement:
    def nothing() -> None:
        pass

    old, new = (None if data is None else entry(data) for data in (now, then))
    place = b"file", old, new, "plan", 0
    return kind(os.fsencode(root), "sha1", *place, begins=nothing, resets=nothing, done=nothing)


def test_a_new_file_that_the_user_deleted_stays_deleted(tmp_path: Path) -> None:
    """A step that began and has nothing aside was done; where something lies aside, it was not."""
    assert step(tmp_path, None, b"then").settle(began=True)
    assert not step(tmp_path, None, b"then").settle(began=False)
    aside = next(iter(contents_of_a_cut_step(tmp_path)))
    assert not step(tmp_path, None, b"then").settle(began=True)
    assert not aside.exists()


def contents_of_a_cut_step(root: Path) -> list[Path]:
    """Leave what a step leaves that was cut before its file got its name."""

    class Cut(Exception):
        pass

    def cut() -> None:
        raise Cut

    with pytest.raises(Cut):
        dataclasses.replace(step(root, None, b"then"), begins=cut).place(b"then", 0o644)
    return list(root.iterdir())


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def test_a_write_in_the_moment_of_the_move_wins(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"now")
    with pytest.raises(ChangedMeanwhile):
        step(tmp_path, b"now", b"then", Interrupted).place(b"then", 0o644)
    assert contents(tmp_path) == {"file": b"the user's"}
    (tmp_path / "file").unlink()
    with pytest.raises(ChangedMeanwhile):
        step(tmp_path, None, b"then", Interrupted).place(b"then", 0o644)
    assert contents(tmp_path) == {"file": b"the user's"}


def test_other_bytes_than_expected_are_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"the user's")
    for one in (step(tmp_path, b"now", b"then"), step(tmp_path, None, b"then")):
        with pytest.raises(ChangedMeanwhile):
            one.place(b"then", 0o644)
    with pytest.raises(ChangedMeanwhile):
        step(tmp_path, b"now", None).remove()
    with pytest.raises(OSError, match="other bytes than were saved"):
        step(tmp_path, b"the user's", b"then").place(b"spoiled", 0o644)
    assert contents(tmp_path) == {"file": b"the user's"}


ASIDE, PART = ".dsv4agent-plan-0.aside", ".dsv4agent-plan-0.part"


@pytest.mark.parametrize(
    ("then", "found", "settled", "done"),
    [
        (b"then", {"file": b"now", PART: b"th"}, {"file": b"now"}, False),
        (b"then", {"file": b"now", ASIDE: b"then"}, {"file": b"now"}, False),
        (b"then", {"file": b"then", ASIDE: b"now"}, {"file": b"then"}, True),
        (b"then", {"file": b"then", ASIDE: b"user"}, {"file": b"user"}, False),
        (b"then", {ASIDE: b"user"}, {"file": b"user"}, False),
        (b"then", {"file": b"user 2", ASIDE: b"user"}, {"file": b"user 2", "file.kept-plan": b"user"}, False),
        (None, {ASIDE: b"now"}, {}, True),
        (None, {ASIDE: b"user"}, {"file": b"user"}, False),
        (None, {"file": b"user", ASIDE: b"now"}, {"file": b"user"}, True),
    ],
)
def test_what_a_cut_step_left_is_settled(
    tmp_path: Path, then: bytes | None, found: dict[str, bytes], settled: dict[str, bytes], done: bool
) -> None:
    for name, data in found.items():
        (tmp_path / name).write_bytes(data)
    assert step(tmp_path, b"now", then).settle() is done
    assert contents(tmp_path) == settled
