"""Many repair runs at once in one batch on one device, and what is learned from them.

`python -m examples.train_mini.rollout --model DIR --collect FILE` runs repairs on training repositories and
writes them, relabelled with the right fix, as further training documents for `training --extra`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from examples.train_mini.closed_loop import Limits, Outcome
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
    """How turns are drawn: temperature 0 is greedy."""

    temperature: float = 0.0
    seed: int = 0


class Rollout:
    """A model and a pool of worlds. The decoder's caches and graphs are kept between calls."""

    def __init__(
        self, model: MiniModel, pool: WorldPool, *, batch: int, limits: Limits | None = None
    ) -> None:
        self.pool, self.batch, self.limits = pool, batch, limits or Limits()
        self.decoder = BatchDecoder(model, batch, self.limits.context)
        self.sampled_tokens = 0
        self.prefilled_tokens = 0

    def run(
        self, tasks: Sequence[Task], sampling: Sampling, *, collect: list[StoredDocument] | None = None
    ) -> list[Outcome]:
        """Run all tasks to their ends, `batch` at a time; append relabelled documents to `collect`."""
        outcomes: list[Outcome] = []
        for start in range(0, len(tasks), self.batch):
            group = list(tasks[start : start + self.batch])
            outcomes += self._run_group(group, sampling, sampling.seed + start)
            if collect is not None:
                documents = self.pool.relabelled(range(len(group)), self.limits.context)
                collect += [document for document in documents if document is not None]
        return outcomes

    def _run_group(self, tasks: list[Task], sampling: Sampling, seed: int) -> list[Outcome]:
        generator = torch.Generator(device=self.decoder.device).manual_seed(seed)
        self.decoder.reset()
        new = dict(enumerate(self.pool.open(tasks)))
        outcomes: dict[int, Outcome] = {}
        while new:
            runs = sorted(new)
            self.prefilled_tokens += sum(map(len, new.values()))
            logits = self.decoder.extend(runs, [new[run] for run in runs])
            turns = self.sample_turns(runs, logits, sampling.temperature, generator)
            self.sampled_tokens += sum(map(len, turns))
            replies = self.pool.advance(list(zip(runs, turns, strict=True)))
            new = {}
            for run, turn, reply in zip(runs, turns, replies, strict=True):
                if reply.outcome is not None:
                    outcomes[run] = reply.outcome
                else:
                    # The end-of-sentence id was sampled but never computed.
                    new[run] = [turn[-1], *reply.ids]
        return [outcomes[run] for run in range(len(tasks))]

    @torch.inference_mode()
    def sample_turns(
        self, runs: list[int], first: Tensor, temperature: float, generator: torch.Generator
    ) -> list[list[int]]:
        """Sample one turn for each run, up to its end of sentence or the limit."""
        device = self.decoder.device
        logits = torch.zeros(self.decoder.batch, first.shape[1], device=device)
        logits[torch.tensor(runs, device=device)] = first
        active = torch.zeros(self.decoder.batch, dtype=torch.bool, device=device)
        active[torch.tensor(runs, device=device)] = True
        seen = int(self.decoder.lengths.max())
        columns: list[Tensor] = []
        for count in range(1, self.limits.turn + 1):
            ids = torch.where(active, sample(logits, temperature, generator), PAD)
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
    parser.add_argument("--context", type=int, default=4096, help="the row length of the training")
    parser.add_argument("--turn", type=int, default=Limits.turn, help="tokens of one turn")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--worlds", default=WORLDS)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    limits = Limits(arguments.steps, arguments.context, arguments.turn)
    model = load_model(arguments.model, device=device, dtype=compute_type(device))
    tasks = [Task(arguments.set, arguments.first + i) for i in range(arguments.n)]
    documents: list[StoredDocument] = []
    begin = time.monotonic()
    batch = arguments.batch or (256 if device == "cuda" else 4)
    tokenizer = arguments.model / "tokenizer.json"
    with WorldPool(arguments.worlds, tokenizer, workers=arguments.workers, limits=limits) as pool:
        rollout = Rollout(model, pool, batch=min(batch, arguments.n), limits=limits)
        outcomes = rollout.run(tasks, Sampling(arguments.temperature, arguments.seed), collect=documents)
    save_documents(arguments.collect, documents)
    solved = sum(outcome.solved for outcome in outcomes)
    print(
        f"{solved} of {len(outcomes)} solved; {len(documents)} documents written to {arguments.collect}; "
        f"{rollout.sampled_tokens} tokens sampled, {time.monotonic() - begin:.0f} s"
    )


if __name__ == "__main__":
    main()
