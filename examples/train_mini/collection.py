"""On-policy documents: at some points of its training the model repairs repositories, to learn from failures.

All ranks pause together. Each repairs other repositories with the weights as they are, on its own GPU, puts
the right fix after what did not work, and gives these documents to its own feeders.
"""

from __future__ import annotations

import argparse
import gc
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch

from examples.train_mini.closed_loop import Limits
from examples.train_mini.packing import RowStream
from examples.train_mini.rollout import Collected, Rollout, Sampling
from examples.train_mini.trainer import Trainer
from examples.train_mini.world_pool import Task, WorldPool

COLLECTION = "training"
STEPS = (3, 9)
"""Least and most steps of a run, so that documents end after different numbers of tries."""
TURN = 256
"""Tokens of a turn at most. A batch waits for its longest turn; a run whose turn is cut off is over."""
FIX_ROOM = 768
"""Tokens of a row kept free for the right fix."""
LEAD = 15.0
"""Seconds before a phase at which its worlds begin to be made, while the training goes on."""
NUMBERS = 10_000_000
"""Task numbers of one seed."""


@dataclass(frozen=True)
class Report:
    """What all ranks collected in one phase; `failed` ranks had an error and collected nothing.

    Attributes:
        error: What went wrong on this rank, empty if nothing did; standard error tells of all.
    """

    runs: int
    solved: int
    first_try: int
    documents: int
    tokens: int
    failed: int
    seconds: float
    error: str

    def __str__(self) -> str:
        reason = self.error or "see standard error"
        failed = f"; {self.failed} ranks failed and go on without: {reason}" if self.failed else ""
        return (
            f"collected: {self.runs} runs, {self.solved} solved, {self.first_try} on the first try, "
            f"{self.documents} documents, {self.tokens} tokens, {self.seconds:.1f} s{failed}"
        )


class Collector:
    """Collects at the shares of the progress that the command line names."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        trainer: Trainer,
        stream: RowStream,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Collect with the weights of `trainer` for `stream`; `stopped` tells that the training is to end."""
        self.arguments, self.trainer, self.stream, self.stopped = arguments, trainer, stream, stopped
        self._phases = list(enumerate(sorted(arguments.collect_at)))
        self._pool: WorldPool | None = None
        self._prepared: tuple[int, float] | None = None

    def skip(self, progress: float) -> None:
        """Leave out the phases before `progress`, which an earlier process of the training has done."""
        self._phases = [phase for phase in self._phases if phase[1] >= progress]

    def due(self, progress: float) -> bool:
        """Whether a phase begins at this progress."""
        return bool(self._phases) and self._phases[0][1] <= progress

    def prepare(self, progress: float) -> None:
        """Start the worlds of a phase that will be due at `progress`, a little ahead of that of now."""
        if not self.due(progress) or self._phases[0] == self._prepared:
            return
        self._prepared = self._phases[0]
        try:
            self._pool = self._start_worlds()
            self._pool.prepare(self._tasks())
        except Exception:
            # `collect` tries again, and tells of it if that fails as well.
            traceback.print_exc()
            self.close()

    def collect(self, progress: float) -> Report:
        """Run the phase that is due and hand over its documents; every rank must call this at the same step.

        Whatever goes wrong is told in the report: the training must not be lost with it. Further phases that
        are due by now are left out.
        """
        begin = time.monotonic()
        collected, error = Collected([], []), ""
        self.stream.hold(True)
        self._free_memory()
        try:
            collected = self._repair(begin + self.arguments.collect_seconds)
            self.stream.add_documents(collected.documents)
        except Exception as caught:
            # The one place, with `prepare`, that catches everything: what fails here, by a bug in any world
            # or for lack of memory, costs the documents of one rank.
            traceback.print_exc()
            collected, error = Collected([], []), f"{type(caught).__name__}: {caught}"
        finally:
            self.close()
            self.stream.hold(False)
        self._free_memory()
        self._phases = [phase for phase in self._phases if phase[1] > progress]
        outcomes = collected.outcomes
        totals = self.trainer.ranks.total(
            [
                len(outcomes),
                sum(outcome.solved for outcome in outcomes),
                sum(outcome.first_try for outcome in outcomes),
                len(collected.documents),
                collected.tokens,
                bool(error),
            ]
        )
        runs, solved, first_try, documents, tokens, failed = map(int, totals)
        seconds = time.monotonic() - begin
        return Report(runs, solved, first_try, documents, tokens, failed, seconds, error)

    def close(self) -> None:
        """End the worlds."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None

    def _repair(self, deadline: float) -> Collected:
        """Let the model repair; its decoder's memory is free once this returns."""
        tasks = self._tasks()
        if self._pool is None:
            self._pool = self._start_worlds()
        rollout = Rollout(self.trainer.model, self._pool, batch=len(tasks), limits=self._limits())
        return rollout.collect(
            tasks,
            Sampling(1.0, seed=tasks[0].index, every_other=True),
            self.arguments.row_length,
            time_left=lambda: 0.0 if self.stopped() else deadline - time.monotonic(),
        )

    def _start_worlds(self) -> WorldPool:
        arguments = self.arguments
        return WorldPool(
            arguments.collect_worlds,
            arguments.tokenizer,
            workers=arguments.workers,
            limits=self._limits(),
            patience=arguments.collect_seconds,
        )

    def _limits(self) -> Limits:
        context = min(self.arguments.row_length - FIX_ROOM, self.trainer.model.config.max_positions)
        return Limits(STEPS[1], context, TURN)

    def _tasks(self) -> list[Task]:
        """Return tasks of the phase that comes next which no other phase or rank has."""
        runs, ranks = self.arguments.collect_runs, self.trainer.ranks
        first = self.arguments.seed * NUMBERS + (self._phases[0][0] * ranks.size + ranks.rank) * runs
        numbers = range(first, first + runs)
        return [Task(COLLECTION, number, Random(f"steps:{number}").randint(*STEPS)) for number in numbers]

    def _free_memory(self) -> None:
        """Return unused device memory: the training and the decoder keep theirs in pieces of other sizes."""
        if self.trainer.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
