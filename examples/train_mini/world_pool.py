"""Repair runs in worker processes, so that calls of hundreds of runs are answered in parallel.

Workers are plain child processes (`python -m examples.train_mini.world_pool`) that exchange pickled lists of
requests and answers over pipes; they never import torch.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pickle
import resource
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from dsv4agent.encoding import Tokenizer
from examples.train_mini.closed_loop import Limits, Outcome, RepairRun, Reply, Transcript, World
from examples.train_mini.packing import CHILD_BYTES, StoredDocument

WorldFactory = Callable[[str, int], World]
"""Makes the world number `index` of a named set."""


@dataclass(frozen=True)
class Task:
    """One world to run: number `index` of the set `collection`, with its own limit of steps if not None."""

    collection: str
    index: int
    steps: int | None = None


class WorldPoolError(RuntimeError):
    """A worker process ended, its traceback is on standard error, or did not answer in time."""


class WorldPool:
    """Runs by number, spread over workers. Use as a context manager."""

    def __init__(
        self,
        factory: str,
        tokenizer: Path,
        *,
        workers: int,
        limits: Limits | None = None,
        patience: float | None = None,
    ) -> None:
        """Start workers that make worlds with `factory` (`package.module:function`).

        A worker that takes longer than `patience` seconds for an answer counts as dead; None waits for ever.
        """
        limits = limits or Limits()
        self._patience = patience
        self._prepared: list[Task] | None = None
        command = [sys.executable, "-m", "examples.train_mini.world_pool"]
        command += ["--factory", factory, "--tokenizer", str(tokenizer)]
        command += [f"--limits={limits.steps},{limits.context},{limits.turn}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment["CUDA_VISIBLE_DEVICES"] = ""
        self._workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            for _ in range(workers)
        ]

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Let the workers begin with what the next `open`, of the same tasks, will wait for."""
        self._send("open", list(enumerate(tasks)))
        self._prepared = list(tasks)

    def open(self, tasks: Sequence[Task]) -> list[list[int]]:
        """Start one run per task, numbered from 0; return the prompts."""
        if self._prepared is None:
            self.prepare(tasks)
        if self._prepared != list(tasks):
            raise ValueError("The workers were told to prepare other tasks; open those.")
        self._prepared = None
        return self._receive(list(enumerate(tasks)))

    def advance(self, turns: Sequence[tuple[int, list[int]]]) -> list[Reply]:
        """Give assistant turns to runs by number; return what follows each."""
        return self._ask("advance", turns)

    def repeats(self, turns: Sequence[tuple[int, list[int]]]) -> list[bool]:
        """Tell of turns, by number of their run, whether the agent's loop would draw them again."""
        return self._ask("repeats", turns)

    def stop(self, runs: Sequence[int]) -> list[Outcome]:
        """End runs as they stand, before their next turn; return their outcomes."""
        return self._ask("stop", [(run, None) for run in runs])

    def transcripts(self, runs: Sequence[int]) -> list[Transcript]:
        """Return the texts of runs."""
        return self._ask("transcript", [(run, None) for run in runs])

    def relabelled(self, runs: Sequence[int], limit: int) -> list[StoredDocument | None]:
        """Turn finished runs into training documents of at most `limit` tokens."""
        return self._ask("relabel", [(run, limit) for run in runs])

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe:
                    # What a dead worker did not read cannot be flushed.
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, verb: str, requests: Sequence[tuple[int, Any]]) -> list[Any]:
        self._send(verb, requests)
        return self._receive(requests)

    def _shares(
        self, requests: Sequence[tuple[int, Any]]
    ) -> list[tuple[subprocess.Popen[bytes], list[tuple[int, Any]]]]:
        shares: list[list[tuple[int, Any]]] = [[] for _ in self._workers]
        for request in requests:
            shares[request[0] % len(self._workers)].append(request)
        return [(worker, share) for worker, share in zip(self._workers, shares, strict=True) if share]

    def _send(self, verb: str, requests: Sequence[tuple[int, Any]]) -> None:
        for worker, share in self._shares(requests):
            try:
                _send(cast(IO[bytes], worker.stdin), (verb, share))
            except BrokenPipeError:
                raise WorldPoolError(
                    f"A worker ended with code {worker.wait()} before it could be asked."
                ) from None

    def _receive(self, requests: Sequence[tuple[int, Any]]) -> list[Any]:
        """Return the answers to requests that were sent, in their order."""
        answers: dict[int, Any] = {}
        for worker, share in self._shares(requests):
            pipe = cast(IO[bytes], worker.stdout)
            if self._patience is not None and not _readable(pipe, self._patience):
                raise WorldPoolError(f"A worker did not answer within {self._patience:.0f} s.")
            try:
                received = pickle.load(pipe)
            except (EOFError, pickle.UnpicklingError):
                raise WorldPoolError(
                    f"A worker ended with code {worker.wait()} while it was answering."
                ) from None
            answers |= dict(zip((number for number, _ in share), received, strict=True))
        return [answers[number] for number, _ in requests]


def serve(
    requests: IO[bytes], answers: IO[bytes], factory: WorldFactory, tokenizer: Tokenizer, limits: Limits
) -> None:
    """Answer requests until the pipe closes."""
    runs: dict[int, RepairRun] = {}
    while True:
        try:
            verb, share = pickle.load(requests)
        except EOFError:
            return
        result: list[Any] = []
        for number, argument in share:
            if verb == "open":
                own = limits if argument.steps is None else replace(limits, steps=argument.steps)
                runs[number] = RepairRun(factory(argument.collection, argument.index), tokenizer, own)
                result.append(runs[number].prompt)
            elif verb == "advance":
                result.append(runs[number].advance(argument))
            elif verb == "repeats":
                result.append(runs[number].repeats(argument))
            elif verb == "stop":
                result.append(runs[number].stop())
            elif verb == "transcript":
                result.append(runs[number].transcript())
            else:
                result.append(runs[number].relabelled(argument))
        _send(answers, result)


def resolve_factory(name: str) -> WorldFactory:
    """Import `package.module:function`."""
    module, _, function = name.partition(":")
    return cast(WorldFactory, getattr(importlib.import_module(module), function))


def _readable(pipe: IO[bytes], seconds: float) -> bool:
    """Wait until a pipe, of which nothing is buffered here, has something to read or is closed."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def _send(pipe: IO[bytes], value: object) -> None:
    pipe.write(pickle.dumps(value))
    pipe.flush()


def main() -> None:
    """Serve over standard input and output."""
    parser = argparse.ArgumentParser(description="Serve repair runs over pipes.")
    parser.add_argument("--factory", required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--limits", required=True)
    arguments = parser.parse_args()
    # What grows without end must fail and not take the machine with it.
    resource.setrlimit(resource.RLIMIT_AS, (CHILD_BYTES, CHILD_BYTES))
    # Whatever a world reads or prints must not touch the pipes.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    steps, context, turn = map(int, arguments.limits.split(","))
    try:
        serve(
            requests,
            answers,
            resolve_factory(arguments.factory),
            Tokenizer.from_file(arguments.tokenizer),
            Limits(steps, context, turn),
        )
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)


if __name__ == "__main__":
    main()
