"""Trials of equal bits: a sequence alone and whole, and the same one cut and among others.

    python -m dsv4agent.engine.runner.equality [--trials 50] [--layers 4] [--experts 32] [--json FILE]

Each trial draws a text, processes it at once and decodes some tokens alone; then again, with its prefill cut
at random multiples of 128 and with its tokens decoded in one batch with 1 to 31 other sequences, at a random
place among them. Every row of logits must have the same bits. The shapes are those of a published model, the
weights random.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from dsv4agent.engine.config import BLOCK
from dsv4agent.engine.lines import say
from dsv4agent.engine.runner.bench import reduced
from dsv4agent.engine.runner.runner import WIDTHS, Runner
from dsv4agent.engine.runner.sequences import DeviceSequence
from dsv4agent.engine.runner.state import Capacity
from dsv4agent.engine.runner.synthetic import random_weights
from dsv4agent.engine.weights.known_shapes import KNOWN, known_config
from dsv4agent.engine.weights.sizes import scales_may_be_packed

EVERY = 512
"""Up to this length the logits of every token are compared, else those at the cuts."""
OTHERS_LONGEST = 300


@dataclass(frozen=True)
class Trial:
    """One trial: what was drawn, how many rows of logits were compared, and how many differ."""

    number: int
    tokens: int
    cuts: tuple[int, ...]
    others: int
    decoded: int
    rows: int
    different: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials; 0 if all rows are equal, 1 if not, 2 without a card."""
    parser = argparse.ArgumentParser(
        prog="python -m dsv4agent.engine.runner.equality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", choices=sorted(KNOWN), default="flash")
    add("--layers", type=int, default=4, help="the first so many; 4 have every kind")
    add("--experts", type=int, default=32, help="of a layer")
    add("--trials", type=int, default=50)
    add("--longest", type=int, default=3000, help="tokens of a text at most")
    add("--seed", type=int, default=0)
    add("--json", type=Path, help="write all trials to this file")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stdout.write("needs a CUDA device\n")
        return 2
    config = reduced(known_config(options.model), options.layers, options.experts)
    generator = torch.Generator("cuda").manual_seed(1)
    weights = random_weights(config, generator, packed_scales=scales_may_be_packed(config))
    longest = -(-options.longest // BLOCK) * BLOCK
    runner = Runner(
        config, weights, Capacity.of(WIDTHS[-1], longest + 2 * BLOCK, longest), torch.device("cuda")
    )
    trials = run_trials(runner, options.trials, longest=options.longest, seed=options.seed, say=say)
    bad = sum(trial.different > 0 for trial in trials)
    rows = sum(trial.rows for trial in trials)
    say(f"{len(trials) - bad} of {len(trials)} trials equal, {rows} rows of logits")
    if options.json:
        options.json.write_text(json.dumps([asdict(trial) for trial in trials], indent=1) + "\n", "utf-8")
    return 1 if bad else 0


def run_trials(
    runner: Runner,
    count: int,
    *,
    longest: int,
    seed: int = 0,
    most_others: int = WIDTHS[-1] - 1,
    same: Callable[[Tensor, Tensor], bool] = torch.equal,
    say: Callable[[str], object] = lambda _line: None,
) -> list[Trial]:
    """Run trials whose texts have up to `longest` tokens, less than the runner has room for."""
    trials: list[Trial] = []
    for number in range(count):
        trial = _trial(runner, number, Random(f"{seed}:{number}"), longest, most_others, same)
        trials.append(trial)
        say(
            f"{number + 1:3}: {trial.tokens:5} tokens, {len(trial.cuts)} cuts, {trial.others:2} others: "
            f"{trial.rows} rows, {trial.different} different"
        )
    return trials


def _trial(
    runner: Runner,
    number: int,
    rng: Random,
    longest: int,
    most_others: int,
    same: Callable[[Tensor, Tensor], bool],
) -> Trial:
    length, decoded = rng.randint(1, longest), rng.randint(2, 6)
    ids = _tokens(runner, rng, length + decoded)
    places = range(BLOCK, length, BLOCK)
    cuts = tuple(sorted(rng.sample(places, rng.randint(0, min(4, len(places))))))
    bounds = [0, *cuts, length]
    every = length <= EVERY
    alone = runner.open()
    expected = runner.prefill(alone, ids[:length], every=True)
    if not every:
        expected = expected[[end - 1 for end in bounds[1:]]]
    expected = torch.cat((expected, _decoded(runner, [alone], [ids[length:]], 0)))
    alone.close()
    pieces = runner.open()
    found = [runner.prefill(pieces, ids[start:end], every=every) for start, end in pairwise(bounds)]
    others = [runner.open() for _ in range(rng.randint(1, most_others))]
    for other in others:
        runner.prefill(other, _tokens(runner, rng, rng.randint(1, min(longest, OTHERS_LONGEST))))
    place = rng.randint(0, len(others))
    members = [*others[:place], pieces, *others[place:]]
    texts = [_tokens(runner, rng, decoded) for _ in members]
    texts[place] = ids[length:]
    found.append(_decoded(runner, members, texts, place))
    for member in members:
        member.close()
    rows = zip(torch.cat(found).split(1), expected.split(1), strict=True)
    different = [not same(row, wanted) for row, wanted in rows]
    return Trial(number, length, cuts, len(others), decoded, len(different), sum(different))


def _decoded(
    runner: Runner, members: Sequence[DeviceSequence], texts: Sequence[Sequence[int]], place: int
) -> Tensor:
    """Feed each member its tokens, one at a time; return the logits of the member at `place`."""
    steps = zip(*texts, strict=True)
    return torch.stack([runner.decode(members, ids).logits[place].clone() for ids in steps])


def _tokens(runner: Runner, rng: Random, count: int) -> list[int]:
    return [rng.randrange(runner.config.vocab_size) for _ in range(count)]


if __name__ == "__main__":
    raise SystemExit(main())
