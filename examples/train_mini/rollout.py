"""Many repair runs at once in one batch on one device, and what is learned from them.

`python -m examples.train_mini.rollout --model DIR --collect FILE` runs repairs on training repositories and
writes them, relabelled with the right fix, as further training documents for `training --extra`.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dsv4agent.repeats import redrawn
from examples.train_mini.closed_loop import Limits, Outcome, Transcript
from examples.train_mini.decoding import BatchDecoder, sample
from examples.train_mini.export import load_model
from examples.train_mini.model import MiniModel
from examples.train_mini.packing import StoredDocument, save_documents
from examples.train_mini.tensors import integers
from examples.train_mini.world_pool import Task, WorldPool

WORLDS = "examples.train_mini.worlds:world"
EOS, PAD = 1, 2
CHECK_EVERY = 8
"""Tokens between looks at which turns have ended: a look waits for the device."""


@dataclass(frozen=True)
class Sampling:
    """How turns are drawn: temperature 0 is greedy. With `every_other` half of the runs are greedy anyway.

    Turns without new edits are drawn again, `redraws` times at most, as the agent's loop does.
    """

    temperature: float = 0.0
    seed: int = 0
    every_other: bool = False
    redraws: int = 0


@dataclass(frozen=True)
class Collected:
    """Outcomes of runs, and documents to learn from them."""

    outcomes: list[Outcome]
    documents: list[StoredDocument]

    @property
    def tokens(self) -> int:
        """Tokens of the documents."""
        return sum(len(document.ids) for document in self.documents)


class Rollout:
    """A model and a pool of worlds. The decoder's caches and graphs are kept between calls.

    The model may be one in training: decoding reads its weights as they are, whatever its mode.
    """

    def __init__(
        self, model: MiniModel, pool: WorldPool, *, batch: int, limits: Limits | None = None
    ) -> None:
        self.pool, self.batch, self.limits = pool, batch, limits or Limits()
        self.decoder = BatchDecoder(model, batch, self.limits.context)
        self.sampled_tokens = 0
        self.prefilled_tokens = 0

    def run(
        self, tasks: Sequence[Task], sampling: Sampling, *, transcripts: list[Transcript] | None = None
    ) -> list[Outcome]:
        """Run all tasks to their ends, `batch` at a time; append what did not solve them to `transcripts`."""
        outcomes: list[Outcome] = []
        for start in range(0, len(tasks), self.batch):
            group = self._run_group(tasks[start : start + self.batch], sampling, sampling.seed + start)
            outcomes += group
            if transcripts is not None:
                unsolved = [run for run, outcome in enumerate(group) if not outcome.solved]
                transcripts += self.pool.transcripts(unsolved)
        return outcomes

    def collect(
        self,
        tasks: Sequence[Task],
        sampling: Sampling,
        longest: int,
        *,
        time_left: Callable[[], float] = lambda: math.inf,
    ) -> Collected:
        """Run tasks, `batch` at a time, and relabel those that were not solved on the first try.

        Args:
            tasks: What to repair.
            sampling: How turns are drawn.
            longest: Tokens of a document at most; longer ones are dropped.
            time_left: Seconds left. When they are not enough for another turn, the runs in progress are ended
                and relabelled as they stand, and no others begin.
        """
        collected = Collected([], [])
        for start in range(0, len(tasks), self.batch):
            if time_left() <= 0:
                break
            part = tasks[start : start + self.batch]
            group = self._run_group(part, sampling, sampling.seed + start, time_left)
            wanted = [run for run, outcome in enumerate(group) if not outcome.first_try]
            documents = self.pool.relabelled(wanted, longest)
            collected.outcomes.extend(group)
            collected.documents.extend(document for document in documents if document is not None)
        return collected

    def _run_group(
        self,
        tasks: Sequence[Task],
        sampling: Sampling,
        seed: int,
        time_left: Callable[[], float] = lambda: math.inf,
    ) -> list[Outcome]:
        generator = torch.Generator(device=self.decoder.device).manual_seed(seed)
        self.decoder.reset()
        new = dict(enumerate(self.pool.open(tasks)))
        greedy = torch.zeros(self.decoder.batch, dtype=torch.bool, device=self.decoder.device)
        greedy[::2] = sampling.every_other
        outcomes: dict[int, Outcome] = {}
        turn_seconds = 0.0
        while new:
            runs = sorted(new)
            if time_left() <= turn_seconds:
                outcomes |= zip(runs, self.pool.stop(runs), strict=True)
                break
            begin = time.monotonic()
            self.prefilled_tokens += sum(map(len, new.values()))
            logits = self.decoder.extend(runs, [new[run] for run in runs])
            starts = self.decoder.lengths.clone()
            turns = self.sample_turns(runs, logits, sampling.temperature, generator, greedy)
            for draw in range(1, sampling.redraws + 1):
                vain = self.pool.repeats(list(zip(runs, turns, strict=True)))
                places = [place for place, again in enumerate(vain) if again]
                if not places:
                    break
                again = [runs[place] for place in places]
                self.decoder.lengths[again] = starts[again]
                temperature, _ = redrawn(sampling.temperature, seed, draw)
                drawn = self.sample_turns(again, logits[places], temperature, generator)
                for place, turn in zip(places, drawn, strict=True):
                    turns[place] = turn
            self.sampled_tokens += sum(map(len, turns))
            replies = self.pool.advance(list(zip(runs, turns, strict=True)))
            new = {}
            for run, turn, reply in zip(runs, turns, replies, strict=True):
                if reply.outcome is not None:
                    outcomes[run] = reply.outcome
                else:
                    # The end-of-sentence id was sampled but never computed.
                    new[run] = [turn[-1], *reply.ids]
            turn_seconds = time.monotonic() - begin
        return [outcomes[run] for run in range(len(tasks))]

    @torch.inference_mode()
    def sample_turns(
        self,
        runs: list[int],
        first: Tensor,
        temperature: float,
        generator: torch.Generator,
        greedy: Tensor | None = None,
    ) -> list[list[int]]:
        """Sample one turn for each run, up to its end of sentence or the limit.

        Sequences with `greedy` (bool `[B]`) take the most likely ids whatever the temperature.
        """
        device = self.decoder.device
        logits = torch.zeros(self.decoder.batch, first.shape[1], device=device)
        logits[torch.tensor(runs, device=device)] = first
        active = torch.zeros(self.decoder.batch, dtype=torch.bool, device=device)
        active[torch.tensor(runs, device=device)] = True
        seen = int(self.decoder.lengths.max())
        columns: list[Tensor] = []
        for count in range(1, self.limits.turn + 1):
            ids = sample(logits, temperature, generator)
            if greedy is not None and temperature > 0:
                ids = torch.where(greedy, sample(logits, 0), ids)
            ids = torch.where(active, ids, PAD)
            columns.append(ids)
            active = active & (ids != EOS)
            if count == self.limits.turn or (count % CHECK_EVERY == 0 and not bool(active.any())):
                break
            logits = self.decoder.step(ids, active, seen + count)
        rows = torch.stack(columns, 1).cpu()
        return [_until_end(integers(rows[run])) for run in runs]


def _until_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(EOS) + 1] if EOS in ids else ids


def choose_device(name: str) -> str:
    """Return `name`, or for `auto` the GPU if there is one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def compute_type(device: str) -> torch.dtype:
    """Return the type to run in: bf16 on a GPU, fp32 on a CPU."""
    return torch.bfloat16 if device == "cuda" else torch.float32


def default_workers() -> int:
    """Return how many world processes suit this machine."""
    return max(1, min(14, (os.cpu_count() or 2) - 1))


def main() -> None:
    """Collect training documents."""
    parser = argparse.ArgumentParser(description="Run repairs in a batch and collect training documents.")
    parser.add_argument("--model", type=Path, required=True, help="exported checkpoint")
    parser.add_argument("--collect", type=Path, required=True, help="file of documents to write (.npz)")
    parser.add_argument("--set", default="training", help="collection of worlds")
    parser.add_argument("--first", type=int, default=0, help="number of the first world")
    parser.add_argument("--n", type=int, default=1024)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--context", type=int, default=6144, help="the row length of the training")
    parser.add_argument("--turn", type=int, default=Limits.turn, help="tokens of one turn")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--worlds", default=WORLDS)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    limits = Limits(arguments.steps, arguments.context, arguments.turn)
    model = load_model(arguments.model, device=device, dtype=compute_type(device))
    tasks = [Task(arguments.set, arguments.first + i) for i in range(arguments.n)]
    begin = time.monotonic()
    batch = arguments.batch or (256 if device == "cuda" else 4)
    tokenizer = arguments.model / "tokenizer.json"
    with WorldPool(arguments.worlds, tokenizer, workers=arguments.workers, limits=limits) as pool:
        rollout = Rollout(model, pool, batch=min(batch, arguments.n), limits=limits)
        sampling = Sampling(arguments.temperature, arguments.seed)
        collected = rollout.collect(tasks, sampling, limits.context)
    save_documents(arguments.collect, collected.documents)
    solved = sum(outcome.solved for outcome in collected.outcomes)
    print(
        f"{solved} of {len(collected.outcomes)} solved; "
        f"{len(collected.documents)} documents written to {arguments.collect}; "
        f"{rollout.sampled_tokens} tokens sampled, {time.monotonic() - begin:.0f} s"
    )


if __name__ == "__main__":
    main()
