"""Measures decoding and prefill at a model's real shapes with random weights, on the card.

    python -m dsv4agent.engine.runner.bench [--model flash|pro] [--layers N] [--experts N] [--json FILE]

Weights and cached rows are drawn on the device. Every figure stands beside its floor: the bytes that a step
must read over the speed of a streaming read, or its operations over the speed of large products, both
measured in the same run. `--profile` adds the kernels of a decode step by time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dsv4agent.engine.config import DrafterKind, ModelConfig
from dsv4agent.engine.kernels.ceilings import Ceilings, measure_ceilings
from dsv4agent.engine.lines import say
from dsv4agent.engine.memory import available_bytes, pinnable_bytes
from dsv4agent.engine.ops.lists import integers
from dsv4agent.engine.runner.peer import Peer
from dsv4agent.engine.runner.runner import Runner
from dsv4agent.engine.runner.sequences import DeviceSequence
from dsv4agent.engine.runner.state import Capacity
from dsv4agent.engine.runner.synthetic import fill_state, random_weights
from dsv4agent.engine.runner.weights import ModelWeights
from dsv4agent.engine.weights.known_shapes import KNOWN, known_config
from dsv4agent.engine.weights.memory_plan import MemoryPlan
from dsv4agent.engine.weights.plan import Part, plan_memory

Say = Callable[[str], object]
ROUTINGS = ("uniform", "resident")
_HUGE = 1 << 50
_MARGIN = 1024
"""Tokens of room behind a context, for the steps of a measurement."""


@dataclass(frozen=True)
class BenchOrder:
    """What to measure.

    Attributes:
        model: Name of a published checkpoint.
        layers: Only the first so many; None for all.
        experts: So many experts a layer, as if routing knew no others; None for all.
        contexts: Tokens before the decode steps.
        widths: Sequences that decode together.
        prefill: Lengths of prefill runs.
        steps: Decode steps of one measurement.
        routing: `uniform`, over all experts, or `resident`, over those that are on the card.
        profile: Whether to list the kernels of a decode step by time.
        transformers: Whether to time the library on the same weights; the card must hold both.
    """

    model: str = "flash"
    layers: int | None = None
    experts: int | None = None
    contexts: tuple[int, ...] = (8192,)
    widths: tuple[int, ...] = (1, 8)
    prefill: tuple[int, ...] = (4096,)
    steps: int = 30
    routing: str = "uniform"
    profile: bool = False
    transformers: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, or 2 without a card."""
    parser = argparse.ArgumentParser(
        prog="python -m dsv4agent.engine.runner.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, given = parser.add_argument, BenchOrder()
    add("--model", choices=sorted(KNOWN), default=given.model)
    add("--layers", type=int, help="only the first so many layers")
    add("--experts", type=int, help="so many experts a layer: as if routing knew no others")
    add(
        "--contexts", type=numbers, default=given.contexts, help="tokens before the decode steps: 8192,131072"
    )
    add("--widths", type=numbers, default=given.widths, help="sequences that decode together: 1,8")
    add("--prefill", type=numbers, default=given.prefill, help="tokens of prefill runs; empty for none")
    add("--steps", type=int, default=given.steps, help="decode steps of one measurement")
    add("--routing", choices=ROUTINGS, default=given.routing, help="over all experts, or those on the card")
    add("--profile", action="store_true", help="kernels of a decode step by time")
    add("--transformers", action="store_true", help="time the library on the same weights in this run")
    add("--json", type=Path, help="write all figures to this file")
    options = vars(parser.parse_args(arguments))
    file: Path | None = options.pop("json")
    if not torch.cuda.is_available():
        sys.stdout.write("needs a CUDA device\n")
        return 2
    rows = Benchmark(BenchOrder(**options), say).run()
    if file:
        file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


class Benchmark:
    """One run with one set of weights."""

    def __init__(self, order: BenchOrder, say: Say) -> None:
        """Prepare `order`; lines for people go to `say`."""
        self._order = order
        self._say = say
        self.config = reduced(known_config(order.model), order.layers, order.experts)
        self.rows: list[dict[str, Any]] = []

    def run(self) -> list[dict[str, Any]]:
        """Measure everything asked for."""
        ceilings = measure_ceilings()
        torch.cuda.empty_cache()
        rates = ", ".join(f"{unit} {rate / 1e12:.0f} TFLOP/s" for unit, rate in ceilings.operations.items())
        self._say(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
        self._say(
            f"read {ceilings.read / 1e9:.0f} GB/s, from the host {ceilings.link / 1e9:.0f} GB/s, {rates}"
        )
        plan = self._plan()
        generator = torch.Generator("cuda").manual_seed(1)
        begin = time.monotonic()
        weights = random_weights(
            self.config,
            generator,
            on_host=lambda layer, expert: expert >= plan.resident[layer],
            embedding_on_host=plan.part(Part.EMBEDDING).host > 0,
            routed=plan.resident if self._order.routing == "resident" else None,
            packed_scales=plan.packed_scales,
        )
        torch.cuda.synchronize()
        seconds, size = time.monotonic() - begin, torch.cuda.memory_allocated() / 2**30
        shape = f"{len(self.config.layers)} layers, {self.config.n_routed_experts} experts"
        self._say(f"{self._order.model}, {shape}: {size:.1f} GiB of weights in {seconds:.1f} s")
        widths, contexts, lengths = self._order.widths, self._order.contexts, self._order.prefill
        longest = max(*contexts, *lengths, 0) + _MARGIN
        for context in contexts:
            count = self._count(context)
            runner = Runner(
                self.config, weights, Capacity.of(count, context + _MARGIN, 512), torch.device("cuda")
            )
            fill_state(runner.state, generator)
            for width in widths:
                if width <= count:
                    self._decode(runner, context, width, ceilings, plan)
            if self._order.profile and context == contexts[0]:
                self._profile(runner, context)
            del runner
            torch.cuda.empty_cache()
        if lengths:
            capacity = Capacity.of(1, longest, 4096)
            runner = Runner(self.config, weights, capacity, torch.device("cuda"))
            for length in lengths:
                self._prefill(runner, length)
            if self._order.transformers:
                self._beside(runner, weights, lengths[0])
        return self.rows

    def _plan(self) -> MemoryPlan:
        """Return where the weights go on this machine; it is told if they do not all fit on the card."""
        order = self._order
        sizes = [(context, self._count(context)) for context in order.contexts]
        context, sequences = max(
            [*sizes, (max(order.prefill, default=1), 1)], key=lambda size: size[0] * size[1]
        )
        torch.cuda.empty_cache()
        plan = plan_memory(
            self.config,
            gpu_bytes=available_bytes(torch.device("cuda")),
            host_bytes=pinnable_bytes(),
            context=min(context + _MARGIN, self.config.max_position_embeddings),
            sequences=sequences,
            packed_scales=True,
        )
        if plan.host_bytes:
            for line in plan.describe():
                self._say(line)
        return plan

    def _count(self, context: int) -> int:
        """Return how many sequences of this length are kept."""
        return max(*self._order.widths, 1) if context <= 131072 else 1

    def _beside(self, runner: Runner, weights: ModelWeights, length: int) -> None:
        peer = Peer(self._order.model, self.config, weights)
        for found in peer.compare(runner, self._tokens(length), self._order.steps):
            self._say(
                f"{found.what:8} {found.tokens:8} tokens: {found.ours:9.3f} ms, transformers {peer.version} "
                f"{found.theirs:9.3f} ms, {found.ratio:.1f} times"
            )
            row = {"ms": found.ours, "transformers_ms": found.theirs, "ratio": found.ratio}
            self.rows.append({"what": f"{found.what} beside", "tokens": found.tokens, **row})

    def _decode(
        self, runner: Runner, context: int, width: int, ceilings: Ceilings, placed: MemoryPlan
    ) -> None:
        members = [_opened(runner, context) for _ in range(width)]
        ids = self._tokens(width)
        batch = runner.decode(members, ids, steps=3)
        steps, times = self._order.steps, list[float]()
        for _ in range(3):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            batch = runner.decode(members, integers(batch.ids), steps=steps)
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / steps)
        finite = bool(torch.isfinite(batch.logits[:width]).all())
        for member in members:
            member.close()
        plan = plan_memory(
            self.config, gpu_bytes=_HUGE, host_bytes=0, context=context, packed_scales=placed.packed_scales
        )
        share = 1.0 if self._order.routing == "resident" else placed.resident_share
        floor = plan.bytes_per_token(share).floor_ms(ceilings.read, ceilings.link)
        median = statistics.median(times)
        self._note(
            "decode",
            context,
            width,
            median,
            floor if width == 1 else None,
            f"{width * 1e3 / median:7.1f} tok/s{'' if finite else '  NOT FINITE'}",
        )

    def _prefill(self, runner: Runner, length: int) -> None:
        ids = self._tokens(length)
        times, finite = list[float](), True
        for _ in range(2):
            torch.cuda.reset_peak_memory_stats()
            sequence = runner.open()
            torch.cuda.synchronize()
            begin = time.monotonic()
            logits = runner.prefill(sequence, ids)
            torch.cuda.synchronize()
            times.append((time.monotonic() - begin) * 1e3)
            sequence.close()
            finite = finite and bool(torch.isfinite(logits).all())
        peak = torch.cuda.max_memory_allocated() / 2**30
        self._note(
            "prefill",
            length,
            1,
            times[-1],
            None,
            f"{length * 1e3 / times[-1]:7.0f} tok/s, peak {peak:.1f} GiB{'' if finite else '  NOT FINITE'}",
        )

    def _profile(self, runner: Runner, context: int) -> None:
        member = _opened(runner, context)
        runner.decode([member], [1], steps=2)
        torch.cuda.synchronize()
        steps = 4
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            runner.decode([member], [1], steps=steps)
            torch.cuda.synchronize()
        member.close()
        events: Any = profile.key_averages()  # It has no type annotations.
        found: list[tuple[str, float, float]] = [
            (str(event.key), float(event.self_device_time_total) / steps / 1e3, float(event.count) / steps)
            for event in events
        ]
        found.sort(key=lambda row: -row[1])
        total = sum(row[1] for row in found)
        launches = sum(row[2] for row in found)
        self._say(f"kernels of a decode step at {context}: {total:.3f} ms, {launches:.0f} launches")
        for name, ms, count in found[:28]:
            each = f"{count:7.1f} x {1e3 * ms / count:7.2f} us"
            self._say(f"  {ms:8.4f} ms {100 * ms / total:5.1f} % {each}  {name[:60]}")
            self.rows.append({"what": "kernel", "name": name, "ms": ms, "count": count})

    def _tokens(self, count: int) -> list[int]:
        return integers(torch.randint(0, self.config.vocab_size, (count,)))

    def _note(self, what: str, size: int, width: int, ms: float, floor: float | None, more: str) -> None:
        share = "" if floor is None else f" floor {floor:7.3f} ms, {100 * floor / ms:3.0f} %"
        self._say(f"{what:8} {size:8} tokens x {width:2}: {ms:9.3f} ms {more}{share}")
        self.rows.append({"what": what, "tokens": size, "width": width, "ms": ms, "floor_ms": floor})


def _opened(runner: Runner, context: int) -> DeviceSequence:
    """Return a sequence that stands after `context` tokens, whatever its rows hold."""
    sequence = runner.open()
    runner.sequences.prepare([sequence], context)
    sequence.position = context
    return sequence


def reduced(config: ModelConfig, layers: int | None, experts: int | None) -> ModelConfig:
    """Return a configuration with fewer layers or experts, and no drafter."""
    return dataclasses.replace(
        config,
        layers=config.layers[:layers],
        n_routed_experts=experts or config.n_routed_experts,
        draft_layers=(),
        drafter=DrafterKind.NONE,
    )


def numbers(text: str) -> tuple[int, ...]:
    """Read comma-separated numbers. Raises `ValueError`."""
    return tuple(int(part) for part in text.split(",") if part.strip())


if __name__ == "__main__":
    raise SystemExit(main())
