from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from dsv4agent.engine import Engine, SamplingParams
from dsv4agent.engine.errors import EngineClosed, WorkerFailed
from dsv4agent.engine.scheduler import Scheduler, Steps, at_once
from tests.engine.test_bits import draw_ids
from tests.engine.test_sequence import FREE, tokens_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler(1)
    yield scheduler
    scheduler.close()


def count(log: list[str], name: str, steps: int) -> Steps[str]:
    for number in range(steps):
        log.append(f"{name}{number}")
        yield
    return name


async def test_work_takes_turns(scheduler: Scheduler) -> None:
    log: list[str] = []
    gate = threading.Event()
    results: list[str] = []

    async def one(name: str, steps: int) -> None:
        results.append(await scheduler.run_async(count(log, name, steps)))

    def hold() -> Steps[None]:
        gate.wait()
        return
        yield

    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run_async, hold())
        await anyio.sleep(0.01)
        group.start_soon(one, "a", 3)
        await anyio.lowlevel.checkpoint()
        group.start_soon(one, "b", 2)
        await anyio.sleep(0.01)
        gate.set()
    assert log == ["a0", "b0", "a1", "b1", "a2"]
    assert sorted(results) == ["a", "b"]


async def test_failures_reach_the_waiter_and_nobody_else(scheduler: Scheduler) -> None:
    def fail() -> Steps[int]:
        yield
        raise ZeroDivisionError("boom")

    with pytest.raises(WorkerFailed, match="ZeroDivisionError: boom") as caught:
        await scheduler.run_async(fail())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert scheduler.run(at_once(lambda: 5)) == 5


async def test_cancellation_waits_for_the_step_and_cleans_up(scheduler: Scheduler) -> None:
    cleaned = threading.Event()
    started = threading.Event()

    def endless() -> Steps[None]:
        try:
            while True:
                started.set()
                yield
        finally:
            cleaned.set()

    with anyio.move_on_after(0.05) as scope:
        await scheduler.run_async(endless())
    assert scope.cancelled_caught and started.is_set() and cleaned.is_set()


async def test_closing_abandons_waiting_work() -> None:
    scheduler = Scheduler(1)
    entered = threading.Event()

    def forever() -> Steps[None]:
        while True:
            entered.set()
            yield

    async def expect_closed() -> None:
        with pytest.raises(EngineClosed):
            await scheduler.run_async(forever())

    async with anyio.create_task_group() as group:
        group.start_soon(expect_closed)
        await anyio.to_thread.run_sync(entered.wait)
        await anyio.to_thread.run_sync(scheduler.close)
    with pytest.raises(EngineClosed):
        scheduler.run(at_once(lambda: 1))


async def test_concurrent_sequences_do_not_change_each_other(engine: Engine) -> None:
    alone = [tokens_of(list(engine.open(draw_ids(30, seed=n)).stream(FREE))) for n in range(4)]
    together: dict[int, list[int]] = {}
    order: list[int] = []

    async def one(number: int) -> None:
        out: list[int] = []
        async for step in engine.open(draw_ids(30, seed=number)).generate(FREE):
            out.extend(step.tokens)
            order.append(number)
        together[number] = out

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(one, number)
    assert [together[number] for number in range(4)] == alone
    assert len(set(order[:8])) > 1, "sequences interleave"


async def test_cancelled_generation_leaves_the_last_delivered_token(engine: Engine) -> None:
    whole = tokens_of(list(engine.open(draw_ids(30)).stream(FREE)))
    sequence = engine.open(draw_ids(30))
    delivered: list[int] = []
    with anyio.CancelScope() as scope:
        async for step in sequence.generate(FREE):
            delivered.extend(step.tokens)
            if len(delivered) == 4:
                scope.cancel()
    assert scope.cancelled_caught
    assert sequence.tokens == (*draw_ids(30), *delivered)
    rest = SamplingParams(seed=5, stop_token_ids=(), max_tokens=12 - len(delivered))
    assert delivered + tokens_of(list(sequence.stream(rest))) == whole
    assert sequence.usage.computed_tokens + sequence.pending == len(sequence)


async def test_cancelled_prefill_resumes(engine: Engine) -> None:
    sequence = engine.open(draw_ids(690))
    with anyio.move_on_after(0.03):
        await sequence.flush()
    done = sequence.usage.computed_tokens
    assert done + sequence.pending == 690
    await sequence.flush()
    assert (sequence.usage.computed_tokens, sequence.pending) == (690, 0)


async def test_leaving_the_loop_leaves_the_sequence_free(engine: Engine) -> None:
    sequence = engine.open(draw_ids(30))
    async for _ in sequence.generate(FREE):
        break
    sequence.append([1, 2])
    assert len(sequence) == 33


async def test_using_a_closed_engine(tiny_folder: Path) -> None:
    engine = Engine.load(tiny_folder, device="cpu", threads=1)
    sequence = engine.open([1, 2, 3])
    engine.close()
    with pytest.raises(EngineClosed):
        await sequence.flush()
