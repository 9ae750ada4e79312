from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dsv4agent import Agent, BackendError, CheckpointMismatch, Limits, RunFinished, StopReason
from dsv4agent.backends import EmbeddedBackend, GenerationRequest
from dsv4agent.encoding.grammar import ToolCallGrammar
from dsv4agent.engine import Engine
from dsv4agent.transcript import Sampling
from tests.backends.checkpoints import write_checkpoint
from tests.scripted import ScriptedBackend, collect, says

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


async def test_a_sequence_counts_as_the_engine_does(model: Path) -> None:
    backend = await EmbeddedBackend.load(model)
    try:
        assert backend.record.context_window == 8192
        assert backend.defaults.temperature == 0.7
        sequence = await backend.open([0, 30, 31])
        await sequence.append([32])
        grammar = ToolCallGrammar([], backend.tokenizer, thinking_mode="chat", vocab_size=backend.vocab_size)
        request = GenerationRequest(Sampling(seed=2), 5, frozenset({1}), grammar.constraint())
        ids = [token async for chunk in sequence.generate(request) for token in chunk.ids]
        assert list(sequence.tokens) == [0, 30, 31, 32, *ids]
        assert (len(ids), sequence.pending, sequence.usage.computed_tokens) == (5, 1, 8)
        assert max(ids) < backend.tokenizer.vocab_size < backend.vocab_size
        await sequence.rewind(6)
        request = replace(request, constraint=grammar.constraint(ids[:2]))
        again = [token async for chunk in sequence.generate(request) for token in chunk.ids]
        assert again[:3] == ids[2:]
        await sequence.close()
        with pytest.raises(BackendError):
            await sequence.append([1])
    finally:
        await backend.aclose()


async def test_an_agent_takes_an_engine(model: Path, workspace: Path) -> None:
    with Engine.load(model, threads=1, max_context=3000) as engine:
        agent: Agent[None] = Agent(engine)
        async with agent, agent.session(workspace, sandbox="none") as session:
            events = await collect(session, "go", Limits(new_tokens=3))
            assert session.transcript.header.model.context_window == 3000
        # An engine that was given is not the agent's to close.
        assert engine.stats.computed_tokens > 0
        engine.open([0])
    last = events[-1]
    assert isinstance(last, RunFinished)
    assert last.stop_reason is StopReason.MAX_TOKENS


def cut_weights(model: Path, folder: Path) -> Path:
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    return weights


async def test_a_broken_checkpoint_says_so(model: Path, tmp_path: Path) -> None:
    weights = cut_weights(model, tmp_path)
    with pytest.raises(BackendError, match=weights.name):
        await Agent[None](tmp_path).load()


async def test_a_session_belongs_to_its_model(workspace: Path) -> None:
    async with Agent[None](ScriptedBackend([says("a")])).session(workspace, sandbox="none") as session:
        await collect(session, "go")
        identity = session.id
    other: Agent[None] = Agent(ScriptedBackend([says("a")], fingerprint="other"))
    with pytest.raises(CheckpointMismatch, match="fingerprint scripted"):
        async with other.session(sandbox="none", resume=identity):
            pass


async def test_an_engine_that_fails_ends_the_run_and_not_the_session(model: Path, workspace: Path) -> None:
    engine = Engine.load(model, threads=1)
    agent: Agent[None] = Agent(engine)
    async with agent.session(workspace, sandbox="none") as session:
        await collect(session, "go", Limits(new_tokens=3))
        engine.close()
        events = await collect(session)
        identity = session.id
    last = events[-1]
    assert isinstance(last, RunFinished)
    assert last.stop_reason is StopReason.ERROR
    assert "closed" in last.message
    with Engine.load(model, threads=1) as fresh:
        async with Agent[None](fresh).session(sandbox="none", resume=identity) as again:
            events = await collect(again, None, Limits(new_tokens=3))
            assert isinstance(events[-1], RunFinished)
            assert events[-1].stop_reason is StopReason.MAX_TOKENS
