"""Makes small repositories with exactly one injected one-line bug that their tests detect."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from examples.train_mini.layouts import Layout, draw_layout, draw_modules, draw_workspace, extra_files
from examples.train_mini.mutations import Family, Mutant, mutants
from examples.train_mini.pools import draw_subject
from examples.train_mini.pytest_text import TestRun, UnsafeSource, run_tests
from examples.train_mini.subjects import Case, Subject, draw_cases, evaluate
from examples.train_mini.suites import Access, Tested, draw_style, write_suite
from examples.train_mini.time_limit import TimeLimitExceeded, time_limit

_FAMILY_WEIGHTS: Mapping[Family, float] = {
    Family.VARIABLE: 0.8,
    Family.CONSTANT: 1.0,
    Family.METHOD: 1.0,
    Family.MISSING_RETURN: 0.2,
    Family.BOOLEAN: 2.5,
    Family.SWAPPED_ARGUMENTS: 1.3,
    Family.INDEX: 2.5,
    Family.OFF_BY_ONE: 1.3,
    Family.COMPARISON: 1.2,
    Family.ARITHMETIC: 1.2,
    Family.INVERTED: 0.8,
}


@dataclass(frozen=True)
class Bug:
    """The injected bug: `line` counts from 1; `function` is the function or class whose source holds it."""

    path: str
    line: int
    good_line: str
    bad_line: str
    family: Family
    function: str


@dataclass(frozen=True)
class Repository:
    """A repository as it is handed to the agent.

    Attributes:
        workspace: Absolute folder.
        files: Texts by relative path, with the bug.
        bug: What was changed, and thereby the right fix.
        tested: Name of the function or class whose tests fail.
        key: Identity of the kind of function that holds the bug.
        pool: Where the function comes from.
        first_run: The failing run of the tests.
        test_paths: Paths of the test files.
    """

    workspace: str
    files: Mapping[str, str]
    bug: Bug
    tested: str
    key: str
    pool: str
    first_run: TestRun
    test_paths: Sequence[str]

    @property
    def good_text(self) -> str:
        """The text of the buggy file with the right line."""
        lines = self.files[self.bug.path].split("\n")
        lines[self.bug.line - 1] = self.bug.good_line
        return "\n".join(lines)


@dataclass
class _Module:
    """A module in the making: pieces of code in order."""

    name: str
    imports: list[str]
    units: list[str]
    docstring: str = ""

    def text(self) -> str:
        head = [self.docstring] if self.docstring else []
        imports = sorted(dict.fromkeys(self.imports), key=lambda line: (line.startswith("from ."), line))
        if imports:
            head.append("\n".join(imports))
        top = "\n\n".join(head)
        body = "\n\n\n".join(self.units)
        joint = "\n\n\n" if imports else "\n\n"
        return (f"{top}{joint}{body}" if top else body) + "\n"


Pool = Callable[[Random], Subject]


def make_repository(rng: Random, split: str, *, family: Family | None = None) -> Repository:
    """Make a repository whose bug stands in a function of the given pool.

    Args:
        rng: Source of all randomness; the same state gives the same repository.
        split: Pool of the buggy function: `known`, `program`, `library`, `unseen` or `library_unseen`.
        family: Wanted kind of bug; any if None.
    """
    for _ in range(2000):
        made = _try_repository(rng, split, family)
        if made is not None:
            return made
    raise RuntimeError(
        f"no repository could be made of the pool {split!r} with family {family}; is the pool empty?"
    )


def _try_repository(rng: Random, split: str, family: Family | None) -> Repository | None:
    subject = draw_subject(rng, split)
    cases = draw_cases(subject, rng, rng.choice((2, 3, 3, 4, 4, 5, 6)))
    if len(cases) < 2 or len({c.expected or c.error for c in cases}) < 2:
        return None
    chosen = _choose_bug(subject, cases, rng, family)
    if chosen is None:
        return None
    unit, mutant = chosen
    workspace, project = draw_workspace(rng)
    layout = draw_layout(rng, project if project.isidentifier() else "app")
    count = rng.choices((1, 2, 3), (55, 30, 15))[0]
    names = draw_modules(rng, count, {layout.package, layout.tests, project})
    modules = [_Module(name, [], []) for name in names]
    tested: list[list[Tested]] = [[] for _ in modules]
    home = rng.randrange(count)
    public = {subject.name, *subject.others}
    if not _place(subject, Tested(subject, cases), home, modules, tested, layout, rng):
        return None
    for place in range(count):
        total = rng.choices((1, 2, 3, 4, 5), (25, 30, 25, 13, 7))[0] - (place == home)
        for _ in range(max(total, int(place != home))):
            other = draw_subject(rng, _neighbour_pool(rng, split))
            names_of_other = {other.name, *other.others}
            facts = draw_cases(other, rng, rng.choice((1, 2, 2, 3)))
            if names_of_other & public or not facts or len(other.source) > 1500:
                continue
            public |= names_of_other
            _place(other, Tested(other, facts), place, modules, tested, layout, rng)
    if any(not module.units for module in modules):
        return None
    for module in modules:
        rng.shuffle(module.units) if rng.random() < 0.3 and not any(
            "=" in u.split("\n")[0] for u in module.units
        ) else None
        if rng.random() < 0.15:
            module.docstring = f'"""{module.name.replace("_", " ").capitalize()}."""'
    files = extra_files(rng, layout, project)
    for module in modules:
        files[layout.module_path(module.name)] = module.text()
    test_paths = _write_tests(files, modules, tested, layout, rng)
    holder = next(module for module in modules if unit in module.units)
    path = layout.module_path(holder.name)
    start = files[path].find(unit)
    if files[path].count(unit) != 1:
        return None
    line = files[path][:start].count("\n") + mutant.line
    lines = files[path].split("\n")
    assert lines[line] == mutant.old_line
    good = files[path]
    lines[line] = mutant.new_line
    bad = "\n".join(lines)
    try:
        passing = run_tests({**files, path: good}, workspace)
        failing = run_tests({**files, path: bad}, workspace)
    except UnsafeSource:
        return None
    if passing.exit_code != 0 or not passing.exact or failing.exit_code != 1 or not failing.exact:
        return None
    if len(failing.text) > 3600:
        return None
    files[path] = bad
    function = _definition_name(unit)
    bug = Bug(path, line + 1, mutant.old_line, mutant.new_line, mutant.family, function)
    return Repository(
        workspace, dict(sorted(files.items())), bug, subject.name, subject.key, split, failing, test_paths
    )


def _neighbour_pool(rng: Random, split: str) -> str:
    """Other functions of a training repository come from training pools, also around unseen functions."""
    return rng.choices(
        ("known", "program", "library" if split not in ("unseen", "known") else "program"), (4, 4, 2)
    )[0]


def _units(subject: Subject) -> list[str]:
    return subject.source.split("\n\n\n")


def _definition_name(unit: str) -> str:
    for line in unit.split("\n"):
        if line.startswith(("def ", "class ")):
            return line.split("(")[0].split(":")[0].split(" ", 1)[1].strip()
    return ""


def _place(
    subject: Subject,
    tested: Tested,
    home: int,
    modules: list[_Module],
    facts: list[list[Tested]],
    layout: Layout,
    rng: Random,
) -> bool:
    """Put a subject into its module, and sometimes a helper of it into another module."""
    units = _units(subject)
    module = modules[home]
    if len(modules) > 1 and len(units) == 2 and subject.others and rng.random() < 0.5:
        helper, main = units if _definition_name(units[1]) == subject.name else units[::-1]
        name = _definition_name(helper)
        if name and f"{subject.name}(" not in helper and name in subject.others:
            other = modules[(home + 1) % len(modules)]
            other.units.append(helper)
            other.imports += [line for line in subject.imports if _uses(helper, line)]
            dotted = f"{layout.package}.{other.name}" if layout.package else other.name
            module.imports.append(f"from {dotted} import {name}")
            module.imports += [line for line in subject.imports if _uses(main, line)]
            if f"from {dotted.replace(other.name, module.name)} import" in "\n".join(other.imports):
                return False
            module.units.append(main)
            facts[home].append(tested)
            return True
    module.units += units
    module.imports += subject.imports
    facts[home].append(tested)
    return True


def _uses(unit: str, import_line: str) -> bool:
    return import_line.replace(",", " ").split()[-1] in unit


def _choose_bug(
    subject: Subject, cases: Sequence[Case], rng: Random, family: Family | None
) -> tuple[str, Mutant] | None:
    """Choose a unit and a mutant of it that the cases detect."""
    by_family: dict[Family, list[tuple[str, Mutant]]] = {}
    for unit in _units(subject):
        for mutant in mutants(unit):
            by_family.setdefault(mutant.family, []).append((unit, mutant))
    order = (
        [family]
        if family is not None
        else sorted(by_family, key=lambda f: rng.random() ** (1 / _FAMILY_WEIGHTS[f]), reverse=True)
    )
    for wanted in order:
        options = by_family.get(wanted, [])
        for unit, mutant in rng.sample(options, min(len(options), 6)):
            changed = subject.source.replace(unit, mutant.apply(unit))
            seen = _detection(replace(subject, source=changed), cases)
            if seen == "wrong" or (
                seen in ("TypeError", "NameError", "AttributeError") and rng.random() < 0.35
            ):
                return unit, mutant
            if seen not in ("", "slow", "broken") and rng.random() < 0.7:
                return unit, mutant
    return None


def _detection(subject: Subject, cases: Sequence[Case]) -> str:
    """Say how the cases detect a bug: `wrong`, an exception's name, `slow`, `broken`, or "" if not."""
    names: dict[str, Any] = {"__name__": "subject"}
    try:
        with time_limit(0.2):
            exec(compile("\n".join([*subject.imports, subject.source]), "<subject>", "exec"), names)
    except (Exception, TimeLimitExceeded):
        return "broken"
    found = ""
    for case in cases:
        space = dict(names)
        try:
            with time_limit(0.03):
                if case.setup:
                    exec("\n".join(case.setup), space)
                value = eval(case.expression, space)
                if case.expected is None or value != eval(case.expected):
                    return "wrong"
        except TimeLimitExceeded:
            return "slow"
        except Exception as error:
            if type(error).__name__ != case.error:
                found = type(error).__name__
    return found


def _write_tests(
    files: dict[str, str],
    modules: Sequence[_Module],
    tested: Sequence[Sequence[Tested]],
    layout: Layout,
    rng: Random,
) -> list[str]:
    """Write one test file per module, or one for all; return their paths."""
    groups = [
        (Access(module.name, layout.package, rng.random() < 0.15), facts)
        for module, facts in zip(modules, tested, strict=True)
        if facts
    ]
    style = draw_style(rng)
    if (len(groups) > 1 and rng.random() < 0.2) or (len(groups) == 1 and rng.random() < 0.05):
        name = rng.choice(("all", "basic", "everything", "main", "units", "behaviour"))
        if name not in [module.name for module in modules]:
            path = layout.test_path(name)
            files[path] = write_suite(groups, style, rng)
            return [path]
    paths: list[str] = []
    for access, facts in groups:
        path = layout.test_path(access.module)
        files[path] = write_suite([(access, facts)], style if rng.random() < 0.8 else draw_style(rng), rng)
        paths.append(path)
    return paths


def write(repository: Repository, folder: Path) -> None:
    """Write the files and make one git commit on branch `main`, with fixed author and date.

    Raises:
        subprocess.CalledProcessError: git failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in repository.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    stamp = "2026-01-05T12:00:00+0000"
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "Author",
        "GIT_AUTHOR_EMAIL": "author@example.org",
        "GIT_AUTHOR_DATE": stamp,
        "GIT_COMMITTER_NAME": "Author",
        "GIT_COMMITTER_EMAIL": "author@example.org",
        "GIT_COMMITTER_DATE": stamp,
    }
    for command in (
        ["init", "-q", "-b", "main"],
        ["add", "-A", "-f"],
        ["commit", "-q", "-m", "Initial commit"],
    ):
        subprocess.run(["git", *command], cwd=folder, env=environment, check=True, capture_output=True)


__all__ = ["Bug", "Repository", "evaluate", "make_repository", "write"]
