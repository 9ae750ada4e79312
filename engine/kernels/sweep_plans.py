"""The plans that `sweep` tries, case by case, and where each is put into use.

A candidate differs from the plan in use in what its name says. Those that change the order of a sum say so:
they are compared with the plan in use within the tolerance of the case, the others bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from itertools import product
from types import ModuleType
from typing import TypeVar

from dsv4agent.engine.kernels import attention_cases, attention_tuning, trial_cases, tuning
from dsv4agent.engine.kernels.attention_cases import AttentionShape
from dsv4agent.engine.kernels.attention_tuning import AttentionPlan, IndexPlan, SelectPlan
from dsv4agent.engine.kernels.experts import ExpertShape
from dsv4agent.engine.kernels.trial_shapes import Case, ModelShape
from dsv4agent.engine.kernels.tuning import LinearPlan, StreamPlan, Tile

P = TypeVar("P")


@dataclass(frozen=True)
class Candidate:
    """A plan to try.

    Attributes:
        name: What is special about it.
        use: Puts it into use for a while.
        same_bits: Whether results must have the bits of the plan in use.
    """

    name: str
    use: Callable[[], AbstractContextManager[None]]
    same_bits: bool = True


@dataclass(frozen=True)
class Group:
    """A case, and plans to try for it; the first is the one in use."""

    case: Case
    candidates: tuple[Candidate, ...]


_SKINNY = (Tile(64, 16, 4, 3), Tile(64, 16, 4, 8), Tile(128, 16, 8, 4), Tile(128, 16, 4, 4))
_WIDE = (
    Tile(128, 128, 8, 2),
    Tile(128, 128, 8, 3),
    Tile(128, 128, 8, 4),
    Tile(128, 64, 8, 4),
    Tile(64, 128, 4, 2),
    Tile(64, 128, 4, 3),
    Tile(64, 128, 4, 4),
    Tile(128, 256, 8, 2),
    Tile(128, 256, 8, 3),
    Tile(64, 256, 4, 3),
)
_DECODE = (
    Tile(64, 16, 4, 2, unroll=2),
    Tile(64, 16, 4, 3, unroll=2),
    Tile(64, 16, 4, 3, unroll=4),
    Tile(64, 16, 4, 4),
    Tile(64, 16, 4, 6),
    Tile(64, 32, 4, 2, unroll=4),
    Tile(128, 16, 8, 2, unroll=4),
    Tile(128, 16, 8, 4),
    Tile(128, 16, 4, 2, unroll=4),
    Tile(128, 16, 4, 4),
)
_GROUPED = (
    Tile(128, 128, 8, 2),
    Tile(128, 128, 8, 3),
    Tile(128, 128, 4, 2),
    Tile(128, 128, 8, 2, registers=128),
    Tile(128, 64, 8, 2),
    Tile(128, 64, 8, 3),
    Tile(64, 128, 4, 2),
    Tile(64, 128, 4, 3),
    Tile(64, 64, 4, 2),
    Tile(64, 64, 4, 3),
)


def groups(model: ModelShape, attention: AttentionShape) -> Iterator[Group]:
    """Yield what is worth trying at the shapes of a model, the costly first."""
    few, many = (replace(model, tokens=(m,)) for m in (model.tokens[0], model.tokens[-1]))
    for m in model.tokens:
        yield _expert_group(model, m)
    yield from _linear_groups(few)
    yield from _stream_groups(model)
    yield from _attention_groups(attention)
    yield from _linear_groups(many)


def _expert_group(model: ModelShape, m: int) -> Group:
    key = model.hidden, model.width, ExpertShape(model.hidden, model.width).even
    plan = tuning.expert_plan(*key)
    if m <= plan.decode_tokens:
        plans = [replace(plan, decode=tile) for tile in (plan.decode, *_DECODE)]
    else:
        plans = [replace(plan, grouped=tile) for tile in (plan.grouped, *_GROUPED)]
    case = next(case for case in trial_cases.cases(replace(model, tokens=(m,))) if case.kernel == "experts")
    return Group(case, _candidates(plans, lambda plan: _entry(tuning.EXPERT_PLANS, key, plan)))


def _linear_groups(model: ModelShape) -> Iterator[Group]:
    for case in trial_cases.cases(model):
        if not case.kernel.startswith("linear ") or case.kernel == "linear lm_head":
            continue
        m, n, k = map(int, case.shape.split(" x "))
        size = 2 if case.unit == "bf16" and case.kernel != "linear wo_a" else 1
        plan = tuning.linear_plan(n, k, size)
        if m <= plan.skinny_tokens:
            splits = sorted({max(1, plan.splits // 2), plan.splits, min(2 * plan.splits, -(-k // 128))})
            tiles = (plan.skinny, *_SKINNY)
            plans = [replace(plan, splits=s, skinny=tile) for s, tile in product(splits, tiles)]
        else:
            plans = [replace(plan, wide=tile) for tile in (plan.wide, *_WIDE)]

        def use(plan: LinearPlan, key: tuple[int, int, int] = (n, k, size)) -> AbstractContextManager[None]:
            return _entry(tuning.LINEAR_PLANS, key, plan)

        yield Group(case, _candidates([plan, *plans], use, ("splits",)))


def _stream_groups(model: ModelShape) -> Iterator[Group]:
    plan = tuning.STREAMS

    def use(plan: StreamPlan) -> AbstractContextManager[None]:
        return _attribute(tuning, "STREAMS", plan)

    for m in model.tokens:
        plans = [plan]
        if m <= plan.skinny_tokens:
            for warps, finish in product((4, 8), (4, 8, 16)):
                plans.append(replace(plan, skinny=replace(plan.skinny, warps=warps), finish_warps=finish))
        else:
            for tokens, warps, stages in ((16, 4, 2), (16, 8, 2), (16, 8, 4), (32, 8, 2), (64, 16, 2)):
                tile = replace(plan.wide, tokens=tokens, warps=warps, stages=stages)
                plans.append(replace(plan, wide=tile))
                plans.append(replace(plan, skinny=tile, skinny_tokens=m))
            plans += [replace(plan, finish_warps=2), replace(plan, finish_warps=8)]
        for case in trial_cases.cases(replace(model, tokens=(m,))):
            if case.kernel == "write+read streams":
                yield Group(case, _candidates(plans, use, ("finish_warps",)))


def _attention_groups(model: AttentionShape) -> Iterator[Group]:
    name = "FLASH" if model.heads <= 64 else "PRO"
    plan, index, select = (
        attention_tuning.attention_plan(model.heads),
        attention_tuning.INDEX,
        attention_tuning.SELECT,
    )

    def attend(plan: AttentionPlan) -> AbstractContextManager[None]:
        return _attribute(attention_tuning, name, plan)

    def score(plan: IndexPlan | SelectPlan) -> AbstractContextManager[None]:
        return _attribute(attention_tuning, "INDEX" if isinstance(plan, IndexPlan) else "SELECT", plan)

    one = [plan]
    for warps, merge, merge_warps in product((4, 8), (1, 2, 4), (4, 8)):
        one.append(replace(plan, split_warps=warps, merge_heads=merge, merge_warps=merge_warps))
    chunk = [plan]
    for stages, warps in ((1, 8), (2, 8), (3, 8), (1, 4), (2, 4), (2, 16)):
        chunk.append(replace(plan, stages=stages, warps=warps))
    scores: list[IndexPlan | SelectPlan] = [index]
    for keys, warps, tiles, queries, stages in (
        (128, 4, 1, 32, 2),
        (128, 4, 2, 32, 2),
        (64, 4, 1, 32, 2),
        (128, 8, 1, 32, 2),
        (128, 8, 4, 32, 2),
        (128, 4, 1, 64, 3),
        (256, 8, 2, 32, 2),
        (256, 8, 1, 128, 3),
    ):
        scores.append(replace(index, keys=keys, warps=warps, tiles=tiles, queries=queries, stages=stages))
    for size, keys, warps in product((4096, 16384), (1024, 2048), (4, 8)):
        scores.append(replace(select, chunk=size, keys=keys, warps=warps))
    few, many = model.decode[0], model.chunk
    middle = f"at {model.contexts[len(model.contexts) // 2] // 1024}K"
    for case in attention_cases.cases(replace(model, decode=(few,))):
        tokens = int(case.shape.split()[0])
        if tokens == many and not case.shape.endswith(middle):
            continue
        if case.kernel in ("attend 4", "attend 128"):
            yield Group(case, _candidates(one if tokens == few else chunk, attend))
        elif case.kernel == "select_entries":
            yield Group(case, _candidates(scores[: 9 if tokens == many else None], score))


def _candidates(
    plans: list[P],
    use: Callable[[P], AbstractContextManager[None]],
    ordering: tuple[str, ...] = (),
) -> tuple[Candidate, ...]:
    """Return a candidate for each plan, without repetitions; `ordering` names what decides bits."""
    first = plans[0]
    found: dict[str, Candidate] = {}
    for plan in dict.fromkeys(plans):
        changed = _changes(first, plan)
        name = " ".join(f"{key}={value}" for key, value in changed.items()) or "in use"
        found[name] = Candidate(name, lambda plan=plan: use(plan), not set(ordering) & set(changed))
    return tuple(found.values())


def _changes(first: object, plan: object) -> dict[str, str]:
    """Return the fields in which a plan differs from the first, tiles in short."""
    if type(first) is not type(plan):
        first = type(plan)()
    return {
        field.name: _short(getattr(plan, field.name))
        for field in fields(plan)  # pyright: ignore[reportArgumentType]
        if getattr(plan, field.name) != getattr(first, field.name)
    }


def _short(value: object) -> str:
    if not isinstance(value, Tile):
        return str(value)
    text = f"{value.rows}x{value.tokens}w{value.warps}s{value.stages}"
    text += f"u{value.unroll}" if value.unroll > 1 else ""
    return text + (f"r{value.registers}" if value.registers else "")


@contextmanager
def _entry(table: dict[tuple[int, int], P], key: tuple[int, int], plan: P) -> Generator[None, None, None]:
    """Put a plan into a table for a while."""
    before = table.get(key)
    table[key] = plan
    try:
        yield
    finally:
        del table[key]
        if before is not None:
            table[key] = before


@contextmanager
def _attribute(module: ModuleType, name: str, plan: object) -> Generator[None, None, None]:
    """Put a plan into a module for a while."""
    before = getattr(module, name)
    setattr(module, name, plan)
    try:
        yield
    finally:
        setattr(module, name, before)
