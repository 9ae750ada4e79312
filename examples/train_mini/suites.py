"""Writes test files in the styles that people use."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from examples.train_mini.subjects import Case, Subject

Say = Callable[[str], str]
"""Turns test code into the form that the file's imports ask for."""

STYLES = ("plain", "single", "variables", "parametrize", "unittest", "grouped")
_WEIGHTS = (34, 16, 12, 14, 13, 11)


@dataclass(frozen=True)
class Tested:
    """A subject with the facts to check about it."""

    subject: Subject
    cases: Sequence[Case]


@dataclass(frozen=True)
class Access:
    """How a test file reaches a module: import line and prefix of calls (`""` or `"cart."`)."""

    module: str
    package: str
    qualified: bool

    def import_line(self, names: Sequence[str]) -> str:
        """Return the import statement for the given public names."""
        dotted = f"{self.package}.{self.module}" if self.package else self.module
        if not self.qualified:
            return f"from {dotted} import {', '.join(sorted(names))}"
        return f"from {self.package} import {self.module}" if self.package else f"import {self.module}"

    def call(self, text: str, names: Sequence[str]) -> str:
        """Return test code with calls of `names` qualified if needed."""
        if not self.qualified:
            return text
        pattern = r"(?<![\w.\"'])(" + "|".join(map(re.escape, names)) + r")(?=\()"
        return re.sub(pattern, lambda match: f"{self.module}.{match[1]}", text)


def draw_style(rng: Random) -> str:
    """Draw one of `STYLES`."""
    return rng.choices(STYLES, _WEIGHTS)[0]


def write_suite(groups: Sequence[tuple[Access, Sequence[Tested]]], style: str, rng: Random) -> str:
    """Return a test file for the subjects of one or more modules."""
    writer = _Writer(style, rng)
    bodies: list[str] = []
    imports: list[str] = []
    for access, tested in groups:
        names = [t.subject.name for t in tested]
        if not names:
            continue
        imports.append(access.import_line(names))
        for one in tested:
            bodies += writer.tests(one, access, names)
    text = "\n\n\n".join(bodies)
    if style == "unittest":
        name = "".join(word.capitalize() for word in groups[0][0].module.split("_"))
        methods = "\n\n".join(_indent(body) for body in bodies)
        text = f"class {name}{rng.choice(('Test', 'Tests', 'TestCase'))}(unittest.TestCase):\n{methods}"
    standard = ["import unittest"] if style == "unittest" else []
    others = ["import pytest"] if "pytest." in text else []
    header = "\n\n".join("\n".join(block) for block in (standard, others, imports) if block)
    tail = (
        '\n\n\nif __name__ == "__main__":\n    unittest.main()'
        if style == "unittest" and rng.random() < 0.3
        else ""
    )
    return f"{header}\n\n\n{text}{tail}\n"


def _indent(text: str) -> str:
    return "\n".join("    " + line if line else line for line in text.split("\n"))


class _Writer:
    """Writes the tests of one file in one style."""

    def __init__(self, style: str, rng: Random) -> None:
        self.style = style
        self.rng = rng
        self.taken: set[str] = set()
        self.messages = rng.random() < 0.05

    def tests(self, tested: Tested, access: Access, names: Sequence[str]) -> list[str]:
        """Return test functions (methods for unittest), or one class."""
        subject, cases = tested.subject, list(tested.cases)
        snake = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", subject.name).lower()
        say: Say = partial(access.call, names=names)
        if (
            self.style == "parametrize"
            and len(cases) > 1
            and (written := self._parametrize(snake, subject, cases, say)) is not None
        ):
            return written
        if self.style == "single":
            groups = [[case] for case in cases]
        else:
            size = self.rng.choice((1, 2, 3, 4, 6)) if self.style != "variables" else self.rng.choice((1, 2))
            groups = [cases[i : i + size] for i in range(0, len(cases), size)]
        bodies = [self._function(self._name(snake, group), group, say) for group in groups]
        if self.style == "grouped":
            name = "Test" + "".join(word.capitalize() for word in snake.split("_"))
            return [f"class {name}:\n" + "\n\n".join(_indent(body) for body in bodies)]
        return bodies

    def _name(self, snake: str, cases: Sequence[Case]) -> str:
        rng = self.rng
        snake = snake.strip("_")
        base = f"test_{snake}" if self.style != "grouped" or rng.random() < 0.5 else "test"
        name = base
        words = _words_for(cases[0])
        for _ in range(30):
            if name not in self.taken and name != "test":
                break
            name = f"{base}_{rng.choice(words)}" if rng.random() < 0.7 else f"{base}_{rng.randint(2, 9)}"
        while name in self.taken:
            name += "_more"
        self.taken.add(name)
        return name

    def _function(self, name: str, cases: Sequence[Case], say: Say) -> str:
        argument = "self" if self.style in ("unittest", "grouped") else ""
        lines: list[str] = []
        for case in cases:
            if lines and (case.setup or self.rng.random() < 0.04):
                lines.append("")
            lines += [say(line) for line in case.setup]
            lines += self._check(case, say(case.expression))
        return f"def {name}({argument}):\n" + "\n".join("    " + line if line else line for line in lines)

    def _check(self, case: Case, expression: str) -> list[str]:
        rng = self.rng
        expected = case.expected
        if self.style == "unittest":
            return _unittest_check(case, expression, rng)
        if expected is None:
            return [f"with pytest.raises({case.error}):", f"    {expression}"]
        result = expression
        lines: list[str] = []
        if (self.style == "variables" or (case.setup and rng.random() < 0.6)) and rng.random() < 0.85:
            variable = rng.choice(("result", "result", "actual", "got", "value", "out"))
            lines.append(f"{variable} = {expression}")
            result = variable
            if rng.random() < 0.3 and self.style == "variables":
                lines.append(f"expected = {expected}")
                expected = "expected"
        if case.expected in ("True", "False") and rng.random() < 0.6:
            return [*lines, f"assert {result}" if case.expected == "True" else f"assert not {result}"]
        if expected in ("True", "False", "None"):
            return [*lines, f"assert {result} is {expected}"]
        if re.fullmatch(r"-?\d+\.\d+", case.expected or "") and rng.random() < 0.6:
            return [*lines, f"assert {result} == pytest.approx({expected})"]
        if self.messages and rng.random() < 0.3 and len(result) + len(expected) < 60:
            return [*lines, f'assert {result} == {expected}, "wrong result"']
        return [*lines, f"assert {result} == {expected}"]

    def _parametrize(self, snake: str, subject: Subject, cases: Sequence[Case], say: Say) -> list[str] | None:
        """Write one parametrized test if all cases are calls with equally many plain arguments."""
        rows: list[tuple[str, str]] = []
        arities: set[int] = set()
        for case in cases:
            match = re.fullmatch(rf"{re.escape(subject.name)}\((.*)\)", case.expression, re.S)
            if match is None or case.setup or case.expected is None:
                return None
            arity = _arity(case.expression)
            arities.add(arity)
            rows.append((match[1], case.expected))
        if len(arities) != 1 or not 0 < (arity := arities.pop()) <= 8:
            return None
        name = self._name(snake, cases)
        wanted = self.rng.choice(("expected", "expected", "want", "result"))
        names = self.rng.choice((["value"], ["arg"], ["given"])) if arity == 1 else list("abcdefgh"[:arity])
        call = say(f"{subject.name}({', '.join(names)})")
        table = "\n".join(f"        ({given}, {value})," for given, value in rows)
        header = ", ".join([*names, wanted])
        return [
            f'@pytest.mark.parametrize(\n    "{header}",\n    [\n{table}\n    ],\n)\n'
            f"def {name}({header}):\n    assert {call} == {wanted}"
        ]


def _arity(expression: str) -> int:
    call = ast.parse(expression, mode="eval").body
    if not isinstance(call, ast.Call) or call.keywords:
        return 0
    return len(call.args)


def _words_for(case: Case) -> list[str]:
    """Return words for the name of a test, by what its first case is about."""
    if case.error is not None:
        return ["raises", "invalid", "error", "bad_input", "rejects"]
    inside = case.expression[case.expression.find("(") :]
    if "[]" in inside or '""' in inside or "{}" in inside:
        return ["empty", "nothing", "empty_input", "edge"]
    if case.expected in ("True", "False"):
        return ["true" if case.expected == "True" else "false", "basic", "yes_no", "check"]
    if "-" in inside:
        return ["negative", "mixed", "signs", "some"]
    return [
        "basic",
        "simple",
        "more",
        "other",
        "typical",
        "example",
        "works",
        "again",
        "small",
        "several",
        "case",
    ]


def _unittest_check(case: Case, expression: str, rng: Random) -> list[str]:
    expected = case.expected
    if expected is None:
        return [f"with self.assertRaises({case.error}):", f"    {expression}"]
    if expected == "True" and rng.random() < 0.7:
        return [f"self.assertTrue({expression})"]
    if expected == "False" and rng.random() < 0.7:
        return [f"self.assertFalse({expression})"]
    if expected == "None":
        return [f"self.assertIsNone({expression})"]
    if re.fullmatch(r"-?\d+\.\d+", expected) and rng.random() < 0.6:
        return [f"self.assertAlmostEqual({expression}, {expected})"]
    if expected.startswith("[") and rng.random() < 0.2:
        return [f"self.assertListEqual({expression}, {expected})"]
    return [f"self.assertEqual({expression}, {expected})"]
