from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from dsv4agent.engine import Engine, SamplingParams
from dsv4agent.engine.errors import EngineClosed, WorkerFailed
from dsv4agent.engine.scheduler import Scheduler, Shared, Steps, at_once
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


async def test_what_can_be_shared_is_done_together_and_steps_of_others_come_between(
    scheduler: Scheduler,
) -> None:
    log: list[str] = []
    gate = threading.Event()

    def together(items: list[str]) -> None:
        log.append("+".join(items))
        if "b3" in items:
            raise ValueError("b3 is wrong")

    def tokens(name: str, count: int) -> Steps[str]:
        for number in range(count):
            yield Shared(log, ord(name), f"{name}{number}", together)
        return name

    def hold() -> Steps[None]:
        gate.wait()
        return
        yield

    results: dict[str, str] = {}

    async def one(name: str, steps: Steps[str]) -> None:
        try:
            results[name] = await scheduler.run_async(steps)
        except WorkerFailed as error:
            results[name] = str(error.__cause__)

    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run_async, hold())
        await anyio.sleep(0.01)
        for name, steps in (("a", tokens("a", 3)), ("b", tokens("b", 5)), ("p", count(log, "p", 3))):
            group.start_soon(one, name, steps)
            await anyio.sleep(0.01)
        gate.set()
    # Each learns of a failure that was its own or shared; the others finished before it.
    assert log == ["p0", "a0+b0", "p1", "a1+b1", "p2", "a2+b2", "b3"]
    assert results == {"a": "a", "b": "b3 is wrong", "p": "p"}


async def test_who_asked_lately_is_waited_for(scheduler: Scheduler) -> None:
    widths: list[int] = []

    def token(who: int) -> Steps[None]:
        yield Shared(widths, who, None, lambda items: widths.append(len(items)), 0.5)

    async def generate(who: int) -> None:
        # A ticket for each token, as generation has it.
        for _ in range(20):
            await scheduler.run_async(token(who))

    async with anyio.create_task_group() as group:
        group.start_soon(generate, 1)
        group.start_soon(generate, 2)
    assert sum(widths) == 40 and widths.count(2) >= 18


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


async def test_cancelled_work_lets_go_of_what_it_asked_for(scheduler: Scheduler) -> None:
    class Item:
        pass

    def ask() -> Steps[None]:
        item = Item()
        asked.append(weakref.ref(item))
        gate.wait()
        yield Shared(scheduler, 1, item, lambda _: None)

    asked: list[weakref.ref[Item]] = []
    gate = threading.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run_async, ask())
        await anyio.sleep(0.05)
        group.cancel_scope.cancel()
        threading.Timer(0.05, gate.set).start()
    assert [item() for item in asked] == [None]


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
