"""A bank of real functions from the installed Python: harvested, given inputs, checked, and kept in one file.

Nothing of it is stored in the repository; `python -m examples.train_mini.library --out FILE` makes it from
the machine's own standard library and packages in about two minutes on 16 cores.
"""

from __future__ import annotations

import argparse
import ast
import functools
import gzip
import json
import multiprocessing
import os
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Final

import platformdirs

from examples.train_mini.harvest import (
    Candidate,
    candidates,
    for_evaluation_only,
    python_version,
    source_files,
)
from examples.train_mini.renaming import draw_function_name, draw_names, local_bindings, rename
from examples.train_mini.subjects import Subject, evaluate, shape_of
from examples.train_mini.synthesis import find_calls
from examples.train_mini.templates import templates_of

UNSEEN: Final = "examples.train_mini.unseen"
"""The templates that only evaluation uses."""

FILE_SECONDS = 20
"""Time after which the rest of a file is left out."""
LOST_AFTER = 60
"""Seconds after which a job is given up: its process died, or hangs where no signal reaches it."""


@dataclass(frozen=True)
class Entry:
    """A harvested function with calls that work.

    Attributes:
        key: Qualified name in the installed library.
        name: Function name.
        source: Code without annotations.
        imports: Import lines.
        others: Helper functions in `source`.
        calls: Expressions to test.
        evaluation: Kept out of training.
    """

    key: str
    name: str
    source: str
    imports: Sequence[str]
    others: Sequence[str]
    calls: Sequence[str]
    evaluation: bool


class MissingBank(Exception):
    """The bank of library functions was not made on this machine yet."""


def default_bank() -> Path:
    """Return where the bank of the running Python version is kept; `DSV4AGENT_MINI_BANK` overrides it."""
    given = os.environ.get("DSV4AGENT_MINI_BANK")
    return (
        Path(given)
        if given
        else Path(platformdirs.user_cache_dir("dsv4agent"), f"mini-library-{python_version()}.json.gz")
    )


def library_subject(rng: Random, *, evaluation: bool) -> Subject:
    """Draw a harvested function.

    Raises:
        MissingBank: See there.
    """
    entry = rng.choice(_entries(default_bank(), evaluation))

    def propose(rng: Random) -> tuple[Sequence[str], str]:
        return (), rng.choice(entry.calls)

    subject = Subject(f"library.{entry.key}", entry.name, entry.source, entry.imports, propose, entry.others)
    names = {public: public.lstrip("_") for public in (entry.name, *entry.others)}
    if rng.random() < 0.35:
        names = {public: draw_function_name(name, rng) for public, name in names.items()}
    if len(set(names.values())) < len(names):
        names = {}
    if rng.random() < 0.4:
        names |= draw_names([n for n in local_bindings(ast.parse(entry.source)) if n not in names], rng, 0.6)
    source = rename(entry.source, names)
    kept = {old: new for old, new in names.items() if f"def {new}(" in source}
    return subject.renamed(source, kept)


def library_sources(bank: Path | None = None) -> list[str]:
    """Return the sources of all training functions (for plain code documents and for the tokenizer)."""
    return [entry.source for entry in _entries(bank or default_bank(), False)]


@functools.cache
def load_bank(path: Path) -> tuple[Entry, ...]:
    """Read a bank.

    Raises:
        MissingBank: There is no such file.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return tuple(Entry(**entry) for entry in json.load(file))
    except FileNotFoundError:
        raise MissingBank(
            f"{path} does not exist; make it with: python -m examples.train_mini.library --out {path}"
        ) from None


@functools.cache
def _entries(path: Path, evaluation: bool) -> tuple[Entry, ...]:
    return tuple(entry for entry in load_bank(path) if entry.evaluation == evaluation)


# Making the bank


def _prepare_file(job: tuple[str, str, bool]) -> list[dict[str, Any]]:
    """Harvest one file and find calls; what it returns is plain data for the other process."""
    warnings.simplefilter("ignore")
    found: list[dict[str, Any]] = []
    started = time.monotonic()
    for candidate in candidates(*job):
        if time.monotonic() - started > FILE_SECONDS:
            break
        try:
            calls = find_calls(candidate, Random(candidate.key))
        except (RecursionError, MemoryError):
            continue
        if calls is not None:
            found.append(asdict(_entry(candidate, calls)))
    return found


def _entry(candidate: Candidate, calls: Sequence[str]) -> Entry:
    evaluation = candidate.standard and for_evaluation_only(candidate.key)
    return Entry(
        candidate.key,
        candidate.name,
        candidate.source,
        candidate.imports,
        candidate.others,
        calls,
        evaluation,
    )


def _results(entry: dict[str, Any]) -> list[str | None]:
    """Evaluate the calls of an entry, with whatever hash seed this process has."""
    warnings.simplefilter("ignore")
    names: dict[str, Any] = {"__name__": "harvested"}
    exec(compile("\n".join([*entry["imports"], entry["source"]]), "<harvested>", "exec"), names)
    results: list[str | None] = []
    for call in entry["calls"]:
        case = evaluate(names, (), call)
        results.append(None if case is None else case.expected or f"raises {case.error}")
    return results


def _limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


def _pooled(hash_seed: str, workers: int, function: Any, jobs: Sequence[Any], label: str) -> Iterable[Any]:
    """Run jobs in fresh processes with a fixed hash seed, telling the progress.

    Yields one result a job, an empty list for a job whose process died of what it ran.
    """
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = hash_seed
    try:
        with multiprocessing.get_context("spawn").Pool(workers, _limit_memory, maxtasksperchild=400) as pool:
            waiting = [pool.apply_async(function, (job,)) for job in jobs]
            for done, result in enumerate(waiting, 1):
                if done % 500 == 0 or done == len(jobs):
                    print(f"{label}: {done}/{len(jobs)}", flush=True)
                try:
                    yield result.get(timeout=LOST_AFTER)
                except multiprocessing.TimeoutError:
                    yield []
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before


def build_bank(path: Path, *, workers: int, jobs: Sequence[tuple[str, str, bool]]) -> tuple[Entry, ...]:
    """Make a bank from source files and write it to `path`.

    Functions whose results depend on the hash seed are dropped, and so are copies of functions kept for
    evaluation and what has the name or the shape of an unseen template.
    """
    found = [entry for entries in _pooled("1", workers, _prepare_file, jobs, "files") for entry in entries]
    first = list(_pooled("2", workers, _results, found, "first check"))
    second = list(_pooled("3", workers, _results, found, "second check"))
    kept: list[Entry] = []
    for entry, one, two in zip(found, first, second, strict=True):
        calls = [c for c, a, b in zip(entry["calls"], one, two, strict=False) if a is not None and a == b]
        if len(calls) >= max(3, 0.8 * len(entry["calls"])):
            kept.append(replace(Entry(**entry), calls=calls))
    unique: dict[str, Entry] = {}
    for entry in sorted(kept, key=lambda e: (not e.evaluation, e.key)):
        unique.setdefault(shape_of(entry.source), entry)
    names, shapes = _unseen()
    entries = tuple(
        entry
        for entry in sorted(unique.values(), key=lambda e: e.key)
        if entry.evaluation or not _is_unseen(entry, names, shapes)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump([asdict(entry) for entry in entries], file)
    return entries


def _unseen() -> tuple[frozenset[str], frozenset[str]]:
    """Return the names and shapes of the templates that only evaluation uses."""
    templates = templates_of(UNSEEN)
    parts = [part for template in templates for part in _definitions(template.plain)]
    return frozenset(template.name.lower() for template in templates), frozenset(
        shape_of(source) for _, source in parts
    )


def _is_unseen(entry: Entry, names: frozenset[str], shapes: frozenset[str]) -> bool:
    return any(
        name.strip("_").lower() in names or shape_of(source) in shapes
        for name, source in _definitions(entry.source)
    )


def _definitions(source: str) -> list[tuple[str, str]]:
    """Return name and text of each function and class of a module's source."""
    return [
        (node.name, ast.unparse(node))
        for node in ast.parse(source).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    ]


def main() -> None:
    """Make the bank from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=default_bank(), help="file to write")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--standard-only", action="store_true", help="leave installed packages out")
    arguments = parser.parse_args()
    started = time.monotonic()
    jobs = [job for job in source_files() if job[2] or not arguments.standard_only]
    entries = build_bank(arguments.out, workers=arguments.workers, jobs=jobs)
    held = sum(entry.evaluation for entry in entries)
    seconds = time.monotonic() - started
    print(f"{len(entries)} functions ({held} for evaluation) in {seconds:.0f} s: {arguments.out}")


if __name__ == "__main__":
    main()
