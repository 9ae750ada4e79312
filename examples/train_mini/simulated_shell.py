"""Answers the shell commands of the repair policy, and simple ones besides, over files in memory.

It speaks for bash, git, grep and pytest in a small git repository. `verify_tools` compares it with the real
programs.
"""

from __future__ import annotations

import posixpath
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from examples.train_mini.pytest_text import TestRun, UnsafeSource, run_tests

Files = Callable[[], Mapping[str, str]]


@dataclass
class SimulatedShell:
    """A shell in `workspace`.

    Attributes:
        workspace: Absolute folder of the repository; the first working directory.
        files: Returns the texts now, by path relative to the workspace.
        tracked: Paths that git tracks.
        seconds: Returns the duration that the next test run prints.
        last_run: The last test run, for callers that ask whether the suite is green.
    """

    workspace: str
    files: Files
    tracked: Sequence[str]
    seconds: Callable[[], str]
    cwd: str = ""
    last_run: TestRun | None = None
    exact: bool = True
    _runs: dict[object, TestRun] = field(default_factory=dict[object, TestRun])

    def run(self, command: str) -> tuple[bytes, int]:
        """Run a command line; return (output, exit code)."""
        self.cwd = self.cwd or self.workspace
        output: list[str] = []
        code = 0
        for line in command.strip().split("\n"):
            text, code = self._line(line)
            output.append(text)
        return "".join(output).encode(), code

    def _line(self, line: str) -> tuple[str, int]:
        try:
            lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>()")
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:
            return "bash: -c: line 1: unexpected EOF while looking for matching quote\n", 2
        output, code, join = "", 0, ";"
        for stages, joined in _pipelines(words):
            if stages and (join == ";" or (join == "&&") == (code == 0)):
                text, code = self._pipeline(stages)
                output += text
            join = joined
        return output, code

    def _pipeline(self, stages: Sequence[Sequence[str]]) -> tuple[str, int]:
        text, code, shown = "", 0, ""
        for stage in stages:
            words = [word for word in stage if word not in ("2>&1",)]
            if not words:
                continue
            text, code, errors = self._command(words, text)
            shown += errors
        return shown + text, code

    def _command(self, words: Sequence[str], given: str) -> tuple[str, int, str]:
        """Return (standard output, exit code, standard error)."""
        name, rest = words[0], list(words[1:])
        handlers: dict[str, Callable[[list[str], str], tuple[str, int, str]]] = {
            "cd": self._cd,
            "pwd": lambda a, g: (self.cwd + "\n", 0, ""),
            "echo": lambda a, g: (" ".join(a) + "\n", 0, ""),
            "true": lambda a, g: ("", 0, ""),
            "ls": self._ls,
            "cat": self._cat,
            "head": lambda a, g: self._ends(a, g, head=True),
            "tail": lambda a, g: self._ends(a, g, head=False),
            "sed": self._sed,
            "sort": lambda a, g: ("".join(sorted(g.splitlines(keepends=True), key=str.encode)), 0, ""),
            "wc": lambda a, g: (f"{g.count(chr(10))}\n", 0, ""),
            "grep": self._grep,
            "git": self._git,
            "python": self._python,
            "python3": self._python,
            "pytest": self._pytest,
        }
        handler = handlers.get(name)
        if handler is None:
            return "", 127, f"bash: line 1: {name}: command not found\n"
        return handler(rest, given)

    # Programs

    def _cd(self, arguments: list[str], given: str) -> tuple[str, int, str]:
        target = posixpath.normpath(posixpath.join(self.cwd, arguments[0] if arguments else self.workspace))
        if target != self.workspace and not self._is_folder(target):
            return "", 1, f"bash: line 1: cd: {arguments[0]}: No such file or directory\n"
        self.cwd = target
        return "", 0, ""

    def _python(self, arguments: list[str], given: str) -> tuple[str, int, str]:
        if arguments[:2] == ["-m", "pytest"]:
            return self._pytest(arguments[2:], given)
        if arguments[:1] == ["-m"] and len(arguments) > 1:
            return "", 1, f"{posixpath.dirname(sys.executable)}/python: No module named {arguments[1]}\n"
        if arguments[:1] == ["--version"]:
            return f"Python {sys.version.split()[0]}\n", 0, ""
        return "", 1, ""

    def _pytest(self, arguments: list[str], given: str) -> tuple[str, int, str]:
        files = self.files()
        wanted = [self._relative(a.split("::")[0]) for a in arguments if not a.startswith("-")]
        if wanted:
            for given_path in wanted:
                if given_path not in files and not any(path.startswith(given_path + "/") for path in files):
                    return "", 4, f"ERROR: file or directory not found: {given_path}\n\n"
            files = {p: t for p, t in files.items() if _kept(p, wanted)}
        fail_fast = any(a == "-x" or re.fullmatch(r"-[qv]*x[qv]*", a) for a in arguments)
        try:
            run = run_tests(files, self.workspace, fail_fast=fail_fast, seconds=self.seconds())
        except UnsafeSource:
            # The process that would run such code is ended, as a sandbox with narrow limits would do.
            run = TestRun("Killed\n", 137, exact=False)
        self.last_run = run
        self.exact = self.exact and run.exact
        return run.text, run.exit_code, ""

    def _git(self, arguments: list[str], given: str) -> tuple[str, int, str]:
        if arguments[:1] == ["ls-files"]:
            return "".join(path + "\n" for path in sorted(self.tracked, key=str.encode)), 0, ""
        if arguments[:1] == ["status"]:
            self.exact = False
            return "", 0, ""
        self.exact = False
        return "", 1, f"git: '{arguments[0] if arguments else ''}' is not a git command. See 'git --help'.\n"

    def _grep(self, arguments: list[str], given: str) -> tuple[str, int, str]:
        flags = "".join(a[1:] for a in arguments if re.fullmatch(r"-[a-zA-Z]+", a))
        include = next((a.split("=", 1)[1] for a in arguments if a.startswith("--include=")), "*")
        plain = [a for a in arguments if not a.startswith("-")]
        if not plain:
            return (
                "",
                2,
                "Usage: grep [OPTION]... PATTERNS [FILE]...\nTry 'grep --help' for more information.\n",
            )
        try:
            pattern = re.compile(_basic_pattern(plain[0], extended="E" in flags), re.I if "i" in flags else 0)
        except re.error:
            return "", 2, "grep: Unmatched [, [^, [:, [., or [=\n"
        files, output = self.files(), list[str]()
        recursive = "r" in flags
        suffix = include.lstrip("*")
        missing = ""
        for place in plain[1:] or (["."] if recursive else []):
            relative = self._relative(place)
            named = [relative] if relative in files else []
            if recursive and not named:
                prefix = "" if relative == "." else relative + "/"
                named = [p for p in sorted(files) if p.startswith(prefix) and p.endswith(suffix)]
            if not named:
                if recursive and (relative == "." or self._is_folder(f"{self.workspace}/{relative}")):
                    continue
                missing += f"grep: {place}: No such file or directory\n"
            for path in named:
                shown = (
                    path
                    if place != "." and path == relative
                    else posixpath.join(place, path[len(relative) + 1 :] if relative != "." else path)
                )
                with_name = recursive or len(plain) > 2
                for number, text in enumerate(files[path].split("\n")[:-1], 1):
                    if pattern.search(text):
                        output.append(
                            (f"{shown}:" if with_name else "")
                            + (f"{number}:" if "n" in flags else "")
                            + text
                            + "\n"
                        )
        return "".join(output), 2 if missing else int(not output), missing

    def _ls(self, arguments: list[str], given: str) -> tuple[str, int, str]:
        place = next((a for a in arguments if not a.startswith("-")), ".")
        relative = self._relative(place)
        files = self.files()
        if relative in files:
            return place + "\n", 0, ""
        prefix = "" if relative == "." else relative + "/"
        names = sorted({p[len(prefix) :].split("/")[0] for p in files if p.startswith(prefix)})
        if not names:
            return "", 2, f"ls: cannot access '{place}': No such file or directory\n"
        return "".join(n + "\n" for n in names if not n.startswith(".")), 0, ""

    def _cat(self, arguments: list[str], given: str) -> tuple[str, int, str]:
        output, errors = "", ""
        for place in (a for a in arguments if not a.startswith("-")):
            text = self.files().get(self._relative(place))
            if text is None:
                errors += f"cat: {place}: No such file or directory\n"
            else:
                output += text
        return output, int(bool(errors)), errors

    def _ends(self, arguments: list[str], given: str, *, head: bool) -> tuple[str, int, str]:
        match = re.search(r"-n? ?(\d+)", " ".join(arguments))
        count = int(match[1]) if match else 10
        named = [a for a in arguments if not a.startswith("-") and not a.isdigit()]
        text, code, errors = self._cat(named, "") if named else (given, 0, "")
        lines = text.splitlines(keepends=True)
        return "".join(lines[:count] if head else lines[-count:]), code, errors

    def _sed(self, arguments: list[str], given: str) -> tuple[str, int, str]:
        match = re.fullmatch(r"-n (\d+),(\d+|\$)p ?(.*)", " ".join(arguments))
        if match is None:
            self.exact = False
            return "", 1, "sed: -e expression #1, char 1: unknown command\n"
        text, code, errors = self._cat([match[3]], "") if match[3] else (given, 0, "")
        lines = text.splitlines(keepends=True)
        end = len(lines) if match[2] == "$" else int(match[2])
        return "".join(lines[int(match[1]) - 1 : end]), code, errors

    # Paths

    def _relative(self, path: str) -> str:
        absolute = posixpath.normpath(posixpath.join(self.cwd, path))
        return posixpath.relpath(absolute, self.workspace)

    def _is_folder(self, absolute: str) -> bool:
        prefix = posixpath.relpath(absolute, self.workspace) + "/"
        return any(path.startswith(prefix) for path in self.files())


def _kept(path: str, wanted: Sequence[str]) -> bool:
    from examples.train_mini.pytest_collect import is_test_file

    return not is_test_file(path) or any(path == w or path.startswith(w + "/") or w == "." for w in wanted)


def _pipelines(words: Sequence[str]) -> list[tuple[list[list[str]], str]]:
    """Split words at `;`, `&&`, `||` into pipelines of commands; each with the sign that follows it."""
    found: list[tuple[list[list[str]], str]] = []
    stages: list[list[str]] = [[]]
    for word in words:
        if word in (";", "&&", "||", "&"):
            found.append(([s for s in stages if s], word))
            stages = [[]]
        elif word == "|":
            stages.append([])
        else:
            stages[-1].append(word)
    found.append(([s for s in stages if s], ";"))
    return found


def _basic_pattern(pattern: str, *, extended: bool) -> str:
    """Translate a basic regular expression, in which some signs are special only behind a backslash."""
    if extended:
        return pattern
    out: list[str] = []
    i = 0
    while i < len(pattern):
        sign = pattern[i]
        if sign == "\\" and i + 1 < len(pattern):
            following = pattern[i + 1]
            out.append(following if following in "(){}+?|" else "\\" + following)
            i += 2
            continue
        out.append("\\" + sign if sign in "(){}+?|" else sign)
        i += 1
    return "".join(out)
