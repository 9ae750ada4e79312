"""Measure how many repositories a model repairs: `python -m examples.train_mini.evaluate --model DIR`.

The repairs run against an in-process world whose tool results equal the real tools' byte for byte: on a GPU
in batches, on a CPU with the product's engine and grammar, one process a core. `--agent` runs the real agent
loop with the real tools in a real sandbox instead, one repository after another.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dsv4agent.backends.checkpoint import Checkpoint
from examples.train_mini.agent_runs import run_with_agent
from examples.train_mini.closed_loop import Limits, Outcome, Transcript
from examples.train_mini.engine_runs import run_with_engine
from examples.train_mini.export import load_model
from examples.train_mini.repetition import STUCK
from examples.train_mini.rollout import (
    WORLDS,
    Rollout,
    Sampling,
    choose_device,
    compute_type,
    default_workers,
)
from examples.train_mini.world_pool import Task, WorldPool

BUNDLED = Path(__file__).parents[2] / "dsv4agent" / "assets" / "mini"
SETS = {"known": 200, "unseen": 200, "library": 100}
Runner = Callable[[Sequence[Task], float], list[Outcome]]


@dataclasses.dataclass(frozen=True)
class Result:
    """Outcomes of one set at one temperature, and the time they took."""

    collection: str
    temperature: float
    outcomes: list[Outcome]
    seconds: float

    @property
    def solved(self) -> int:
        """Number of repositories repaired."""
        return sum(outcome.solved for outcome in self.outcomes)

    def summary(self) -> dict[str, Any]:
        """Return the figures of the tables."""
        families: dict[str, list[bool]] = defaultdict(list)
        for outcome in self.outcomes:
            families[outcome.family].append(outcome.solved)
        unsolved = [outcome for outcome in self.outcomes if not outcome.solved]
        failures = Counter(outcome.ending.value for outcome in unsolved)
        count = max(1, len(self.outcomes))
        return {
            "set": self.collection,
            "temperature": self.temperature,
            "solved": self.solved,
            "n": len(self.outcomes),
            "share": round(self.solved / count, 4),
            "first_try": sum(outcome.first_try for outcome in self.outcomes),
            "mean_steps": round(sum(outcome.steps for outcome in self.outcomes) / count, 2),
            "mean_tries": round(sum(outcome.tries for outcome in self.outcomes) / count, 2),
            "mean_tokens": round(sum(outcome.tokens for outcome in self.outcomes) / count),
            "families": {name: [sum(solved), len(solved)] for name, solved in sorted(families.items())},
            "failures": dict(sorted(failures.items())),
            "stuck": sum(outcome.repeats >= STUCK for outcome in unsolved),
            "seconds": round(self.seconds, 1),
        }


def evaluate(
    runner: Runner, sets: Sequence[str], count: int | None, temperatures: Sequence[float]
) -> list[Result]:
    """Run every set at every temperature; `count` repositories of each set, or as many as it has."""
    results: list[Result] = []
    for collection in sets:
        tasks = [Task(collection, index) for index in range(count or SETS[collection])]
        for temperature in temperatures:
            begin = time.monotonic()
            outcomes = runner(tasks, temperature)
            results.append(Result(collection, temperature, outcomes, time.monotonic() - begin))
    return results


def tables(results: Sequence[Result]) -> str:
    """Return the results as text: one line a set, then bug families, then why runs failed."""
    summaries = [result.summary() for result in results]
    labels = [
        f"{s['set']} " + ("greedy" if s["temperature"] == 0 else f"T={s['temperature']:g}") for s in summaries
    ]
    lines = [f"{'':24}{'solved':>14}{'first try':>11}{'steps':>8}{'tries':>8}{'tokens':>8}{'seconds':>9}"]
    for label, s in zip(labels, summaries, strict=True):
        solved = f"{s['solved']}/{s['n']} {100 * s['share']:.0f}%"
        lines.append(
            f"{label:24}{solved:>14}{s['first_try']:>11}{s['mean_steps']:>8}{s['mean_tries']:>8}"
            f"{s['mean_tokens']:>8}{s['seconds']:>9}"
        )
    families = sorted({name for s in summaries for name in s["families"]})
    if families:
        lines += ["", f"{'bug family':24}" + "".join(f"{label:>18}" for label in labels)]
    for family in families:
        cells = ["{}/{}".format(*s["families"].get(family, (0, 0))) for s in summaries]
        lines.append(f"{family:24}" + "".join(f"{cell:>18}" for cell in cells))
    endings = sorted({name for s in summaries for name in s["failures"]})
    if endings:
        lines += ["", f"{'not solved because':24}" + "".join(f"{label:>18}" for label in labels)]
    for ending in endings:
        lines.append(f"{ending:24}" + "".join(f"{s['failures'].get(ending, 0):>18}" for s in summaries))
    if endings:
        lines.append(
            f"{f'same edit {STUCK}+ times more':24}" + "".join(f"{s['stuck']:>18}" for s in summaries)
        )
    return "\n".join(lines)


def save_transcripts(path: Path | None, temperature: float, transcripts: Sequence[Transcript]) -> None:
    """Append transcripts to a file, if there is one, as one JSON object a line."""
    if path is None:
        return
    with path.open("a", encoding="utf-8") as file:
        for transcript in transcripts:
            fields = {"temperature": temperature, **dataclasses.asdict(transcript)}
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, default=BUNDLED, help="exported checkpoint; the bundled one by default"
    )
    parser.add_argument("--sets", default=",".join(SETS), help=f"comma-separated, of {', '.join(SETS)}")
    parser.add_argument("--n", type=int, help="repositories of each set")
    parser.add_argument("--temperature", type=float, help="sampling temperature (default: greedy and 1.0)")
    parser.add_argument("--greedy", action="store_true", help="greedy; with --temperature, both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, help="repositories at once on a GPU")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--worlds", default=WORLDS, help="package.module:function that makes worlds")
    parser.add_argument(
        "--redraws", type=int, help="draw turns without new edits again; default: what the model recommends"
    )
    parser.add_argument("--agent", action="store_true", help="the real agent loop, tools and sandbox")
    parser.add_argument("--json", type=Path, help="file for all outcomes")
    parser.add_argument("--transcripts", type=Path, help="file for the texts of unsolved runs, as JSON lines")
    arguments = parser.parse_args()
    if arguments.transcripts and arguments.agent:
        parser.error("--transcripts is for runs in the process; sessions of --agent keep their own")
    if arguments.transcripts:
        arguments.transcripts.write_text("", encoding="utf-8")
    temperatures = [0.0] if arguments.greedy else []
    if arguments.temperature is not None:
        temperatures.append(arguments.temperature)
    temperatures = temperatures or [0.0, 1.0]
    sets = arguments.sets.split(",")
    limits = Limits(arguments.steps, arguments.context)
    recommended = Checkpoint.find(arguments.model).defaults.redraws
    redraws: int = recommended if arguments.redraws is None else arguments.redraws
    if arguments.agent:

        def with_agent(tasks: Sequence[Task], temperature: float) -> list[Outcome]:
            return run_with_agent(
                arguments.model, tasks, temperature, limits, seed=arguments.seed, redraws=redraws
            )

        results = evaluate(with_agent, sets, arguments.n, temperatures)
    elif choose_device(arguments.device) == "cpu":

        def with_engine(tasks: Sequence[Task], temperature: float) -> list[Outcome]:
            unsolved: list[Transcript] = []
            outcomes = run_with_engine(
                arguments.model,
                tasks,
                temperature,
                limits,
                seed=arguments.seed,
                redraws=redraws,
                workers=len(os.sched_getaffinity(0)),
                transcripts=unsolved,
            )
            save_transcripts(arguments.transcripts, temperature, unsolved)
            return outcomes

        results = evaluate(with_engine, sets, arguments.n, temperatures)
    else:
        results = evaluate_batched(arguments, sets, temperatures, limits, redraws)
    print(tables(results))
    if arguments.json:
        data = [
            {**result.summary(), "outcomes": [dataclasses.asdict(outcome) for outcome in result.outcomes]}
            for result in results
        ]
        arguments.json.write_text(json.dumps(data, indent=1), encoding="utf-8")


def evaluate_batched(
    arguments: argparse.Namespace,
    sets: Sequence[str],
    temperatures: Sequence[float],
    limits: Limits,
    redraws: int,
) -> list[Result]:
    """Evaluate in batches on a GPU."""
    device = choose_device(arguments.device)
    model = load_model(arguments.model, device=device, dtype=compute_type(device))
    largest = max(arguments.n or SETS[name] for name in sets)
    batch = min(largest, arguments.batch or 256)
    tokenizer = arguments.model / "tokenizer.json"
    with WorldPool(arguments.worlds, tokenizer, workers=arguments.workers, limits=limits) as pool:
        rollout = Rollout(model, pool, batch=batch, limits=limits)

        def runner(tasks: Sequence[Task], temperature: float) -> list[Outcome]:
            unsolved: list[Transcript] = []
            sampling = Sampling(temperature, arguments.seed, redraws=redraws)
            outcomes = rollout.run(tasks, sampling, transcripts=unsolved)
            save_transcripts(arguments.transcripts, temperature, unsolved)
            return outcomes

        return evaluate(runner, sets, arguments.n, temperatures)


if __name__ == "__main__":
    main()
