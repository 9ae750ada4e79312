"""The world of an episode: the real editor over memory, and a shell that speaks like a real one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from random import Random
from typing import Any

from dsv4agent.context import tool_output_tokens
from dsv4agent.encoding import Tokenizer
from dsv4agent.sandboxes.memory import MemorySandbox
from dsv4agent.tools import Captured, Foresight, StrReplaceEditor, ToolContext, fit_output
from examples.train_mini.limits import COMMAND_SECONDS, CONTEXT
from examples.train_mini.pytest_text import TestRun, UnsafeSource, draw_seconds, run_tests
from examples.train_mini.repository import Repository
from examples.train_mini.simulated_shell import SimulatedShell

ASSET = Path(__file__).parents[2] / "dsv4agent" / "assets" / "mini" / "tokenizer.json"
OUTPUT_TOKENS = tool_output_tokens(CONTEXT)
_SPILLED = Path("/home/user/.local/state/dsv4agent/sessions/20261123-101500-5f3a9c/spill/bash-1.txt")
"""Where a real session would keep an output too long to show."""


class Environment:
    """Answers tool calls on one repository.

    Args:
        repository: Where the episode starts; it is not changed.
        rng: Draws what varies between real runs (durations).
    """

    def __init__(self, repository: Repository, rng: Random | None = None) -> None:
        self.repository = repository
        workspace = repository.workspace
        self._rng = rng or Random(repository.workspace)
        self._prefix = workspace + "/"
        self._sandbox = MemorySandbox(
            {self._prefix + path: text.encode() for path, text in repository.files.items()},
            workspace=workspace,
        )
        self._editor = StrReplaceEditor()
        self._count = token_counter()
        self._context = ToolContext(self._sandbox, count_tokens=self._count, max_output_tokens=OUTPUT_TOKENS)
        self._shell = SimulatedShell(
            workspace, self.files, sorted(repository.files), lambda: draw_seconds(self._rng)
        )

    def files(self) -> dict[str, str]:
        """Return the texts now, by path relative to the workspace."""
        start = len(self._prefix)
        return {
            path[start:]: data.decode(errors="replace")
            for path, data in self._sandbox.files.items()
            if path.startswith(self._prefix)
        }

    def call(self, name: str, args: Mapping[str, Any]) -> str:
        """Run one tool call and return the text the model reads."""
        if name == "bash":
            return self.bash(args["command"])
        if name == "str_replace_editor":
            return drive(self._editor(self._context, args)).text
        raise ValueError(f"there is no tool {name!r}; the tools are bash and str_replace_editor")

    def foresee(self, name: str, args: Mapping[str, Any], planned: dict[str, str]) -> Foresight | None:
        """Return what the editor knows of a call before it runs."""
        if name != "str_replace_editor":
            return None
        return drive(self._editor.foresee(self._context, args, planned))

    def bash(self, command: str) -> str:
        """Run a shell command."""
        self._shell.last_run = None
        raw, code = self._shell.run(command)
        if self._shell.last_run is not None and self._shell.last_run.timed_out:
            where = f"the next call starts in a fresh shell in {self._shell.cwd}"
            # An endless loop is told as if the time of the real tool had passed.
            return f"timeout: stopped after {COMMAND_SECONDS} s; {where}"
        text, _ = fit_output(
            Captured(raw),
            exit_code=code,
            budget=OUTPUT_TOKENS,
            count_tokens=self._count,
            save=lambda: _SPILLED,
        )
        return text

    @property
    def last_run(self) -> TestRun | None:
        """The test run of the last shell command, if it ran the tests."""
        return self._shell.last_run

    @property
    def exact(self) -> bool:
        """Whether all texts so far are what the real tools would print."""
        return self._shell.exact

    def solved(self) -> bool:
        """Tell whether the tests pass now and are as they were."""
        if not self.tests_untouched():
            return False
        try:
            return run_tests(self.files(), self.repository.workspace).exit_code == 0
        except UnsafeSource:
            return False

    def tests_untouched(self) -> bool:
        """Tell whether no test file and no file that steers pytest was changed or added."""
        before, now = self.repository.files, self.files()
        tests = set(self.repository.test_paths)
        steering = ("conftest.py", "pyproject.toml", "setup.cfg", "pytest.ini", "tox.ini", "sitecustomize.py")
        watched = tests | {p for p in {*before, *now} if p.rpartition("/")[2] in steering}
        return all(before.get(path) == now.get(path) for path in watched)


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("the tool waited for something; a memory sandbox never makes it wait")


@functools.cache
def token_counter() -> Callable[[str], int]:
    """Return the exact counter of the mini model's tokenizer; before that is trained, a looser one."""
    if not ASSET.exists():
        return lambda text: len(text) // 4
    return Tokenizer.from_file(ASSET).count
