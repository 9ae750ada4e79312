"""Train the mini model for a given time: `python -m examples.train_mini.training --minutes 17 --out DIR`.

The schedule follows the clock, so the run ends on time with an annealed, quantisation-aware model whatever
the speed. DIR receives `log.txt`, `status.json` (every 10 s), `checkpoint.pt` (fp32 masters and optimizer),
`feeders-0.log`, `collected-0.npz` (documents of `--collect-at`) and `export/` (the official-format
checkpoint). SIGTERM ends the run early with a checkpoint and an export. On several GPUs of one host, start it
by `torchrun --nproc-per-node N -m`; rows, workers and collected runs count for each GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from examples.train_mini.architecture import MiniConfig
from examples.train_mini.collection import LEAD, Collector
from examples.train_mini.export import TOKENIZER, export, load_model, training_noted
from examples.train_mini.optimizer import OptimizerConfig
from examples.train_mini.packing import Rows, RowStream
from examples.train_mini.ranks import Ranks
from examples.train_mini.rollout import WORLDS
from examples.train_mini.trainer import (
    LossWeights,
    Schedule,
    StepLosses,
    Trainer,
    save_compile_cache,
    use_compile_cache,
)

SOURCE = "examples.train_mini.episodes:documents"
CACHE = Path(tempfile.gettempdir()) / "dsv4agent-mini-kernels"
LOG_EVERY = 100
MAX_ID = np.iinfo(np.int16).max
READ_EVERY = 20


class Status:
    """`status.json`, rewritten every few seconds by a thread, and the log."""

    def __init__(self, folder: Path, interval: float = 10.0, *, quiet: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._quiet = quiet
        self._path = folder / "status.json"
        self._log = (folder / "log.txt").open("a", encoding="utf-8")
        self._started = time.monotonic()
        self._fields: dict[str, Any] = {"state": "starting", "pid": os.getpid()}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(interval,), name="status", daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Time since the start of the process's work."""
        return time.monotonic() - self._started

    def update(self, **fields: Any) -> None:
        """Change fields; the file follows at its own pace."""
        with self._lock:
            self._fields.update(fields)

    def say(self, message: str) -> None:
        """Print and log one line."""
        if self._quiet:
            return
        line = f"[{self.seconds:7.1f}] {message}"
        print(line, flush=True)
        self._log.write(line + "\n")
        self._log.flush()

    def close(self, state: str) -> None:
        """Write the final state and stop."""
        self.update(state=state)
        self._stop.set()
        self._thread.join(timeout=5)
        self._write()
        self._log.close()

    def _run(self, interval: float) -> None:
        self._write()
        while not self._stop.wait(interval):
            self._write()

    def _write(self) -> None:
        with self._lock:
            fields = {**self._fields, "seconds": round(self.seconds, 1)}
        if self._quiet:
            return
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(fields, indent=1), encoding="utf-8")
        os.replace(partial, self._path)


class StopRequest:
    """Set by SIGTERM or SIGINT; the loop reads it between steps."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._set)

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


def run(arguments: argparse.Namespace) -> None:
    """Train as the command line says."""
    if any(not 0 <= share < arguments.quantise_from for share in arguments.collect_at):
        raise ValueError(
            f"--collect-at {arguments.collect_at} must lie between 0 and --quantise-from "
            f"{arguments.quantise_from}: runs are made with weights that are not rounded yet."
        )
    ranks = Ranks()
    status, stop = Status(arguments.out, quiet=not ranks.first), StopRequest()
    stream: RowStream | None = None
    collector: Collector | None = None
    try:
        use_compile_cache(arguments.cache_dir, arguments.cache_tar)
        further = arguments.out / f"collected-{ranks.rank}.npz"
        if not arguments.resume:
            further.unlink(missing_ok=True)
        stream = RowStream(
            arguments.source,
            workers=arguments.workers,
            length=arguments.row_length,
            seed=arguments.seed + 7919 * ranks.rank,
            extra=arguments.extra,
            extra_share=arguments.extra_share,
            further=further if arguments.collect_at else None,
            pool_rows=arguments.pool_rows,
            log=arguments.out / f"feeders-{ranks.rank}.log",
        )
        trainer = make_trainer(arguments, ranks)
        collector = Collector(arguments, trainer, stream, lambda: stop.requested)
        loop(arguments, trainer, stream, collector, status, stop)
    except BaseException:
        sys.stderr.write(f"rank {ranks.rank} failed\n")
        status.say("failed\n" + traceback.format_exc())
        status.close("failed")
        raise
    finally:
        if collector is not None:
            collector.close()
        if stream is not None:
            stream.close()
    status.close("done")
    ranks.close()


def make_trainer(arguments: argparse.Namespace, ranks: Ranks) -> Trainer:
    """Build model and optimizer from the command line."""
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    initial = load_model(arguments.init_from).train() if arguments.init_from else None
    config = initial.config if initial else model_config(arguments.tokenizer, arguments.config)
    return Trainer(
        config,
        device=device,
        seed=arguments.seed,
        optimizer=OptimizerConfig(muon_rate=arguments.muon_rate, adam_rate=arguments.adam_rate),
        losses=LossWeights(environment=arguments.environment_loss, indexer=arguments.indexer_loss),
        compiled=device == "cuda" and not arguments.eager,
        initial=initial,
        ranks=ranks,
    )


def model_config(tokenizer: Path, overrides: str) -> MiniConfig:
    """Return the architecture for a tokenizer's vocabulary; JSON `overrides` change fields of it."""
    data = json.loads(tokenizer.read_text(encoding="utf-8"))
    ids = [*data["model"]["vocab"].values(), *(token["id"] for token in data["added_tokens"])]
    if max(ids) > MAX_ID:
        raise ValueError(f"{tokenizer} has ids up to {max(ids)}; packed rows hold ids up to {MAX_ID}.")
    fields = json.loads(overrides)
    if "ratios" in fields:
        fields["ratios"] = tuple(fields["ratios"])
    return dataclasses.replace(MiniConfig(vocab_size=max(ids) + 1), **fields)


def loop(
    arguments: argparse.Namespace,
    trainer: Trainer,
    stream: RowStream,
    collector: Collector,
    status: Status,
    stop: StopRequest,
) -> None:
    """Warm up, train until the time is over or a stop is requested, save and export."""
    schedule = Schedule(arguments.warmup, arguments.anneal_from, 0.02, arguments.quantise_from)
    # Read now: the export may take the place of the checkpoint that this started from.
    noted = training_noted(arguments.init_from) if arguments.init_from else ""
    earlier = f"{noted}; then " if noted else ""
    spent, tokens, step = 0.0, 0, 0
    if arguments.resume:
        progress = trainer.restore(arguments.resume)
        spent, tokens, step = progress["spent"], progress["tokens"], progress["step"]
        status.say(f"resumed at step {step}, {spent:.0f} s, {tokens / 1e6:.1f} M tokens")
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    status.say(
        f"{parameters / 1e6:.2f} M parameters on {trainer.device}, "
        f"vocabulary {trainer.model.config.vocab_size}"
    )
    status.update(state="compiling")
    trainer.warm_up(random_rows(arguments.rows, arguments.row_length, trainer.model.config.vocab_size))
    status.say("kernels ready")
    if arguments.cache_tar is not None and not arguments.cache_tar.exists():
        size = save_compile_cache(arguments.cache_dir, arguments.cache_tar)
        status.say(f"kernels packed into {arguments.cache_tar}, {size / 2**20:.1f} MiB")
    status.update(state="filling")
    stream.wait_for(4 * arguments.rows, timeout=300)
    begin = time.monotonic()
    budget = spent + max(1.0, arguments.minutes * 60 - status.seconds - arguments.reserve)
    status.say(f"first rows are there; training for {budget - spent:.0f} s")
    saved, mark, mark_tokens = begin, begin, tokens
    waited = 0.0
    losses: StepLosses | None = None
    collector.skip(trainer.ranks.agree(spent / budget))
    while True:
        elapsed = spent + time.monotonic() - begin
        ended = stop.requested or step >= arguments.max_steps
        progress = trainer.ranks.agree(1.0 if ended else elapsed / budget)
        if progress >= 1:
            break
        if collector.due(progress):
            paused = time.monotonic()
            status.update(state="collecting")
            status.say(f"p {progress:.3f} {collector.collect(progress)}")
            # The pause counts as time of the schedule, not of the training's speed.
            mark += time.monotonic() - paused
            continue
        collector.prepare(progress + LEAD / budget)
        quantised = progress >= schedule.quantise_from
        if quantised and not trainer.optimizer.quantised:
            status.say("rounding weights to their storage formats; sparse selection on")
        trainer.set_quantised(quantised)
        factor = schedule.factor(progress, step)
        before = time.monotonic()
        rows = stream.batch(arguments.rows)
        waited += time.monotonic() - before
        losses = trainer.step(rows, factor, sparse=quantised)
        step += 1
        tokens += rows.tokens * trainer.ranks.size
        if step % READ_EVERY == 0 or step <= 3:
            fields = readable(losses)
            if not np.isfinite(fields["assistant"]):
                raise FloatingPointError(
                    f"The loss is {fields['assistant']} at step {step}; lower the rates."
                )
            status.update(
                state="training",
                step=step,
                tokens=tokens,
                progress=round(progress, 4),
                factor=round(factor, 4),
                **fields,
            )
        if step % LOG_EVERY == 0 or step <= 3:
            now = time.monotonic()
            speed = (tokens - mark_tokens) / max(now - mark, 1e-9)
            status.update(tokens_per_s=round(speed), fresh=stream.fresh, replayed=stream.replayed)
            memory = torch.cuda.max_memory_allocated() / 1e9 if trainer.device.type == "cuda" else 0.0
            status.say(
                f"step {step} p {progress:.3f} lr {factor:.3f} "
                + " ".join(f"{name} {value:.4f}" for name, value in readable(losses).items())
                + f" tok/s {speed:,.0f} Mtok {tokens / 1e6:.1f}"
                + f" fresh {stream.fresh} replayed {stream.replayed} waiting {stream.waiting}"
                + f" data wait {waited:.2f} s mem {memory:.1f} GB"
            )
            mark, mark_tokens, waited = now, tokens, 0.0
        if time.monotonic() - saved > arguments.save_minutes * 60:
            saved = time.monotonic()
            finish(arguments, trainer, status, elapsed, tokens, step, earlier=earlier, check=False)
    status.update(state="finishing")
    status.say(f"{'stopped' if stop.requested else 'ended'} at step {step}, {tokens / 1e6:.1f} M tokens")
    elapsed = spent + time.monotonic() - begin
    checked = not arguments.no_check
    finish(arguments, trainer, status, elapsed, tokens, step, earlier=earlier, check=checked)


def finish(
    arguments: argparse.Namespace,
    trainer: Trainer,
    status: Status,
    spent: float,
    tokens: int,
    step: int,
    *,
    earlier: str,
    check: bool,
) -> None:
    """Write the checkpoint and the export, whose card begins with the `earlier` training."""
    if not trainer.ranks.first:
        return
    path = arguments.out / "checkpoint.pt"
    trainer.save(path, spent=spent, tokens=tokens, step=step)
    card = {"training": f"{earlier}{tokens / 1e6:.0f} M tokens, {step} steps"}
    masters = trainer.optimizer.masters()
    report = export(
        trainer.model,
        masters,
        arguments.out / "export",
        tokenizer=arguments.tokenizer,
        card=card,
        check=check,
    )
    difference = "unchecked" if report.difference is None else f"{report.difference:.1e}"
    status.update(checkpoint=str(path), export=str(report.folder))
    status.say(f"saved {path}; exported {report.size:,} bytes, difference from the engine {difference}")


def readable(losses: StepLosses) -> dict[str, float]:
    """Read the losses from the device."""
    return {field.name: round(float(getattr(losses, field.name)), 5) for field in dataclasses.fields(losses)}


def random_rows(rows: int, length: int, vocabulary: int, seed: int = 0) -> Rows:
    """Return rows of random tokens, two documents each, to compile and to measure with."""
    rng = np.random.default_rng(seed)
    start = np.zeros((rows, length), np.int16)
    start[:, length // 256 * 128 :] = length // 256 * 128
    ids = rng.integers(3, vocabulary, (rows, length)).astype(np.int16)
    return Rows(ids, rng.integers(0, 3, (rows, length)).astype(np.uint8), start)


def shares(text: str) -> tuple[float, ...]:
    """Read numbers separated by commas, none from an empty text."""
    return tuple(float(part) for part in text.split(",") if part)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = result.add_argument
    add("--minutes", type=float, default=17.0, help="wall-clock time of this process, start-up included")
    add("--out", type=Path, default=Path("build/train_mini"))
    add("--rows", type=int, default=12, help="rows in a batch")
    add("--row-length", type=int, default=6144)
    add("--workers", type=int, default=max(1, min(14, (os.cpu_count() or 2) - 2)))
    add("--source", default=SOURCE, help="package.module:function that yields documents")
    add("--extra", type=Path, help="further documents, as written by rollout --collect")
    add("--extra-share", type=float, default=0.15, help="share of documents that are extra or collected")
    add("--collect-at", type=shares, default=(), help="shares of the time at which to collect, like 0.3,0.5")
    add("--collect-runs", type=int, default=768, help="repairs of a collection on each GPU")
    add("--collect-seconds", type=float, default=45.0, help="time of a collection, what runs over is ended")
    add("--collect-worlds", default=WORLDS, help="package.module:function that makes worlds")
    add("--pool-rows", type=int, default=40000, help="recent rows kept for replay")
    add("--resume", type=Path, help="checkpoint.pt to continue")
    add("--init-from", type=Path, help="exported checkpoint whose weights to start from")
    add("--tokenizer", type=Path, default=TOKENIZER)
    add("--config", default="{}", help="JSON of architecture fields to change")
    add("--device", default="auto")
    add("--seed", type=int, default=1)
    add("--muon-rate", type=float, default=0.02)
    add("--adam-rate", type=float, default=2e-3)
    add("--warmup", type=int, default=100, help="steps")
    add("--anneal-from", type=float, default=0.5, help="share of the time after which rates fall")
    add("--quantise-from", type=float, default=0.75, help="share of the time after which weights are rounded")
    add("--environment-loss", type=float, default=0.1)
    add("--indexer-loss", type=float, default=0.05)
    add("--save-minutes", type=float, default=4.0)
    add("--max-steps", type=int, default=1 << 62)
    add("--reserve", type=float, default=15.0, help="seconds of --minutes kept for the last save and export")
    add("--cache-dir", type=Path, default=CACHE, help="compiled kernels")
    add("--cache-tar", type=Path, help="archive of compiled kernels: read if there, else written")
    add("--eager", action="store_true", help="no torch.compile")
    add("--no-check", action="store_true", help="do not compare the export with the engine")
    add("--smoke", action="store_true", help="check everything a run needs in two minutes")
    return result


def main() -> None:
    """Run the command line."""
    arguments = parser().parse_args()
    if arguments.smoke:
        from examples.train_mini.smoke import smoke

        sys.exit(0 if smoke(arguments) else 1)
    run(arguments)


if __name__ == "__main__":
    main()
