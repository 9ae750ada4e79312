"""The teacher: repairs a repository step by step, by what the transcript shows and the known fix."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from examples.train_mini.diagnosis import change, diagnosis, smallest_change
from examples.train_mini.environment import Environment
from examples.train_mini.limits import DOCUMENT_TOKENS, MAX_STEPS
from examples.train_mini.mutations import Mutant, mutants
from examples.train_mini.pytest_text import Failure, UnsafeSource, run_tests
from examples.train_mini.repository import Repository
from examples.train_mini.tasks import draw_task

FIRST_COMMAND = "git ls-files; python -m pytest -q --tb=short"
TEST_COMMAND = "python -m pytest -q -x --tb=short"
LONG_FILE = 120
"""Files with more lines are viewed in part."""
ON_THE_LINE = 0.35
"""Share of wrong tries on the line of the bug: with more, a failed try would point at its own line."""
TRIES = (40, 15, 11, 9, 7, 5, 4, 3, 2, 1.5, 1, 0.8, 0.6, 0.4)
"""Weights of 0, 1, 2, ... wrong tries before the fix. A run of 20 steps has room for about 15: a model that
has seen only short runs repeats itself in long ones.
"""
REPEATED = 0.25
"""Share of wrong tries that are made again. A model that fails makes its favourite edit over and over: what
is trained after such repeats is that a try which failed is not the answer.
"""
UNCHANGED = 0.12
"""Share of episodes with an edit that changes nothing, the other way in which a model stands still."""
MOST_REPEATS = 3

_CLOSING_TURNS = 3
"""Turns kept free: a slip of the fix, the fix, the final sentence."""
_FRAME_TOKENS = 1000
"""Tokens kept free: the system prompt, the task, the final sentence."""
_CALL_TOKENS = 40
"""Tokens of the markup of a call and its result."""
_TOKEN_LETTERS = 3.8
"""Letters of a token, on average."""
_NOT_UNDER_TEST = frozenset(
    (
        "approx raises fail parametrize len sorted list set dict tuple str int float sum abs min max repr "
        "range bool isinstance assert not in is round any all print super"
    ).split()
)


@dataclass(frozen=True)
class Call:
    """One tool call: `trained` is False for a call that is wrong on purpose."""

    name: str
    args: Mapping[str, Any]
    result: str
    trained: bool = True


@dataclass(frozen=True)
class Turn:
    """One assistant turn: calls, with what is said before them, or a final text."""

    calls: Sequence[Call] = ()
    content: str = ""


@dataclass
class Episode:
    """A transcript of one repair."""

    repository: Repository
    task: str
    turns: list[Turn] = field(default_factory=list[Turn])
    wrong_tries: int = 0
    repeats: int = 0
    """Wrong tries that were made again, not counted in `wrong_tries`."""
    unchanged: int = 0
    """Edits that change nothing."""
    exact: bool = True


class Unteachable(Exception):
    """The repository does not lend itself to an episode (unstable test output, no place to edit)."""


def edit_arguments(text: str, path: str, line: int, new_line: str) -> dict[str, str]:
    """Return `str_replace` arguments that change one line, with as few lines around it as make it unique.

    Args:
        text: The file now.
        path: Path of the file.
        line: Number of the line, from 1.
        new_line: The line afterwards.
    """
    lines = text.split("\n")
    first = last = line - 1
    old, new = lines[first], new_line
    while not old.strip() or text.count(old) != 1:
        if first > 0:
            first -= 1
            old, new = lines[first] + "\n" + old, lines[first] + "\n" + new
        elif last + 1 < len(lines):
            last += 1
            old, new = old + "\n" + lines[last], new + "\n" + lines[last]
        else:
            break
    return {"command": "str_replace", "path": path, "old_str": old, "new_str": new}


def teach(
    repository: Repository, rng: Random, *, wrong_tries: int | None = None, slips: bool = True
) -> Episode:
    """Return an episode that repairs the repository.

    Args:
        repository: What to repair.
        rng: Source of all choices.
        wrong_tries: Number of wrong tries before the right one; drawn if None.
        slips: Whether failing commands and edits, repeated tries and edits that change nothing may be mixed
            in.

    Raises:
        Unteachable: See there.
    """
    return _Lesson(repository, rng, slips).run(_draw_tries(rng) if wrong_tries is None else wrong_tries)


def _draw_tries(rng: Random) -> int:
    return rng.choices(range(len(TRIES)), TRIES)[0]


class _Lesson:
    def __init__(self, repository: Repository, rng: Random, slips: bool) -> None:
        self.repository = repository
        self.bug = repository.bug
        self.rng = rng
        self.slips = slips
        self.environment = Environment(repository, rng)
        failing = repository.first_run.failures[0]
        task = draw_task(rng, repository.tested, failing.name, self.bug.path, failing.path)
        self.episode = Episode(repository, task)
        self.tried: set[tuple[int, str]] = {(self.bug.line, self.bug.good_line)}
        self.applied: tuple[int, str] | None = None
        """The wrong edit now in the file: (line, text before it)."""
        self.spare = 0
        """Turns kept free for an edit that changes nothing."""
        self.tokens = float(_FRAME_TOKENS)
        """About how long the document is."""

    def run(self, tries: int) -> Episode:
        if self.slips and self.rng.random() < 0.03:
            self._failing_command()
        self._turn(self._call("bash", {"command": FIRST_COMMAND}))
        run = self.environment.last_run
        if run is None or run.exit_code != 1:
            raise Unteachable("the first test run does not fail")
        self._locate(run.failures[0])
        if self.slips and self.rng.random() < UNCHANGED:
            self.spare = 1
        for _ in range(tries):
            if not self._has_room() or not self._wrong_try():
                break
        if self.spare:
            self.spare = 0
            self._unchanged_try()
        self._right_fix()
        run = self.environment.last_run
        if run is None or run.exit_code != 0:
            raise Unteachable("the right line does not make the tests pass")
        name = _qualified_name(self._text(), self.bug.line) or self.bug.function
        self.episode.turns.append(Turn(content=f"Fixed `{name}` in {self.bug.path}; all tests pass."))
        self.episode.exact = self.environment.exact
        return self.episode

    # Turns and calls

    def _call(self, name: str, args: Mapping[str, Any], *, trained: bool = True) -> Call:
        return Call(name, args, self.environment.call(name, args), trained)

    def _turn(self, *calls: Call, content: str = "") -> None:
        self.episode.turns.append(Turn(calls, content))
        self.tokens += _about_tokens(self.episode.turns[-1])

    def _has_room(self) -> bool:
        """Whether another try and what must follow it, all as long as the last turn, fit the limits."""
        turns = self.episode.turns
        return (
            len(turns) + 1 + self.spare + _CLOSING_TURNS <= MAX_STEPS
            and self.tokens + (2 + self.spare) * _about_tokens(turns[-1]) <= DOCUMENT_TOKENS
        )

    def _tests(self) -> Call:
        return self._call("bash", {"command": TEST_COMMAND})

    def _text(self, path: str | None = None) -> str:
        return self.environment.files()[path or self.bug.path]

    def _failing_command(self) -> None:
        """Begin with a command that fails: a folder that is not there, or a misspelt program."""
        project = self.repository.workspace.rpartition("/")[2]
        command = self.rng.choice(
            (
                f"cd {project} && {FIRST_COMMAND.split('; ')[1]}",
                "python -m pytst -q",
                "pytset -q",
                "cd repo && git ls-files",
                "cat main.py",
            )
        )
        if "main.py" in self.repository.files and command == "cat main.py":
            return
        self._turn(self._call("bash", {"command": command}, trained=False))

    # Finding the place

    def _locate(self, failure: Failure) -> None:
        """View files until the one with the bug is on the screen."""
        tests = set(self.repository.test_paths)
        frames = [(path, line) for path, line in failure.frames if path not in tests]
        modules = [
            path
            for path in self.repository.files
            if path.endswith(".py")
            and path not in tests
            and path.rpartition("/")[2] not in ("__init__.py", "conftest.py")
        ]
        viewed: list[str] = []
        if frames:
            viewed.append(frames[-1][0])
        elif len(modules) == 1:
            viewed.append(modules[0])
        else:
            base = re.sub(r"^test_|_test$", "", failure.path.rpartition("/")[2].removesuffix(".py"))
            named = [path for path in modules if path.rpartition("/")[2] == base + ".py"]
            viewed.append(named[0] if len(named) == 1 else self._search(failure, modules))
        name = self._called_name(failure)
        for path in viewed:
            self._view(path, name, frames[-1][1] if frames and path == frames[-1][0] else None)
        if self.bug.path not in viewed:
            self._view(self.bug.path, self.bug.function, None)

    def _called_name(self, failure: Failure) -> str | None:
        """Return the function called in the failing line of the test, as the output shows it."""
        path, line = failure.frames[0]
        text = self.repository.files[path].split("\n")[line - 1]
        for name in re.findall(r"(\w+)\(", text):
            if name not in _NOT_UNDER_TEST and not name.startswith("assert"):
                return name
        return None

    def _search(self, failure: Failure, modules: Sequence[str]) -> str:
        """Search for the definition of what the failing test calls."""
        name = self._called_name(failure)
        if name is None:
            path, line = failure.frames[0]
            args = {"command": "view", "path": path, "view_range": [max(1, line - 6), line + 1]}
            self._turn(self._call("str_replace_editor", args))
            shown = self.repository.files[path].split("\n")[max(0, line - 7) : line + 1]
            calls = [n for text in reversed(shown) for n in re.findall(r"(\w+)\(", text)]
            known = [n for n in calls if n not in _NOT_UNDER_TEST and not n.startswith(("assert", "test"))]
            if not known:
                raise Unteachable("the failing test does not show what it calls")
            name = known[0]
        keyword = "class" if name[:1].isupper() else "def"
        call = self._call("bash", {"command": f'grep -rn "{keyword} {name}" --include=*.py . | sort'})
        self._turn(call)
        hits = [line.split(":")[0].removeprefix("./") for line in call.result.split("\n")]
        hits = [path for path in hits if path in modules]
        if not hits:
            raise Unteachable("the search finds no definition")
        return self.bug.path if self.bug.path in hits else hits[0]

    def _view(self, path: str, name: str | None, line: int | None) -> None:
        """View a file, or the part of a long one around a line or a definition."""
        lines = self._text(path).split("\n")
        if len(lines) <= LONG_FILE:
            self._turn(self._call("str_replace_editor", {"command": "view", "path": path}))
            return
        ranges: list[tuple[int, int]] = []
        if line is not None:
            ranges.append((max(1, line - 30), line + 20))
        elif name is not None:
            ranges.append(self._around(path, name, lines))
        if path == self.bug.path and not any(a <= self.bug.line <= b for a, b in ranges):
            ranges.append(self._around(path, self.bug.function, lines))
        for first, last in ranges:
            args = {"command": "view", "path": path, "view_range": [first, min(last, len(lines) - 1)]}
            self._turn(self._call("str_replace_editor", args))
        if path == self.bug.path and not any(a <= self.bug.line <= b for a, b in ranges):
            raise Unteachable("the bug is too far from the definition")

    def _around(self, path: str, name: str, lines: Sequence[str]) -> tuple[int, int]:
        call = self._call("bash", {"command": f'grep -n "def {name}" {path}'})
        if call.result.startswith("[exit code"):
            call = self._call("bash", {"command": f'grep -n "class {name}" {path}'})
        self._turn(call)
        match = re.match(r"(\d+):", call.result)
        if match is None:
            raise Unteachable("the definition is not found by its name")
        at = int(match[1])
        return max(1, at - 3), min(at + 60, len(lines) - 1)

    # Edits

    def _edit(self, line: int, new: str, *, trained: bool = True) -> Call:
        args = edit_arguments(self._text(), self.bug.path, line, new)
        call = self._call("str_replace_editor", args, trained=trained)
        if not call.result.startswith("Edited"):
            raise Unteachable(f"an edit is refused: {call.result[:60]}")
        return call

    def _undo(self) -> list[Call]:
        """Take back the last wrong edit, so that every try starts from the file as it was found.

        Tries piled on one another drift away from the bug; apart, they exclude one candidate after another.
        """
        if self.applied is None:
            return []
        line, before = self.applied
        self.applied = None
        return [self._edit(line, before)]

    def _wrong_try(self) -> bool:
        mutant = self._choose_wrong()
        if mutant is None:
            return False
        self._make_wrong(mutant)
        self.tried.add((mutant.line + 1, mutant.new_line))
        self.episode.wrong_tries += 1
        for _ in range(self._draw_repeats(REPEATED)):
            if not self._has_room():
                break
            self._make_wrong(mutant)
            self.episode.repeats += 1
        return True

    def _draw_repeats(self, share: float) -> int:
        """Draw how often an edit is made again: not at all but for a share of the draws."""
        return self.rng.randint(1, MOST_REPEATS) if self.slips and self.rng.random() < share else 0

    def _make_wrong(self, mutant: Mutant) -> None:
        line = mutant.line + 1
        calls = self._undo()
        current = self._text().split("\n")[mutant.line]
        calls.append(self._edit(line, mutant.new_line, trained=False))
        calls.append(self._tests())
        self._require_failure()
        self._turn(*calls, content=diagnosis(current, mutant.new_line))
        self.applied = (line, current)

    def _unchanged_try(self) -> None:
        """Announce a change, then make an edit whose new text is the old one, perhaps more than once.

        The line is that of the bug or of another candidate; what is said is the right change, that of a
        candidate, or as empty as the edit.
        """
        calls = self._undo()
        candidates = self._candidates()
        lines = self._text().split("\n")
        here = [m for m in candidates if m.line + 1 == self.bug.line]
        others = [m for m in candidates if m.line + 1 != self.bug.line]
        old, new = lines[self.bug.line - 1], self.bug.good_line
        line = self.bug.line
        if others and self.rng.random() < 0.4:
            chosen = self.rng.choice(others)
            line, old, new = chosen.line + 1, chosen.old_line, chosen.new_line
        elif here and self.rng.random() < 0.4:
            new = self.rng.choice(here).new_line
        part, changed = smallest_change(old, new)
        said = change(part, part if self.rng.random() < 0.3 else changed)
        args = edit_arguments(self._text(), self.bug.path, line, old)
        for _ in range(1 + self._draw_repeats(0.4)):
            if self.episode.unchanged and not self._has_room():
                break
            call = self._call("str_replace_editor", args, trained=False)
            if not call.result.startswith("no_change"):
                raise Unteachable("an edit without a change went through")
            self._turn(*calls, call, self._tests(), content=said)
            self._require_failure()
            calls = []
            self.episode.unchanged += 1

    def _require_failure(self) -> None:
        run = self.environment.last_run
        if run is None or run.exit_code not in (1, 2) or not run.exact:
            raise Unteachable("a wrong try passes or cannot be told exactly")

    def _candidates(self) -> list[Mutant]:
        """Return the untried one-line changes of the definition with the bug, by their lines in the file."""
        start, unit = _unit_at(self.repository.files[self.bug.path], self.bug.line)
        return [
            Mutant(m.family, m.line + start, m.old_line, m.new_line)
            for m in mutants(unit)
            if (m.line + start + 1, m.new_line) not in self.tried
        ]

    def _choose_wrong(self) -> Mutant | None:
        """Draw a plausible wrong change of the buggy function that the tests refuse."""
        files = dict(self.repository.files)
        text = files[self.bug.path]
        options = self._candidates()
        here = [m for m in options if m.line + 1 == self.bug.line]
        others = [m for m in options if m.line + 1 != self.bug.line]
        for _ in range(8):
            pool = here if here and (self.rng.random() < ON_THE_LINE or not others) else others
            if not pool:
                return None
            mutant = self.rng.choice(pool)
            lines = text.split("\n")
            lines[mutant.line] = mutant.new_line
            try:
                run = run_tests(
                    {**files, self.bug.path: "\n".join(lines)}, self.repository.workspace, fail_fast=True
                )
            except UnsafeSource:
                run = None
            if run is not None and run.exit_code == 1 and run.exact and len(run.text) < 2200:
                return mutant
            pool.remove(mutant)
        return None

    def _right_fix(self) -> None:
        line, good = self.bug.line, self.bug.good_line
        calls = self._undo()
        args = edit_arguments(self._text(), self.bug.path, line, good)
        current = self._text().split("\n")[line - 1]
        said = diagnosis(current, good)
        if self.slips:
            slip: dict[str, str] | None = None
            expected = ""
            if args["old_str"] != current and current.strip() and self.rng.random() < 0.3:
                slip, expected = {**args, "old_str": current, "new_str": good}, "not_unique"
            elif self.rng.random() < 0.03:
                slip, expected = {**args, "old_str": _miscopied(args["old_str"], self.rng)}, "not_found"
            if slip is not None:
                failed = self._call("str_replace_editor", slip, trained=False)
                if not failed.result.startswith(expected):
                    raise Unteachable("a slip went through")
                self._turn(*calls, failed, self._tests(), content=said)
                calls = []
        calls.append(self._call("str_replace_editor", args))
        calls.append(self._tests())
        self._turn(*calls, content=said)


def _about_tokens(turn: Turn) -> float:
    texts = [turn.content, *(text for c in turn.calls for text in (*map(str, c.args.values()), c.result))]
    return sum(map(len, texts)) / _TOKEN_LETTERS + _CALL_TOKENS * len(turn.calls)


def _miscopied(text: str, rng: Random) -> str:
    places = [i for i, sign in enumerate(text) if sign.isalnum()]
    at = rng.choice(places)
    return text[:at] + (rng.choice("abcdexyz12") if rng.random() < 0.5 else "") + text[at + 1 :]


def _unit_at(text: str, line: int) -> tuple[int, str]:
    """Return (index of the first line, source) of the top-level definition that holds a line."""
    for node in ast.parse(text).body:
        if node.lineno <= line <= (node.end_lineno or node.lineno):
            lines = text.split("\n")[node.lineno - 1 : node.end_lineno]
            return node.lineno - 1, "\n".join(lines)
    raise Unteachable("the bug stands in no definition")


def _qualified_name(text: str, line: int) -> str | None:
    """Return `function` or `Class.method` around a line."""
    name: str | None = None
    body: Sequence[ast.stmt] = ast.parse(text).body
    for _ in range(2):
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.lineno <= line <= (
                node.end_lineno or 0
            ):
                name = f"{name}.{node.name}" if name else node.name
                body = node.body if isinstance(node, ast.ClassDef) else []
                break
        else:
            break
    return name
