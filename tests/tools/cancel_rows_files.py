"""Cancelling the tools that change and search files."""

from __future__ import annotations

import re
import shutil

from dsv4agent.tools import ApplyPatchTool, GlobTool, GrepTool
from tests.tools.cancellation import Call, Row, Trial
from tests.tools.shell_desk import Desk

FILES = 300


def generation(number: int) -> str:
    """Return a text of a megabyte that tells its number at both ends."""
    return f"begin {number}\n" + "filler line\n" * 90_000 + f"end {number}\n"


def whole(text: str) -> int:
    """Return the number of a generation that was written whole."""
    found = re.search(r"begin (\d+)\n(?:filler line\n)*end (\d+)\s*$", text)
    assert found is not None and found[1] == found[2], f"half-written: {text[:40]!r}...{text[-40:]!r}"
    return int(found[1])


def _generations(number: int) -> dict[str, str]:
    """Return the files before (even) and after (odd) the patch of a trial."""
    names = ("a", "b", "c/d")
    texts = dict.fromkeys(names, f"begin {number}\n" + "filler line\n" * 5000 + f"end {number}\n")
    own = ("gone", "moves") if number % 2 == 0 else ("came", "deep/moved")
    return texts | {name: f"{name} {number // 2}\n" if name == "came" else "text\n" for name in own}


async def _before_the_patch(desk: Desk, trial: Trial) -> None:
    for entry in desk.workspace.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name, text in _generations(2 * trial.number).items():
        path = desk.workspace / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


async def _all_files_are_old_or_all_new(desk: Desk, trial: Trial) -> None:
    paths = [path for path in desk.workspace.rglob("*") if path.is_file()]
    found = {str(path.relative_to(desk.workspace)): path.read_text() for path in paths}
    number = 2 * trial.number
    wanted = [_generations(number), _generations(number + 1)] if trial.cut else [_generations(number + 1)]
    assert found in wanted, f"a part of the patch was applied: {sorted(found)}"


def _patch(trial: Trial) -> Call:
    old, new = 2 * trial.number, 2 * trial.number + 1
    lines = ["*** Begin Patch"]
    for name in ("a", "b", "c/d"):
        lines += [f"*** Update File: {name}", "@@", f"-begin {old}", f"+begin {new}", " filler line"]
        lines += ["@@", " filler line", f"-end {old}", f"+end {new}", "*** End of File"]
    lines += ["*** Delete File: gone", "*** Add File: came", f"+came {trial.number}"]
    lines += ["*** Update File: moves", "*** Move to: deep/moved", "*** End Patch"]
    return "apply_patch", {"patch": "\n".join(lines)}


async def _many_files(desk: Desk, trial: Trial) -> None:
    if trial.number == 0:
        for number in range(FILES):
            path = desk.workspace / f"folder{number % 20}" / f"file{number}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("a line of words\n" * 500 + f"needle {number}\n")


FILE_ROWS = (
    Row(
        "apply_patch",
        lambda: [ApplyPatchTool()],
        lambda _, trial: _patch(trial),
        longest=0.1,
        before=_before_the_patch,
        after=_all_files_are_old_or_all_new,
        again=lambda _: ("apply_patch", {"patch": "*** Begin Patch\n*** Add File: x\n+y\n*** End Patch"}),
        works=r"A x \(\+1\)",
    ),
    Row(
        "grep",
        lambda: [GrepTool()],
        lambda _, trial: ("grep", {"pattern": "needle|w(o|a)r", "context": 2}),
        longest=0.2,
        before=_many_files,
        again=lambda _: ("grep", {"pattern": "needle 17$"}),
        works=".*file17.txt.*needle 17.*",
        trials=6,
    ),
    Row(
        "glob",
        lambda: [GlobTool()],
        lambda _, trial: ("glob", {"pattern": "**/*.txt"}),
        longest=0.15,
        before=_many_files,
        again=lambda _: ("glob", {"pattern": "**/file17.txt"}),
        works=".*folder17/file17.txt.*",
    ),
)
