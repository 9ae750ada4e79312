"""What a repository is made of: one function or class with everything its tests need."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from examples.train_mini.time_limit import TimeLimitExceeded, time_limit

MAX_EXPRESSION = 84
MAX_EXPECTED = 60


@dataclass(frozen=True)
class Case:
    """One checked fact: after `setup`, `expression` has the value `expected` (a repr), or raises `error`."""

    setup: Sequence[str]
    expression: str
    expected: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Subject:
    """A function or class and how to test it.

    Attributes:
        key: Identity of its kind, on which splits are made.
        name: Name of the function or class that tests call.
        source: Helpers and the definition itself, without imports and without a final newline.
        imports: Import lines that `source` needs.
        propose: Draws (setup statements, expression) of a test; the expected value comes from running the
            source.
        others: Further public names of `source` (helpers).
    """

    key: str
    name: str
    source: str
    imports: Sequence[str]
    propose: Callable[[Random], tuple[Sequence[str], str]]
    others: Sequence[str] = ()

    def renamed(self, source: str, names: Mapping[str, str]) -> Subject:
        """Return the subject with a source in which public names changed."""
        name, before = names.get(self.name, self.name), self.propose
        changes = {old: new for old, new in names.items() if old in (self.name, *self.others)}

        def propose(rng: Random) -> tuple[Sequence[str], str]:
            setup, expression = before(rng)
            return [_with_names(line, changes) for line in setup], _with_names(expression, changes)

        others = [names.get(other, other) for other in self.others]
        return replace(self, name=name, source=source, propose=propose, others=others)


def _with_names(text: str, names: Mapping[str, str]) -> str:
    if not names:
        return text
    pattern = r"(?<![\w.\"'])(" + "|".join(map(re.escape, names)) + r")(?=\()"
    return re.sub(pattern, lambda match: names[match[1]], text)


def literal(value: object) -> str:
    """Return the source text of a value as people write it, with double quotes."""
    text = repr(value)
    if "'" in text and '"' not in text and "\\" not in text:
        return text.replace("'", '"')
    return text


def namespace_of(subject: Subject) -> dict[str, Any] | None:
    """Run the subject's source and return its names, or None if that fails."""
    names: dict[str, Any] = {"__name__": "subject"}
    try:
        with time_limit(0.2):
            exec(compile("\n".join([*subject.imports, subject.source]), "<subject>", "exec"), names)
    except (Exception, TimeLimitExceeded):
        return None
    return names


def draw_cases(subject: Subject, rng: Random, count: int, *, errors: bool = True) -> list[Case]:
    """Draw up to `count` facts that hold for the subject, with as many different values as can be found."""
    names = namespace_of(subject)
    if names is None:
        return []
    cases: list[Case] = []
    spoken: set[tuple[str, ...]] = set()
    values: dict[str, int] = {}
    for _ in range(count * 5):
        setup, expression = subject.propose(rng)
        said = (*setup, expression)
        if said in spoken or max(map(len, said)) > MAX_EXPRESSION:
            continue
        spoken.add(said)
        case = evaluate(names, setup, expression)
        if case is None or (case.error is not None and (not errors or rng.random() < 0.5)):
            continue
        value = case.expected or f"raises {case.error}"
        if values.get(value, 0) >= 1 + count // 3 and rng.random() < 0.8:
            continue
        values[value] = values.get(value, 0) + 1
        cases.append(case)
        if len(cases) == count:
            break
    return cases


def evaluate(names: Mapping[str, Any], setup: Sequence[str], expression: str) -> Case | None:
    """Run one expression; None if it takes too long or its value cannot be written down in a test."""
    space = dict(names)
    try:
        with time_limit(0.02):
            if setup:
                exec("\n".join(setup), space)
            value = eval(expression, space)
            expected = literal(value)
            if len(expected) > MAX_EXPECTED or " at 0x" in expected or "\n" in expected:
                return None
            if not _writable(value):
                return None
        return Case(setup, expression, expected=expected)
    except TimeLimitExceeded:
        return None
    except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError, AttributeError) as error:
        return Case(setup, expression, error=type(error).__name__) if not setup else None
    except Exception:
        return None


def _writable(value: object) -> bool:
    """Tell whether a value's repr is an expression that gives it back, the same in every process."""
    if value is None or isinstance(value, (bool, str, bytes)):
        return type(value) in (type(None), bool, str, bytes)
    if type(value) is int:
        return abs(value) < 10**15
    if type(value) is float:
        return abs(value) < 1e12 and value == value
    if type(value) in (list, tuple):
        return all(_writable(item) for item in value)  # type: ignore[attr-defined]  # pyright: ignore
    if type(value) is dict:
        return all(_writable(k) and _writable(v) for k, v in value.items())  # pyright: ignore
    if type(value) is set:
        return bool(value) and all(type(item) is int for item in value)  # pyright: ignore
    return False


def shape_of(source: str) -> str:
    """Return the normalised syntax of a source, for telling whether two are the same function."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.FunctionDef, ast.ClassDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        ):
            if len(node.body) > 1:
                node.body = node.body[1:]
        if isinstance(node, ast.Name):
            node.id = names.setdefault(node.id, f"v{len(names)}")
        elif isinstance(node, ast.arg):
            node.arg = names.setdefault(node.arg, f"v{len(names)}")
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.name = "f"
            node.returns = None
    return ast.dump(tree)
