"""Worlds for evaluation and for collecting training runs, in the environment of the episodes."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher
from random import Random
from typing import Any

from dsv4agent.tools import Foresight
from examples.train_mini.documents import opening_messages
from examples.train_mini.environment import Environment
from examples.train_mini.repository import Repository
from examples.train_mini.splits import evaluation_repository, training_repository
from examples.train_mini.tasks import draw_task
from examples.train_mini.teacher import TEST_COMMAND

TRAINING = "training"
MAX_REPAIRS = 4
"""Edits of one repairing turn; a run that left more damage is not worth learning from."""


class RepositoryWorld:
    """One repository: real editor over memory, simulated shell whose texts equal the real ones."""

    def __init__(self, name: str, task: str, repository: Repository, rng: Random) -> None:
        self.name, self.task, self.repository = name, task, repository
        self.family = repository.bug.family.value
        self._environment = Environment(repository, rng)
        self._bug_shown = False

    def bug_lines(self) -> tuple[str, str]:
        """Return the line with the bug as it was found, and the right line."""
        return self.repository.bug.bad_line, self.repository.bug.good_line

    def opening(self) -> list[dict[str, Any]]:
        """Return the system message and the task."""
        return opening_messages(self.task, self.repository.workspace)

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Run a call; arguments that do not fit the tool's schema are told as such."""
        try:
            result = self._environment.call(name, arguments)
        except (KeyError, TypeError, ValueError) as error:
            return f"invalid_arguments: {error}"
        self._bug_shown |= self.repository.bug.bad_line.strip() in result
        return result

    def foresee(self, name: str, arguments: Mapping[str, Any], planned: dict[str, str]) -> Foresight | None:
        """Return what is known of a call before it runs."""
        try:
            return self._environment.foresee(name, arguments, planned)
        except (KeyError, TypeError, ValueError):
            return None

    def solved(self) -> bool:
        """Whether all tests pass now."""
        return self._environment.solved()

    def tests_untouched(self) -> bool:
        """Whether the test files are as they were."""
        return self._environment.tests_untouched()

    def repair_calls(self) -> list[tuple[str, dict[str, Any]]] | None:
        """Return edits that put back what was changed wrongly, then the fix of the bug, then a test run.

        A fix that already stands is kept. None if nothing is left to do, if the line with the bug was never
        on the screen (nobody could know the fix), if files other than the one with the bug were changed, or
        if the damage is too large.
        """
        bug, files = self.repository.bug, self._environment.files()
        others = {path: text for path, text in self.repository.files.items() if path != bug.path}
        if {
            path: text for path, text in files.items() if path != bug.path
        } != others or bug.path not in files:
            return None
        now, found, good = files[bug.path], self.repository.files[bug.path], self.repository.good_text
        if bug.good_line in now.split("\n")[bug.line - 1 : bug.line]:
            # The fix stands; it must not be taken back with the rest.
            edits = line_edits(now, good)
        elif not self._bug_shown:
            return None
        else:
            edits = [*line_edits(now, found), *line_edits(found, good)]
        if not edits or len(edits) > MAX_REPAIRS:
            return None
        calls: list[tuple[str, dict[str, Any]]] = [
            (
                "str_replace_editor",
                {"command": "str_replace", "path": bug.path, "old_str": old, "new_str": new},
            )
            for old, new in edits
        ]
        return [*calls, ("bash", {"command": TEST_COMMAND})]

    def closing(self) -> str:
        """Return the final sentence."""
        bug = self.repository.bug
        return f"Fixed `{bug.function}` in {bug.path}; all tests pass."


def world(collection: str, index: int) -> RepositoryWorld:
    """Return world `index` of an evaluation set, or of the endless collection `training`."""
    task, repository = task_and_repository(collection, index)
    return RepositoryWorld(f"{collection}-{index}", task, repository, Random(f"world:{collection}:{index}"))


def task_and_repository(collection: str, index: int) -> tuple[str, Repository]:
    """Return the same task text and repository every time."""
    if collection == TRAINING:
        repository = training_repository(index)
    else:
        repository = evaluation_repository(collection, index)
    failing = repository.first_run.failures[0]
    rng = Random(f"task:{collection}:{index}")
    return draw_task(rng, repository.tested, failing.name, repository.bug.path, failing.path), repository


def line_edits(text: str, wanted: str) -> list[tuple[str, str]]:
    """Return (old, new) replacements that turn `text` into `wanted` by turns; each old text occurs once.

    Whole lines are replaced, with as few neighbours as make them unique.
    """
    edits: list[tuple[str, str]] = []
    target = wanted.split("\n")
    while text != wanted:
        lines = text.split("\n")
        matcher = SequenceMatcher(None, lines, target, autojunk=False)
        first, last, start, end = next(op[1:] for op in matcher.get_opcodes() if op[0] != "equal")
        new = target[start:end]
        while not (old := "\n".join(lines[first:last])).strip() or text.count(old) != 1 or not new:
            if first > 0:
                first -= 1
                new = [lines[first], *new]
            elif last < len(lines):
                new = [*new, lines[last]]
                last += 1
            else:
                break
        replacement = "\n".join(new)
        edits.append((old, replacement))
        text = text.replace(old, replacement, 1)
    return edits
