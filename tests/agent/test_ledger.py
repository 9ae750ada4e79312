"""Forty steps on a real engine: every id is computed once, and the session's books are the engine's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

from dsv4agent import Agent, Limits, RunFinished, StepFinished, StepStarted, StopReason, ToolCallFinished
from dsv4agent.backends import EmbeddedBackend
from dsv4agent.encoding.control_tokens import ASSISTANT
from dsv4agent.engine import Engine
from tests.backends.checkpoints import write_checkpoint
from tests.scripted import ScriptedBackend, calls, collect, only, says

pytestmark = pytest.mark.anyio

STEPS = 40


class Script:
    """Lets the engine say only what a script says: the first ids sampled, the rest forced."""

    def __init__(self, ids: Sequence[int], done: int = 0) -> None:
        self._ids = list(ids)
        self._done = done

    def mask(self, logits: Tensor) -> Sequence[int]:
        return [self._ids[self._done]]

    def commit(self, tokens: Sequence[int]) -> None:
        assert list(tokens) == self._ids[self._done : self._done + len(tokens)]
        self._done += len(tokens)

    def rollback(self, count: int) -> None:
        self._done -= count

    def forced(self) -> Sequence[int]:
        return self._ids[self._done : -1] if 3 <= self._done < len(self._ids) - 1 else []

    def fork(self) -> Script:
        return Script(self._ids, self._done)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(write_checkpoint(tmp_path_factory.mktemp("model")), threads=1)


def scripted(engine: Engine) -> EmbeddedBackend:
    turns = [calls(("note", {"text": f"n{number}"})) for number in range(STEPS - 1)]
    script = ScriptedBackend([*turns, says("done")])
    header = script.tokenizer.control_id(ASSISTANT)

    def constrain(tokens: Sequence[int]) -> Script:
        begin = len(tokens) - list(reversed(tokens)).index(header) + 1
        return Script(script.turn_ids(list(tokens).count(header) - 1), len(tokens) - begin)

    return EmbeddedBackend(engine, constrain=constrain)


def noting_agent(backend: EmbeddedBackend) -> Agent[None]:
    agent: Agent[None] = Agent(backend, tools=[])

    @agent.tool
    async def note(text: str) -> str:
        """Take a note."""
        return f"noted {text}"

    return agent


async def test_forty_steps_compute_each_id_once(engine: Engine, tmp_path: Path) -> None:
    agent = noting_agent(scripted(engine))
    async with agent.session(tmp_path, sandbox="none", seed=1) as session:
        started: StepStarted | None = None
        steps, before = 0, engine.stats.computed_tokens
        async for event in session.run("take notes"):
            if isinstance(event, StepStarted):
                started = event
            if not isinstance(event, StepFinished):
                continue
            steps += 1
            assert started is not None
            # The end token of a turn is computed together with what follows it.
            carried = 1 if event.step > 1 else 0
            assert event.computed_tokens == carried + started.new_tokens + event.sampled_tokens - 1
            assert event.reused_tokens == 0
            ledger = session.ledger
            assert ledger.computed_tokens == engine.stats.computed_tokens - before
            assert (
                ledger.computed_tokens + ledger.cached_tokens + ledger.pending_tokens == ledger.total_tokens
            )
            assert ledger.total_tokens == len(session.transcript.tokens)
        assert session.ledger.pending_tokens == 1
        assert steps == STEPS
        [last] = only(session.transcript.events, RunFinished)
        assert last.stop_reason is StopReason.FINISHED
        assert last.computed_tokens == engine.stats.computed_tokens - before
        assert len(only(session.transcript.events, ToolCallFinished)) == STEPS - 1


async def test_a_second_session_reuses_the_first_ones_prefix(engine: Engine, tmp_path: Path) -> None:
    agent = noting_agent(scripted(engine))
    async with agent.session(tmp_path, sandbox="none", seed=1) as session:
        await collect(session, "take notes", Limits(steps=3))
        session_id = session.id
    before = engine.stats
    async with agent.session(sandbox="none", resume=session_id) as again:
        events = await collect(again, None, Limits(steps=1))
        [step] = only(events, StepFinished)
        ledger = again.ledger
        assert step.reused_tokens == ledger.cached_tokens == engine.stats.reused_tokens - before.reused_tokens
        assert (
            step.computed_tokens
            == ledger.computed_tokens
            == engine.stats.computed_tokens - before.computed_tokens
        )
        assert ledger.cached_tokens > 0.8 * ledger.total_tokens


async def test_an_interrupted_turn_goes_on_as_if_it_had_not_been(engine: Engine, tmp_path: Path) -> None:
    """Sampling depends on seed and position alone, so a stop changes nothing that is said."""
    agent: Agent[None] = Agent(EmbeddedBackend(engine), tools=[], temperature=1.0)
    limits = Limits(new_tokens=60, steps=1)
    async with agent.session(tmp_path, sandbox="none", seed=3) as whole:
        await collect(whole, "speak", limits)
        expected = list(whole.transcript.tokens)
    for cut in (1, 17, 42):
        async with agent.session(tmp_path, sandbox="none", seed=3) as parted:
            await collect(parted, "speak", Limits(new_tokens=cut, steps=1))
            identity = parted.id
        async with agent.session(sandbox="none", resume=identity) as parted:
            await collect(parted, None, Limits(new_tokens=60 - cut, steps=1))
            length = min(len(expected), len(parted.transcript.tokens))
            assert length > len(expected) - 60 + cut
            assert parted.transcript.tokens[:length] == expected[:length]


async def test_rewinding_computes_again_only_what_was_cut(engine: Engine, tmp_path: Path) -> None:
    agent = noting_agent(scripted(engine))
    async with agent.session(tmp_path, sandbox="none", seed=1) as session:
        await collect(session, "take notes", Limits(steps=4))
        whole = list(session.transcript.tokens)
        await session.rewind(2)
        kept = len(session.transcript.tokens)
        before = session.ledger.computed_tokens
        await collect(session, None, Limits(steps=2))
        assert session.transcript.tokens == whole
        assert session.ledger.computed_tokens - before <= len(whole) - kept + 1
