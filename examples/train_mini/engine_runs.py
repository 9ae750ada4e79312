"""Repairs by the product's own engine and grammar on the CPU, in the in-process world, one process a core."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsv4agent.encoding import Tokenizer
from dsv4agent.encoding.grammar import ToolCallGrammar
from dsv4agent.engine import Engine, SamplingParams
from dsv4agent.engine import Sequence as EngineSequence
from dsv4agent.repeats import redrawn
from examples.train_mini.closed_loop import (
    REVISION,
    THINKING_MODE,
    Limits,
    Outcome,
    RepairRun,
    Transcript,
)
from examples.train_mini.documents import tool_schemas
from examples.train_mini.world_pool import Task
from examples.train_mini.worlds import world


@dataclass(frozen=True)
class _Worker:
    """What a process holds for all of its runs."""

    engine: Engine
    tokenizer: Tokenizer
    grammar: ToolCallGrammar
    temperature: float
    limits: Limits
    seed: int
    redraws: int

    def run(self, task: Task) -> tuple[Outcome, Transcript]:
        """Repair one repository."""
        run = RepairRun(world(task.collection, task.index), self.tokenizer, self.limits)
        sequence = self.engine.open(run.prompt)
        try:
            while True:
                start, seed, draw = len(sequence.tokens), self.seed + task.index, 0
                turn = self._sample(sequence, seed, draw)
                while draw < self.redraws and run.repeats(turn):
                    draw += 1
                    sequence.rewind(start)
                    turn = self._sample(sequence, seed, draw)
                reply = run.advance(turn)
                if reply.outcome is not None:
                    return reply.outcome, run.transcript()
                sequence.append(reply.ids)
        finally:
            sequence.close()

    def _sample(self, sequence: EngineSequence, seed: int, draw: int) -> list[int]:
        temperature, seed = redrawn(self.temperature, seed, draw)
        params = SamplingParams(
            temperature=temperature,
            seed=seed,
            max_tokens=self.limits.turn,
            stop_token_ids=(self.tokenizer.eos_id,),
        )
        return [token for step in sequence.stream(params, self.grammar.constraint()) for token in step.tokens]


_worker: _Worker | None = None


def run_with_engine(
    model: Path,
    tasks: Sequence[Task],
    temperature: float,
    limits: Limits,
    *,
    seed: int = 0,
    redraws: int = 0,
    workers: int = 2,
    transcripts: list[Transcript] | None = None,
) -> list[Outcome]:
    """Repair all tasks and return their outcomes in order; prints progress to standard error.

    Turns without new edits are drawn again, `redraws` times, as the agent's loop does. The texts of unsolved
    runs are appended to `transcripts`.
    """
    outcomes: list[Outcome] = []
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start, (model, temperature, limits, seed, redraws)) as pool:
        for outcome, transcript in pool.imap(_run, tasks):
            outcomes.append(outcome)
            if transcripts is not None and not outcome.solved:
                transcripts.append(transcript)
            solved = sum(done.solved for done in outcomes)
            print(
                f"{len(outcomes)}/{len(tasks)} runs, {solved} solved; {outcome.name} {outcome.family}: "
                f"{'solved' if outcome.solved else outcome.ending.value} in {outcome.steps} steps",
                file=sys.stderr,
                flush=True,
            )
    return outcomes


def _start(model: Path, temperature: float, limits: Limits, seed: int, redraws: int) -> None:
    global _worker
    engine = Engine.load(model, threads=1)
    tokenizer = Tokenizer.from_checkpoint(model)
    functions = [tool["function"] for tool in tool_schemas()]
    grammar = ToolCallGrammar(
        functions, tokenizer, REVISION, THINKING_MODE, vocab_size=engine.config.vocab_size
    )
    _worker = _Worker(engine, tokenizer, grammar, temperature, limits, seed, redraws)


def _run(task: Task) -> tuple[Outcome, Transcript]:
    assert _worker is not None
    return _worker.run(task)
