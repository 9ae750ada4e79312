"""How often a run makes the same edit again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

STUCK = 3
"""Repeats from which a run counts as standing still."""


class EditHistory:
    """The edits of one run, undos told from tries.

    An edit that turns back what an earlier try changed is an undo: a run that takes its tries back makes the
    same undo again whenever it makes the same try again, so only tries are counted.
    """

    def __init__(self) -> None:
        self._tries: Counter[str] = Counter()
        self._changes: set[tuple[str, str, str]] = set()

    def add(self, arguments: Mapping[str, Any]) -> None:
        """Take in the arguments of the run's next edit."""
        path = str(arguments.get("path"))
        old, new = _changed_lines(str(arguments.get("old_str", "")), str(arguments.get("new_str", "")))
        if old != new and (path, new, old) in self._changes:
            return
        self._changes.add((path, old, new))
        self._tries[json.dumps(dict(arguments), sort_keys=True)] += 1

    @property
    def repeats(self) -> int:
        """How often the most repeated try was made again with the same arguments."""
        return max(self._tries.values(), default=1) - 1


def _changed_lines(old: str, new: str) -> tuple[str, str]:
    """Return two texts without the lines they share at both ends, which only make an edit's place unique."""
    before, after = old.split("\n"), new.split("\n")
    while before and after and before[0] == after[0]:
        del before[0], after[0]
    while before and after and before[-1] == after[-1]:
        del before[-1], after[-1]
    return "\n".join(before), "\n".join(after)
