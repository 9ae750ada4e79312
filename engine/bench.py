"""Measures prefill and decode speed: `python -m dsv4agent.engine.bench [--model DIR] [--context N] [--json]`.

Beside it, in the same run, with the same threads, dtype and tokens: the same checkpoint in Hugging Face
transformers (extra `bench`). Logits are compared first; a figure for a wrong result is worth nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from dsv4agent.engine.bench_transformers import TransformersModel
from dsv4agent.engine.engine import Engine
from dsv4agent.engine.sampling import SamplingParams
from dsv4agent.engine.weights.synthetic import mini_config, write_random_checkpoint

AGREEMENT = 1e-3
"""Largest difference of logits between the two programs, both in float32."""


@dataclass(frozen=True)
class Speed:
    """Medians over the repeats, in tokens per second."""

    name: str
    prefill: float
    decode: float


@dataclass(frozen=True)
class Report:
    """One run: what was measured, and how."""

    model: str
    context: int
    decoded: int
    repeats: int
    threads: int
    torch: str
    engine: Speed
    reference: Speed | None
    logit_difference: float | None

    @property
    def decode_ratio(self) -> float | None:
        """Our decode speed over the reference's."""
        return None if self.reference is None else self.engine.decode / self.reference.decode


def measure(folder: Path, context: int, decoded: int, repeats: int, threads: int, compare: bool) -> Report:
    """Measure one checkpoint folder; the context ends `decoded` tokens after the prefill."""
    torch.set_num_threads(threads)
    with Engine.load(folder, device="cpu", precision="fp32", threads=threads) as engine:
        draw = random.Random(0)
        prompt = [draw.randrange(engine.config.vocab_size) for _ in range(context - decoded)]
        reference = TransformersModel.from_checkpoint(folder) if compare else None
        difference = None if reference is None else _difference(engine, reference, prompt[:600])
        if difference is not None and not difference <= AGREEMENT:
            raise SystemExit(f"logits differ by {difference:.2e}: the programs do not compute the same model")
        ours: list[tuple[float, float]] = []
        theirs: list[tuple[float, float]] = []
        # In turns, so that a change of the machine's load meets both.
        for number in range(repeats):
            ours.append(_time_engine(engine, [*prompt[:-1], number], decoded))
            if reference is not None:
                theirs.append(_time_reference(reference, prompt, decoded))
    return Report(
        model=folder.name,
        context=context,
        decoded=decoded,
        repeats=repeats,
        threads=threads,
        torch=torch.__version__,
        engine=_median("dsv4agent", ours),
        reference=None if reference is None else _median(f"transformers {reference.version}", theirs),
        logit_difference=difference,
    )


def _difference(engine: Engine, reference: TransformersModel, prompt: list[int]) -> float:
    split = len(prompt) - 8
    expected = [reference.prefill(prompt[:split])]
    expected += [reference.decode(token) for token in prompt[split:]]
    actual = engine.logits(prompt)[split - 1 :]
    return float((actual - torch.stack(expected)).abs().max())


def _time_engine(engine: Engine, prompt: list[int], decoded: int) -> tuple[float, float]:
    """Return prefill and decode speed; the prompt's last token makes every repeat a cold one."""
    sequence = engine.open([prompt[-1], *prompt[:-1]])
    greedy = SamplingParams(temperature=0, stop_token_ids=(), max_tokens=decoded + 1)
    stream = sequence.stream(greedy)
    return _timed(len(prompt), decoded, lambda: next(stream))


def _time_reference(reference: TransformersModel, prompt: list[int], decoded: int) -> tuple[float, float]:
    token = -1

    def step() -> None:
        nonlocal token
        logits = reference.prefill(prompt) if token < 0 else reference.decode(token)
        token = int(logits.argmax())

    return _timed(len(prompt), decoded, step)


def _timed(prompt: int, decoded: int, step: Callable[[], object]) -> tuple[float, float]:
    """Time `step`, whose first call processes the prompt and each further one a token."""
    start = time.perf_counter()
    step()
    filled = time.perf_counter()
    for _ in range(decoded):
        step()
    return prompt / (filled - start), decoded / (time.perf_counter() - filled)


def _median(name: str, runs: list[tuple[float, float]]) -> Speed:
    prefill, decode = (statistics.median(values) for values in zip(*runs, strict=True))
    return Speed(name, prefill, decode)


def _print(report: Report) -> None:
    lines = [
        f"{report.model}: context {report.context}, {report.threads} threads, float32, greedy, "
        f"torch {report.torch}, medians of {report.repeats}",
        f"{'':24}{'prefill tok/s':>16}{'decode tok/s':>16}",
    ]
    measured = [report.engine] if report.reference is None else [report.engine, report.reference]
    lines += [f"{speed.name:24}{speed.prefill:16.1f}{speed.decode:16.1f}" for speed in measured]
    if report.reference is not None:
        prefill = report.engine.prefill / report.reference.prefill
        lines.append(f"{'ratio':24}{prefill:16.2f}{report.decode_ratio or 0.0:16.2f}")
        lines.append(f"largest difference of logits: {report.logit_difference:.2e}")
    sys.stdout.write("\n".join(lines) + "\n")


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m dsv4agent.engine.bench", description=__doc__)
    parser.add_argument("--model", default="random-mini", help="checkpoint folder, or random-mini")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=64, help="decoded tokens, up to the end of the context")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compare", action="store_true", help="leave transformers out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.model)
        if options.model == "random-mini":
            folder = write_random_checkpoint(Path(scratch) / "random-mini", mini_config())
        report = measure(
            folder,
            options.context,
            options.tokens,
            options.repeats,
            options.threads,
            not options.no_compare,
        )
    if options.json:
        sys.stdout.write(json.dumps({**asdict(report), "decode_ratio": report.decode_ratio}) + "\n")
    else:
        _print(report)


if __name__ == "__main__":
    main()
