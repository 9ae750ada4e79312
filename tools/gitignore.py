"""Walks folders without what `.gitignore` files exclude.

Runs inside the sandbox, on the standard library alone.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from dsv4agent.tools.globbing import PatternError, translate

_REPOSITORIES = frozenset({".git", ".hg", ".svn", ".jj"})
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    whole_path: bool
    folders_only: bool
    excludes: bool


@dataclass(frozen=True)
class IgnoreRules:
    """The rules of one folder's `.gitignore`, on top of those of the folders above."""

    folder: str
    rules: tuple[_Rule, ...]
    above: IgnoreRules | None

    def excludes(self, path: str, *, is_folder: bool) -> bool:
        """Tell whether the last rule that matches a path, the deepest folder's first, excludes it."""
        level: IgnoreRules | None = self
        while level is not None:
            relative = path[len(level.folder.rstrip("/")) + 1 :]
            name = os.path.basename(path)
            for rule in reversed(level.rules):
                if rule.folders_only and not is_folder:
                    continue
                if rule.pattern.fullmatch(relative if rule.whole_path else name):
                    return rule.excludes
            level = level.above
        return False


def files_below(root: str, top: str) -> Iterator[str]:
    """Yield the absolute paths of the regular files below a folder, in a fixed order.

    Links are not followed, the insides of repositories (`.git`) are left out, and folders that cannot be read
    are passed over. Rules count from `top` on, if the root lies in it; a root that they exclude was
    asked for all the same, and is walked by its own rules alone.
    """
    pending: list[tuple[str, IgnoreRules | None]] = [(root, _rules_above(root, top))]
    while pending:
        path, rules = pending.pop()
        if rules is None:  # A file, whose turn in the order has come.
            yield path
            continue
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: os.fsencode(entry.name), reverse=True)
        except OSError:
            continue
        rules = _with_rules_of(path, rules)
        for entry in found:
            if entry.name in _REPOSITORIES:
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            if not is_folder and not entry.is_file(follow_symlinks=False):
                continue
            if not rules.excludes(entry.path, is_folder=is_folder):
                pending.append((entry.path, rules if is_folder else None))


def _rules_above(root: str, top: str) -> IgnoreRules:
    none = IgnoreRules(root, (), None)
    if not root.startswith(os.path.join(top, "")):
        return none
    rules = IgnoreRules(top, (), None)
    folder = top
    for part in root[len(os.path.join(top, "")) :].split("/"):
        rules = _with_rules_of(folder, rules)
        folder = os.path.join(folder, part)
        if rules.excludes(folder, is_folder=True):
            return none
    return rules


def _with_rules_of(folder: str, above: IgnoreRules) -> IgnoreRules:
    rules = tuple(_read_rules(os.path.join(folder, ".gitignore")))
    return IgnoreRules(folder, rules, above) if rules else above


def _read_rules(path: str) -> Iterator[_Rule]:
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return
        with open(path, "rb") as file:
            text = os.fsdecode(file.read(_MOST_BYTES))
    except OSError:
        return
    for line in text.removeprefix("\ufeff").split("\n"):
        rule = _rule(line.removesuffix("\r"))
        if rule is not None:
            yield rule


def _rule(line: str) -> _Rule | None:
    line = re.sub(r"(?<!\\) +$", "", line)
    if not line or line.startswith("#"):
        return None
    excludes = not line.startswith("!")
    pattern = line if excludes else line[1:]
    folders_only = pattern.endswith("/")
    if folders_only:
        pattern = pattern[:-1]
    whole_path = "/" in pattern
    try:
        expression = translate(pattern.removeprefix("/"), braces=False)
    except PatternError:
        return None  # git matches nothing with it either.
    return _Rule(re.compile(expression, re.DOTALL), whole_path, folders_only, excludes) if pattern else None
