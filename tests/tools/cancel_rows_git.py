"""Cancelling `git`: what it writes is old or new, nothing stays locked, and the next request goes on."""

from __future__ import annotations

from pathlib import Path

from dsv4agent.tools.git import GitTool
from tests.tools.cancellation import Call, Row, Trial
from tests.tools.git_desk import user_git
from tests.tools.shell_desk import Desk

FILES = 40
_SERVER = "_git_server"


async def _new_content(desk: Desk, trial: Trial) -> None:
    """Give all files the trial's content, in a repository that the first trial makes."""
    if trial.number == 0:
        user_git(desk.workspace, "init", "-q", "-b", "main")
    _write(desk.workspace, trial.number)
    if trial.number == 0:
        user_git(desk.workspace, "add", "-A")
        user_git(desk.workspace, "commit", "-q", "-m", "trial 0")
        _write(desk.workspace, -1)


def _write(workspace: Path, number: int) -> None:
    for index in range(FILES):
        path = workspace / f"folder{index % 4}" / f"file{index}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"trial {number}\n" * 50)


async def _commit_was_made_or_not(desk: Desk, trial: Trial) -> None:
    _nothing_is_locked(desk)
    made = user_git(desk.workspace, "log", "-1", "--format=%s").strip() == f"commit {trial.number}"
    assert made or trial.cut
    changed = user_git(desk.workspace, "status", "--porcelain", "--untracked-files=all").splitlines()
    assert len(changed) == (0 if made else FILES), changed[:3]
    assert all(line.startswith(" M ") for line in changed), f"half of the index is new: {changed[:3]}"


async def _checkpoint_was_made_or_not(desk: Desk, trial: Trial) -> None:
    _nothing_is_locked(desk)
    saved = user_git(desk.workspace, "for-each-ref", "--format=%(refname)", "refs/dsv4agent").split()
    for name in saved:
        assert user_git(desk.workspace, "ls-tree", "-r", "--name-only", name).count("\n") == FILES
    if not trial.cut:
        text = user_git(desk.workspace, "show", f"refs/dsv4agent/session/{len(saved)}:folder0/file0")
        assert text.startswith(f"trial {trial.number or -1}\n")


async def _changed_since_a_checkpoint(desk: Desk, trial: Trial) -> None:
    await _new_content(desk, trial)
    desk.last = await desk.text("git", action="checkpoint")
    for index in range(FILES):
        path = desk.workspace / f"folder{index % 4}" / f"file{index}"
        path.unlink() if index % 3 == 0 else path.write_text("changed\n" * 50)
    (desk.workspace / "extra").write_text("extra\n")


async def _files_went_back_or_not(desk: Desk, trial: Trial) -> None:
    _nothing_is_locked(desk)
    old = f"trial {trial.number or -1}\n" * 50
    for index in range(FILES):
        path = desk.workspace / f"folder{index % 4}" / f"file{index}"
        if path.exists():
            assert path.read_text() in {old, "changed\n" * 50}, f"{path} is half of each"
        else:
            assert index % 3 == 0, f"{path} is gone"
    # What was cut off in the middle, the next request ends.
    await desk.text("git", action="checkpoint")


def _nothing_is_locked(desk: Desk) -> None:
    locks = [str(path) for path in (desk.workspace / ".git").rglob("*.lock")]
    assert not locks, f"locks are left: {locks}"
    user_git(desk.workspace, "fsck", "--no-dangling", "--connectivity-only")


def _checkpoint(trial: Trial) -> Call:
    return "git", {"action": "checkpoint"}


GIT_ROWS = (
    Row(
        "git commit",
        lambda: [GitTool()],
        lambda _, trial: ("git", {"action": "commit", "message": f"commit {trial.number}"}),
        longest=0.3,
        before=_new_content,
        after=_commit_was_made_or_not,
        again=_checkpoint,
        works=r"checkpoint \d+",
        stays=_SERVER,
        stays_when_cut=_SERVER,
    ),
    Row(
        "git checkpoint",
        lambda: [GitTool()],
        lambda _, trial: ("git", {"action": "checkpoint"}),
        longest=0.3,
        before=_new_content,
        after=_checkpoint_was_made_or_not,
        again=_checkpoint,
        works=r"checkpoint \d+",
        stays=_SERVER,
        stays_when_cut=_SERVER,
        trials=6,
    ),
    Row(
        "git restore",
        lambda: [GitTool()],
        lambda desk, _: ("git", {"action": "restore", "revision": desk.last.removeprefix("checkpoint ")}),
        longest=0.6,
        before=_changed_since_a_checkpoint,
        after=_files_went_back_or_not,
        again=_checkpoint,
        works=r"checkpoint \d+",
        stays=_SERVER,
        stays_when_cut=_SERVER,
        trials=4,
    ),
)
