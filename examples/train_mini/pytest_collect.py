"""Finds the tests of in-memory files in pytest's order and with pytest's names."""

from __future__ import annotations

import inspect
import os
import tomllib
import unittest
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any, cast

from _pytest.compat import ascii_escaped


@dataclass(frozen=True)
class TestItem:
    """One test: `name` as in headlines (`TestX.test_y[1]`), its function's code, and a call that runs it."""

    __test__ = False

    path: str
    name: str
    code: CodeType
    run: Callable[[], object]

    @property
    def node_id(self) -> str:
        """The name in the short summary."""
        return (
            self.path + "::" + self.name.replace(".", "::", 1)
            if "." in self.name.split("[")[0]
            else f"{self.path}::{self.name}"
        )


def is_test_file(path: str) -> bool:
    """Tell whether pytest collects the file by its name."""
    name = path.rpartition("/")[2]
    return name.endswith("_test.py") or (name.startswith("test_") and name.endswith(".py"))


def test_files(files: Mapping[str, str]) -> list[str]:
    """Return the paths of test files in the order of collection."""
    return sorted((path for path in files if is_test_file(path)), key=lambda path: path.split("/"))


test_files.__test__ = False  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]


def import_paths(files: Mapping[str, str], root: str) -> list[str]:
    """Return what `python -m pytest` puts in front of `sys.path` before any test file is imported."""
    settings = files.get("pyproject.toml")
    options: dict[str, Any] = {}
    if settings is not None:
        try:
            options = tomllib.loads(settings).get("tool", {}).get("pytest", {}).get("ini_options", {})
        except tomllib.TOMLDecodeError:
            options = {}
    given = options.get("pythonpath", [])
    entries: list[str] = given.split() if isinstance(given, str) else list(given)
    return [*(os.path.normpath(f"{root}/{entry}") for entry in entries), root]


def module_name(path: str, files: Mapping[str, str]) -> tuple[str, str]:
    """Return (folder to put on `sys.path`, dotted name) of a test file, relative to the root."""
    folder, _, name = path.rpartition("/")
    parts = [name.removesuffix(".py")]
    while folder and f"{folder}/__init__.py" in files:
        folder, _, package = folder.rpartition("/")
        parts.insert(0, package)
    return folder, ".".join(parts)


def items_of(module: ModuleType, path: str) -> Iterator[TestItem]:
    """Yield the tests of an imported test module in the order of their definition."""
    for name, value in list(vars(module).items()):
        if isinstance(value, type):
            if issubclass(value, unittest.TestCase):
                yield from _items_of_case(value, path)
            elif name.startswith("Test"):
                yield from _items_of_class(cast("type[object]", value), path)
        elif name.startswith("test") and inspect.isfunction(value):
            yield from _items_of_function(value, name, path, lambda f: f)


def _items_of_function(
    function: Callable[..., object],
    name: str,
    path: str,
    bind: Callable[[Callable[..., object]], Callable[..., object]],
) -> Iterator[TestItem]:
    code = cast(CodeType, cast(Any, function).__code__)
    marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
    if not marks:
        yield TestItem(path, name, code, lambda: bind(function)())
        return
    names = marks[0].args[0]
    argument_names: list[str] = (
        [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    )
    rows: list[Sequence[object]] = [
        tuple(row) if len(argument_names) > 1 else (row,) for row in cast(Sequence[Any], marks[0].args[1])
    ]
    for row, label in zip(rows, _labels(argument_names, rows), strict=True):
        arguments = dict(zip(argument_names, row, strict=True))
        yield TestItem(path, f"{name}[{label}]", code, lambda a=arguments: bind(function)(**a))


def _items_of_class(cls: type[object], path: str) -> Iterator[TestItem]:
    for name, value in list(vars(cls).items()):
        if name.startswith("test") and inspect.isfunction(value):
            yield from _items_of_function(value, f"{cls.__name__}.{name}", path, lambda f: f.__get__(cls()))


def _items_of_case(cls: type[unittest.TestCase], path: str) -> Iterator[TestItem]:
    for name in unittest.TestLoader().getTestCaseNames(cls):
        function = getattr(cls, name)

        def run(name: str = name) -> None:
            case: Any = cls(name)
            case.setUp()
            getattr(case, name)()
            case.tearDown()

        yield TestItem(path, f"{cls.__name__}.{name}", function.__code__, run)


def _labels(names: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the ids of parameter sets, made unique as pytest does."""
    labels = [
        "-".join(_label(v, n, i) for n, v in zip(names, row, strict=True)) for i, row in enumerate(rows)
    ]
    counts = Counter(labels)
    taken = set(labels)
    next_number: defaultdict[str, int] = defaultdict(int)
    for i, label in enumerate(labels):
        if counts[label] > 1:
            joint = "_" if label and label[-1].isdigit() else ""
            while f"{label}{joint}{next_number[label]}" in taken:
                next_number[label] += 1
            labels[i] = f"{label}{joint}{next_number[label]}"
            next_number[label] += 1
    return labels


def _label(value: object, name: str, index: int) -> str:
    if isinstance(value, (str, bytes)):
        return ascii_escaped(value)
    if value is None or isinstance(value, (bool, int, float, complex)):
        return str(value)
    return f"{name}{index}"
