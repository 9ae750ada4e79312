"""Runs tests of in-memory files in this process and prints what `python -m pytest -q --tb=short` prints.

The text equals the real command's byte for byte except for the seconds in the last line, which the caller
draws. `verify_tools` compares both on real repositories.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import os
import random
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any, cast

import pytest
from _pytest.assertion import truncate, util
from _pytest.assertion.rewrite import rewrite_asserts
from _pytest.config import Config, get_config

from examples.train_mini.memory_import import MemoryImporter, unsafe_reason
from examples.train_mini.pytest_collect import (
    TestItem,
    import_paths,
    is_test_file,
    items_of,
    module_name,
    test_files,
)
from examples.train_mini.pytest_report import WIDTH, FailureRenderer, separator, summary_line
from examples.train_mini.time_limit import TimeLimitExceeded, time_limit


class UnsafeSource(Exception):
    """The files hold code that must not run inside this process."""


@dataclass(frozen=True)
class Failure:
    """A failed test: `frames` are (path, line) below the workspace, the test's own frame first."""

    path: str
    name: str
    message: str
    frames: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class TestRun:
    """What a run printed and how it ended.

    Attributes:
        text: The output of the command, with its final newline.
        exit_code: 0 passed, 1 failed, 2 interrupted by collection errors, 5 no tests.
        passed: Number of passed tests.
        failures: Failed tests in order.
        timed_out: The tests used up their time; `text` is empty then.
        exact: False if a real run could print something else (warnings, recursion, addresses of objects).
    """

    __test__ = False

    text: str
    exit_code: int
    passed: int = 0
    failures: Sequence[Failure] = ()
    timed_out: bool = False
    exact: bool = True


def run_tests(
    files: Mapping[str, str],
    workspace: str,
    *,
    fail_fast: bool = False,
    seconds: str = "0.02",
    limit: float = 0.25,
) -> TestRun:
    """Run all tests of `files` as if they lay in `workspace` and pytest ran there.

    Args:
        files: Texts by path relative to the workspace.
        workspace: Absolute path; nothing needs to exist there.
        fail_fast: Whether `-x` is given.
        seconds: Shown as the duration.
        limit: CPU seconds for the whole run.

    Raises:
        UnsafeSource: A file could touch more than memory.
    """
    own = frozenset(part.removesuffix(".py") for path in files for part in path.split("/"))
    for path, text in files.items():
        if path.endswith(".py") and (reason := _unsafe_reason(text, own)) is not None:
            raise UnsafeSource(f"{path} {reason}; it is not run inside this process")
    run = _Run(files, workspace, fail_fast, seconds)
    with warnings.catch_warnings(record=True) as caught, _hooks():
        warnings.simplefilter("default")
        try:
            with time_limit(limit):
                result = run.execute()
        except TimeLimitExceeded:
            return TestRun("", -1, timed_out=True, exact=False)
    if caught or _UNSTABLE.search(result.text):
        return replace(result, exact=False)
    return result


_UNSTABLE = re.compile(
    r"\b0x[0-9a-f]{8,}|<Recursion on \w+ with id="  # addresses of objects
    r"|\b0x[0-9a-f]*\.\.\.|\.\.\.x?[0-9a-f]{2,}>"  # what an abbreviation leaves of one
    r"|RecursionError"  # its depth and message depend on the frames below
    r"|Differing items:\nE +\{'.*\nE +\{'"  # pytest walks a set of the keys
    r"|Extra items in the (?:left|right) set:\nE +'.*\nE +'"
)
"""What a real run may print in another way."""


def draw_seconds(rng: random.Random) -> str:
    """Return a plausible duration of a small test run."""
    return f"{min(2.5, max(0.01, rng.lognormvariate(-3.2, 0.9))):.2f}"


@functools.lru_cache(maxsize=4096)
def _unsafe_reason(text: str, own: frozenset[str]) -> str | None:
    return unsafe_reason(text, own)


@functools.lru_cache(maxsize=1024)
def _compile(path: str, text: str) -> CodeType:
    name = path.rpartition("/")[2]
    if not (is_test_file(path) or name == "conftest.py"):
        return compile(text, path, "exec", dont_inherit=True)
    tree = ast.parse(text, filename=path)
    rewrite_asserts(tree, text.encode(), path, None)
    return compile(tree, path, "exec", dont_inherit=True)


class _Run:
    """One test session."""

    def __init__(self, files: Mapping[str, str], workspace: str, fail_fast: bool, seconds: str) -> None:
        self.files = files
        self.root = workspace
        self.fail_fast = fail_fast
        self.seconds = seconds
        self.renderer = FailureRenderer(workspace, files)
        self.output: list[str] = []

    def execute(self) -> TestRun:
        importer = MemoryImporter(self.root, self.files, _compile)
        with importer.active(import_paths(self.files, self.root)):
            self._import_conftests()
            items: list[TestItem] = []
            errors: list[tuple[str, BaseException]] = []
            for path in test_files(self.files):
                try:
                    items += self._collect(path)
                except TimeLimitExceeded:
                    raise
                except BaseException as error:
                    errors.append((path, error))
                    if self.fail_fast:
                        break
            if errors:
                return self._collection_errors(errors)
            if not items:
                return TestRun(f"\nno tests ran in {self.seconds}s\n", 5)
            return self._run_items(items)

    def _import_conftests(self) -> None:
        for path in sorted(self.files):
            folder, _, name = path.rpartition("/")
            if name == "conftest.py" and (folder == "" or folder.startswith("test")):
                self._import(path)

    def _import(self, path: str) -> Any:
        folder, name = module_name(path, self.files)
        entry = f"{self.root}/{folder}" if folder else self.root
        if entry not in sys.path:
            sys.path.insert(0, entry)
        __import__(name)
        return sys.modules[name]

    def _collect(self, path: str) -> Iterator[TestItem]:
        return items_of(self._import(path), path)

    def _run_items(self, items: Sequence[TestItem]) -> TestRun:
        letters, width = "", 0
        failures: list[tuple[Failure, str]] = []
        details: list[str] = []
        passed = 0
        for i, item in enumerate(items):
            captured = _Captured()
            try:
                with captured:
                    item.run()
                letter = "."
                passed += 1
            except (TimeLimitExceeded, KeyboardInterrupt):
                raise
            except BaseException as error:
                letter = "F"
                lines, message = self.renderer.render(error, item.code)
                details += [separator("_", item.name), *lines, *captured.sections()]
                frames = self.renderer.frames(error, item.code)
                failures.append((Failure(item.path, item.name, message, frames), item.node_id))
            letters += letter
            width += 1
            if (
                i < len(items) - 1
                and width + len(" [100%]") + 1 >= WIDTH
                and not (letter == "F" and self.fail_fast)
            ):
                letters += f" [{(i + 1) * 100 // len(items):3d}%]\n"
                width = 0
            if letter == "F" and self.fail_fast:
                break
        stopped = bool(failures) and self.fail_fast
        output = [letters if stopped else letters + " [100%]".rjust(WIDTH - width - 1)]
        if failures:
            output += [separator("=", "FAILURES"), *details, separator("=", "short test summary info")]
            output += [summary_line("FAILED", node_id, failure.message) for failure, node_id in failures]
            if stopped:
                output.append(separator("!", "stopping after 1 failures"))
        counts = ([f"{len(failures)} failed"] if failures else []) + ([f"{passed} passed"] if passed else [])
        output.append(f"{', '.join(counts)} in {self.seconds}s")
        return TestRun("\n".join(output) + "\n", int(bool(failures)), passed, tuple(f for f, _ in failures))

    def _collection_errors(self, errors: Sequence[tuple[str, BaseException]]) -> TestRun:
        output = ["", separator("=", "ERRORS")]
        summary: list[str] = []
        for path, error in errors:
            output.append(separator("_", f"ERROR collecting {path}"))
            lines, message = self.renderer.render(error, None)
            if isinstance(error, SyntaxError):
                output += [*map(self.renderer.shown, _frames_of_import()), *lines]
                summary.append(summary_line("ERROR", path, None))
            elif isinstance(error, ImportError):
                output += [
                    f"ImportError while importing test module '{self.root}/{path}'.",
                    "Hint: make sure your test modules/packages have valid Python names.",
                    "Traceback:",
                    *map(self.renderer.shown, _frames_of_import()[_IMPORT_MODULE_FRAME]),
                    *lines,
                ]
                summary.append(summary_line("ERROR", path, None))
            else:
                output += lines
                summary.append(summary_line("ERROR", path, message))
        output += [separator("=", "short test summary info"), *summary]
        if self.fail_fast:
            output.append(separator("!", "stopping after 1 failures"))
        noun = "error" if len(errors) == 1 else "errors"
        output.append(separator("!", f"Interrupted: {len(errors)} {noun} during collection"))
        output.append(f"{len(errors)} {noun} in {self.seconds}s")
        return TestRun("\n".join(output) + "\n", 2)


class _Captured:
    """Keeps what a test prints."""

    def __init__(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()

    def __enter__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(contextlib.redirect_stdout(self.out))
        self._stack.enter_context(contextlib.redirect_stderr(self.err))

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def sections(self) -> list[str]:
        lines: list[str] = []
        for name, stream in (("stdout", self.out), ("stderr", self.err)):
            text = stream.getvalue()
            if text:
                lines += [separator("-", f"Captured {name} call"), *text.removesuffix("\n").split("\n")]
        return lines


@functools.cache
def _config() -> Config:
    """A pytest configuration with default settings, for its comparison of values."""
    before = os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        config = get_config(["-q"])
        config.parse(["-q", "-c", os.devnull, "--rootdir", tempfile.gettempdir(), "--assert", "plain"])
    finally:
        if before is None:
            del os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
        else:
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = before
    return config


def _compare(op: str, left: object, right: object) -> str | None:
    config = _config()
    for lines in config.hook.pytest_assertrepr_compare(config=config, op=op, left=left, right=right):
        if lines:
            lines = _truncated(lines, config)
            return "\n~".join(line.replace("\n", "\\n") for line in lines).replace("%", "%%")
    return None


def _truncated(lines: list[str], config: Config) -> list[str]:
    """Cut a long explanation as the installed version of pytest does around its comparison hook."""
    code = cast(Any, truncate)
    if hasattr(code, "materialize_with_truncation"):
        return code.materialize_with_truncation(lines, config)
    return code.truncate_if_required(lines, SimpleNamespace(config=config))


@contextlib.contextmanager
def _hooks() -> Generator[None]:
    """Make rewritten asserts explain comparisons as in a session of pytest outside of CI."""
    config = _config()
    hooks = cast(Any, util)
    saved = hooks._reprcompare, hooks._assertion_pass, hooks._config
    environment = {name: os.environ.pop(name) for name in ("CI", "BUILD_NUMBER") if name in os.environ}
    hooks._reprcompare, hooks._assertion_pass, hooks._config = _compare, None, config
    limit = sys.getrecursionlimit()
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
        hooks._reprcompare, hooks._assertion_pass, hooks._config = saved
        os.environ.update(environment)


_IMPORT_MODULE_FRAME = slice(4, 7)
"""Where the frame of `importlib.import_module` stands in `_frames_of_import`."""


@functools.cache
def _frames_of_import() -> tuple[str, ...]:
    """The lines from `ERROR collecting` to the test file's own frame, as the installed pytest prints them.

    Paths are absolute: seen from a folder this deep, no relative path is shorter.
    """
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base, *"deepfolder")
        folder.mkdir(parents=True)
        Path(folder, "broken_module.py").write_text("def f(:\n")
        Path(folder, "test_broken.py").write_text("import broken_module\n")
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
        environment = {
            k: v
            for k, v in os.environ.items()
            if k not in ("CI", "BUILD_NUMBER") and not k.startswith("PYTEST")
        }
        output = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        ).stdout
    lines = output.split("\n")
    start = next(i for i, line in enumerate(lines) if "ERROR collecting" in line) + 1
    end = next(i for i, line in enumerate(lines) if line.startswith("test_broken.py:"))
    return tuple(lines[start:end])


__all__ = ["Failure", "TestRun", "UnsafeSource", "draw_seconds", "pytest", "run_tests"]
