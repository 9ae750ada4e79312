"""Times other plans than those in use, case by case, on the card.

    python -m dsv4agent.engine.kernels.sweep [--json FILE] [--only NAME] [--model flash|pro] [--seconds N]

All candidates are compiled first, by a process per core that launches nothing; what does not compile is
reported. Then each is compared with the plan in use, bit by bit where it changes speed only, and timed as in
`trial`. A line per case shows the plan in use and the best ones; the file has every candidate.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from multiprocessing import TimeoutError, get_context
from typing import Any

import torch
from torch import Tensor
from triton.runtime.jit import JITFunction

from dsv4agent.engine.kernels import attention_cases, trial_shapes
from dsv4agent.engine.kernels.ceilings import time_calls
from dsv4agent.engine.kernels.sweep_plans import Group, groups
from dsv4agent.engine.kernels.trial_cases import relative
from dsv4agent.engine.kernels.trial_shapes import Prepared
from dsv4agent.engine.kernels.trial_table import describe, floor, parse, save, start
from dsv4agent.engine.lines import say

_MODELS = {
    "flash": (trial_shapes.FLASH, attention_cases.FLASH),
    "pro": (trial_shapes.PRO, attention_cases.PRO),
}
_COMPILING = 0.5
"""Share of the time after which candidates that are not compiled are left out."""
_PROCESSES = 16
"""At most; each has a context on the card, and the data of one case."""
_BATCH = 4
"""Candidates of one case that a process compiles in a row."""
_SHOWN = 3


@dataclass(frozen=True)
class PlanRow:
    """What was found for one plan.

    Attributes:
        plan: What it changes.
        error: From what the plan in use computes.
        passed: Whether the error is within the tolerance, and zero where only speed should change.
        micros: Microseconds per call.
        share: Floor over measured time.
        failure: What went wrong, else empty.
    """

    model: str
    kernel: str
    shape: str
    plan: str
    error: float | None = None
    passed: bool = False
    micros: float | None = None
    share: float | None = None
    failure: str = ""


Place = tuple[str, int]
"""Model and number of a group."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all plans; 0 if all that ran gave the right results, 1 if one did not, 2 without a card."""
    options = parse("sweep", _MODELS, arguments, seconds=280.0)
    started = time.monotonic()
    ceilings = start(options.seed)
    if ceilings is None:
        return 2
    todo = {
        (model, number): group
        for model in ([options.model] if options.model else _MODELS)
        for number, group in enumerate(_groups(model))
        if options.takes(group.case)
    }
    failures = compile_candidates(todo, options.seed, started + _COMPILING * options.seconds)
    count = sum(len(group.candidates) for group in todo.values())
    say(f"{count} plans, {len(failures)} not compiled, {time.monotonic() - started:.0f} s")
    rows: list[PlanRow] = []
    for (model, number), group in todo.items():
        if time.monotonic() - started > options.seconds:
            say(f"{model} {group.case.kernel} {group.case.shape} not tried: out of time")
            continue
        generator = torch.Generator("cuda").manual_seed(options.seed)
        known = {
            candidate: text for (*place, candidate), text in failures.items() if place == [model, number]
        }
        least = floor(group.case, ceilings)
        found = list(try_group(model, group, generator, least, known, time_calls))
        torch.cuda.empty_cache()
        rows += found
        for line in summary(found):
            say(line)
        save(options.json, rows)
    say(f"{time.monotonic() - started:.0f} s")
    return int(any(not row.passed and not row.failure for row in rows))


def try_group(
    model: str,
    group: Group,
    generator: torch.Generator,
    least: float,
    known: Mapping[int, str],
    timer: Callable[[Sequence[Callable[[], object]]], float],
) -> Iterator[PlanRow]:
    """Compare and time the candidates of one case; whatever one raises becomes its failure.

    Args:
        model: Name for the rows.
        group: Case and candidates, the plan in use first.
        generator: Of the data.
        least: Seconds that the case must take.
        known: Candidates that are not to be tried, and why.
        timer: Returns the seconds of one of some calls.
    """
    case = group.case
    try:
        prepared = case.prepare(generator)
    except Exception as failure:  # Most likely the memory.
        yield PlanRow(model, case.kernel, case.shape, "all", failure=describe(failure))
        return
    expected: list[Tensor] | None = None
    for number, candidate in enumerate(group.candidates):
        if number in known:
            yield PlanRow(model, case.kernel, case.shape, candidate.name, failure=known[number])
            continue
        try:
            with candidate.use():
                found = [tensor.clone() for tensor in tensors(_result(prepared))]
                seconds = timer(prepared.runs)
        except Exception as failure:  # The others are tried all the same.
            yield PlanRow(model, case.kernel, case.shape, candidate.name, failure=describe(failure))
            continue
        expected = expected or found
        pairs = list(zip(found, expected, strict=True))
        equal = all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in pairs)
        error = 0.0 if equal else max(relative(a, b) for a, b in pairs)
        passed = equal if candidate.same_bits else error <= case.tolerance
        yield PlanRow(
            model, case.kernel, case.shape, candidate.name, error, passed, seconds * 1e6, least / seconds
        )


def summary(rows: Sequence[PlanRow]) -> Iterator[str]:
    """Describe the rows of one case: the plan in use, the best ones, and those that went wrong."""
    used = rows[0]
    good = sorted((row for row in rows if row.passed), key=lambda row: row.micros or 0.0)
    now = "failed" if used.micros is None else f"{used.micros:.2f} us {100 * (used.share or 0):.0f}%"
    line = f"{used.model:5} {used.kernel:21} {used.shape:22} now {now:16}"
    if good and used.micros and good[0].micros:
        line += f" best {good[0].micros:.2f} us {100 * (good[0].share or 0):.0f}%"
        line += f" gain {used.micros / good[0].micros:.2f}"
    yield line
    for row in good[:_SHOWN]:
        yield f"    {row.micros:9.2f} {row.plan}"
    for row in rows:
        if not row.passed:
            yield f"    {'failed':>9} {row.plan}: {(row.failure or f'differs by {row.error:.1e}')[:100]}"


def tensors(result: object) -> Iterator[Tensor]:
    """Yield the tensors in a result, in order."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        for part in result:  # pyright: ignore[reportUnknownVariableType]
            yield from tensors(part)  # pyright: ignore[reportUnknownArgumentType]
    elif is_dataclass(result):
        for field in fields(result):
            yield from tensors(getattr(result, field.name))


def compile_candidates(
    todo: Mapping[Place, Group], seed: int, deadline: float
) -> dict[tuple[str, int, int], str]:
    """Fill the compiler's cache; return which candidates failed or were too late, and why."""
    failures: dict[tuple[str, int, int], str] = {}
    # Not forked: the card is in use here. Whatever still runs at the end is ended.
    with get_context("spawn").Pool(min(_PROCESSES, os.cpu_count() or 1)) as pool:
        pending = [
            (place, some, pool.apply_async(_compile, (place, some, seed)))
            for place, group in todo.items()
            for some in _batches(len(group.candidates))
        ]
        for place, some, result in pending:
            try:
                found = result.get(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                found = dict.fromkeys(some, "not compiled in time")
            except Exception as failure:  # Of the preparation.
                found = dict.fromkeys(some, describe(failure))
            failures.update({(*place, candidate): text for candidate, text in found.items()})
    return failures


def _batches(count: int) -> Iterator[range]:
    for first in range(0, count, _BATCH):
        yield range(first, min(first + _BATCH, count))


def _compile(place: Place, candidates: Iterable[int], seed: int) -> dict[int, str]:
    """Compile some candidates of a case, in a process of its own; return what went wrong."""
    failures: dict[int, str] = {}
    with _compiling_only():
        group, prepared = _prepared(place, seed)
        for number in candidates:
            try:
                with group.candidates[number].use():
                    prepared.runs[0]()
            except Exception as failure:  # Most likely the compiler.
                failures[number] = describe(failure)
    return failures


_kept: dict[Place, tuple[Group, Prepared]] = {}
"""The case that this process last compiled."""


def _prepared(place: Place, seed: int) -> tuple[Group, Prepared]:
    if place not in _kept:
        # First, or there would be room for two.
        _kept.clear()
        torch.cuda.empty_cache()
        model, number = place
        group = _groups(model)[number]
        _kept[place] = group, group.case.prepare(torch.Generator("cuda").manual_seed(seed))
    return _kept[place]


def _groups(model: str) -> list[Group]:
    return list(groups(*_MODELS[model]))


@contextmanager
def _compiling_only() -> Generator[None, None, None]:
    """Let launches of kernels compile them, as a warm-up does, and nothing more."""
    kernels: Any = JITFunction
    launch = kernels.run

    def compiled(self: object, *args: object, warmup: bool, **options: object) -> object:
        del warmup
        return launch(self, *args, warmup=True, **options)

    kernels.run = compiled
    try:
        yield
    finally:
        kernels.run = launch


def _result(prepared: Prepared) -> object:
    return (prepared.result or prepared.runs[0])()


if __name__ == "__main__":
    raise SystemExit(main())
