"""Random requests for some minutes, and whether memory is then what it was.

    python -m dsv4agent.engine.soak [--minutes 5] [--clients 24] [--json FILE]

Clients open sequences with new and with known beginnings, sample, fork, rewind, append, cancel in the middle
of a generation, and close or forget to. Before and after, everything kept is let go; then the bytes allocated
on the card, the free pages and the slots in use must be the same. The model is small and random, its heads,
rows and kernels are those of the published ones.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence as Items
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, cast

import anyio
import torch

from dsv4agent.engine.engine import Engine
from dsv4agent.engine.errors import CacheFull
from dsv4agent.engine.lines import say
from dsv4agent.engine.sampling import SamplingParams
from dsv4agent.engine.scheduler import at_once
from dsv4agent.engine.sequence import Sequence
from dsv4agent.engine.weights.synthetic import mini_config, write_random_checkpoint

# The kernels need Triton, which a machine without a card need not have.
if TYPE_CHECKING:
    from dsv4agent.engine.runner.model import RunnerModel

MODEL = mini_config(
    hidden_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    head_dim=512,
    qk_rope_head_dim=64,
    q_lora_rank=256,
    sliding_window=128,
    compress_ratios=[0, 4, 128, 4],
    index_head_dim=128,
    index_topk=64,
    n_routed_experts=8,
    num_experts_per_tok=2,
    quantization_config={"quant_method": "fp8"},
)

_WARM_SECONDS = 5.0


@dataclass(frozen=True)
class Holdings:
    """What is in use: bytes on the card (0 without one), free pages, and sequences in slots."""

    allocated: int
    free_pages: int
    slots: int


@dataclass
class Tally:
    """What was done; `events` counts kinds of requests."""

    tokens: int = 0
    events: Counter[str] = field(default_factory=Counter[str])


def main(arguments: Items[str] | None = None) -> int:
    """Run; 0 if nothing was lost, 1 if something was, 2 without a card."""
    parser = argparse.ArgumentParser(
        prog="python -m dsv4agent.engine.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--minutes", type=float, default=5.0)
    add("--clients", type=int, default=24, help="at the same time")
    add("--sequences", type=int, default=8, help="slots of full length")
    add("--context", type=int, default=4096)
    add("--seed", type=int, default=0)
    add("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stdout.write("needs a CUDA device\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="dsv4agent-soak-") as folder:
        write_random_checkpoint(Path(folder) / "model", MODEL, seed=1)
        with Engine.load(
            Path(folder) / "model",
            device="cuda",
            compute="kernels",
            max_context=options.context,
            sequences=options.sequences,
        ) as engine:
            warm_up(engine)
            before = holdings(engine)
            say(f"before: {before}")
            tally = anyio.run(soak, engine, options.minutes * 60, options.clients, options.seed)
            after = holdings(engine)
            say(f"after:  {after}")
    counts = ", ".join(f"{count} {what}" for what, count in tally.events.most_common())
    say(f"{tally.tokens} tokens; {counts}")
    say("nothing was lost" if before == after else "LOST")
    if options.json:
        figures = {"before": asdict(before), "after": asdict(after), "tokens": tally.tokens, **tally.events}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0 if before == after else 1


def warm_up(engine: Engine) -> None:
    """Capture every graph that the requests can need, so that none is counted as lost."""
    from dsv4agent.engine.runner.runner import WIDTHS

    model = cast("RunnerModel", engine.model)
    runner, capacity = model.runner, model.runner.state.capacity

    def capture() -> None:
        for width in (w for w in WIDTHS if w <= capacity.slots):
            end = 1
            while end <= capacity.context:
                # Away from pages: a sequence that stands somewhere without having been computed.
                members = [runner.open() for _ in range(width)]
                runner.sequences.prepare(members, end)
                for member in members:
                    member.position = end - 1
                runner.decode(members, [0] * width)
                for member in members:
                    member.close()
                end *= 2

    engine.scheduler.run(at_once(capture))
    anyio.run(soak, engine, _WARM_SECONDS, 24, 12345)


async def soak(engine: Engine, seconds: float, clients: int, seed: int) -> Tally:
    """Let clients work for some seconds."""
    tally, end = Tally(), anyio.current_time() + seconds
    beginnings = [_tokens(engine, Random(f"{seed}:beginning:{n}"), 700) for n in range(4)]
    async with anyio.create_task_group() as tasks:
        for number in range(clients):
            tasks.start_soon(_client, engine, Random(f"{seed}:{number}"), beginnings, end, tally)
    return tally


def holdings(engine: Engine) -> Holdings:
    """Let go of everything that is only kept to save time, and return what is in use."""
    model = cast("RunnerModel", engine.model)
    runner = model.runner
    engine.forget()
    gc.collect()
    engine.scheduler.run(at_once(lambda: runner.sequences.prepare([], 0)))
    allocated = 0
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        allocated = torch.cuda.memory_allocated()
    return Holdings(allocated, runner.state.free_pages, runner.sequences.count)


async def _client(
    engine: Engine, rng: Random, beginnings: Items[list[int]], end: float, tally: Tally
) -> None:
    while anyio.current_time() < end:
        tally.events["requests"] += 1
        ids = _tokens(engine, rng, rng.choice((1, 5, 60, 300, 1500)))
        if rng.random() < 0.5:
            known = rng.choice(beginnings)
            ids = [*known[: rng.randint(1, len(known))], *ids]
        ids = ids[: engine.max_context - 300]
        sequence = engine.open(ids)
        for _ in range(rng.randint(1, 3)):
            await _sample(sequence, rng, end, tally)
            sequence = _changed(engine, sequence, rng, tally)
        if rng.random() < 0.9:
            sequence.close()
        else:
            tally.events["forgotten"] += 1


async def _sample(sequence: Sequence, rng: Random, end: float, tally: Tally) -> None:
    params = SamplingParams(
        temperature=rng.choice((0.0, 1.0)),
        top_p=rng.choice((1.0, 1.0, 0.9)),
        seed=rng.getrandbits(40),
        max_tokens=rng.randint(1, 60),
        stop_token_ids=(),
    )
    patience = rng.choice((None, None, rng.random() * 0.2))
    with anyio.move_on_after(patience) as scope:
        try:
            async with aclosing(sequence.generate(params)) as steps:
                async for step in steps:
                    tally.tokens += len(step.tokens)
                    if anyio.current_time() > end:
                        break
        except CacheFull:
            # More clients than there is room for: this one waits for another time.
            tally.events["refused"] += 1
            await anyio.sleep(0.01)
            return
    tally.events["cancelled" if scope.cancelled_caught else "generated"] += 1


def _changed(engine: Engine, sequence: Sequence, rng: Random, tally: Tally) -> Sequence:
    """Return the sequence, or a fork of it, after a random change."""
    kind = rng.choice(("appended", "rewound", "forked", "left"))
    tally.events[kind] += 1
    if kind == "appended":
        sequence.append(_tokens(engine, rng, rng.randint(1, 20)))
    elif kind == "rewound":
        sequence.rewind(rng.randint(1, len(sequence.tokens)))
    elif kind == "forked":
        branch = sequence.fork()
        sequence.close()
        return branch
    return sequence


def _tokens(engine: Engine, rng: Random, count: int) -> list[int]:
    return [rng.randrange(engine.config.vocab_size) for _ in range(count)]


if __name__ == "__main__":
    raise SystemExit(main())
