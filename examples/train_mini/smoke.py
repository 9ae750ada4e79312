"""Check everything a training run needs, on the machine it will run on: `training --smoke`.

Every check runs even if one before it failed; the table at the end says what passed and how long it took.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, cast

import torch

from examples.train_mini import sinkhorn as sinkhorn_ops
from examples.train_mini.closed_loop import Limits
from examples.train_mini.collection import Collector
from examples.train_mini.decoding import BatchDecoder
from examples.train_mini.export import export, load_model
from examples.train_mini.packing import RowStream
from examples.train_mini.ranks import Ranks
from examples.train_mini.rollout import WORLDS, Rollout, Sampling, compute_type
from examples.train_mini.tensors import integers, seed
from examples.train_mini.trainer import (
    Schedule,
    Trainer,
    forward_backward_flops,
    save_compile_cache,
    use_compile_cache,
)
from examples.train_mini.training import make_trainer, random_rows
from examples.train_mini.world_pool import Task, WorldPool

GOLDEN = Path(__file__).parents[2] / "tests" / "golden_model" / "data"
STEPS = 60
LEFT_BYTES = 1 << 29
"""What a collection may leave allocated: workspaces of the libraries, but no cache of the decoder."""


class CheckFailed(AssertionError):
    """A figure is outside its bound."""


@dataclass
class _Report:
    lines: list[tuple[str, bool, float, str]] = field(default_factory=list[tuple[str, bool, float, str]])

    def check(self, name: str, body: Callable[[], str]) -> None:
        begin = time.monotonic()
        try:
            detail, passed = body(), True
        except Exception as error:  # the point of the table is to show every failure of one paid run
            traceback.print_exc()
            detail, passed = f"{type(error).__name__}: {error}", False
        self.lines.append((name, passed, time.monotonic() - begin, detail))
        print(f"{'ok  ' if passed else 'FAIL'} {self.lines[-1][2]:6.1f} s  {name}: {detail}", flush=True)

    def table(self) -> str:
        rows = [
            f"{'ok' if p else 'FAIL':5}{seconds:7.1f} s  {name:22} {detail}"
            for name, p, seconds, detail in self.lines
        ]
        return "\n".join(["", *rows])


def smoke(arguments: argparse.Namespace) -> bool:
    """Run all checks with the command line of a training; return whether all passed."""
    report = _Report()
    begin = time.monotonic()
    use_compile_cache(arguments.cache_dir, arguments.cache_tar)
    arguments.out.mkdir(parents=True, exist_ok=True)
    folder = arguments.out / "smoke_export"
    device = _check_training(report, folder, arguments)
    report.check("decoder", lambda: _decoder(folder, device))
    report.check("rollout", lambda: _rollout(folder, device, arguments))
    print(report.table())
    print(f"{time.monotonic() - begin:.0f} s in all")
    return all(passed for _, passed, _, _ in report.lines)


def _check_training(report: _Report, folder: Path, arguments: argparse.Namespace) -> str:
    stream = RowStream(
        arguments.source,
        workers=arguments.workers,
        length=arguments.row_length,
        seed=arguments.seed,
        further=arguments.out / "smoke_collected.npz",
        log=arguments.out / "feeders.log",
    )
    try:
        trainer = make_trainer(arguments, Ranks())
        report.check("device", lambda: _device(trainer))
        report.check("sinkhorn kernels", lambda: _sinkhorn(trainer.device))
        report.check("golden logits", lambda: _golden(trainer.device))
        report.check("compilation", lambda: _compile(trainer, arguments))
        report.check("rows", lambda: _rows(stream, arguments))
        report.check("training", lambda: _train(trainer, stream, arguments))
        report.check("collection", lambda: _collection(trainer, stream, arguments))
        report.check("time split", lambda: _split(trainer, stream, arguments))
        report.check("checkpoint", lambda: _checkpoint(trainer, arguments))
        report.check("export", lambda: _export(trainer, folder, arguments))
    finally:
        stream.close()
    return trainer.device.type


def _device(trainer: Trainer) -> str:
    if trainer.device.type != "cuda":
        return "cpu"
    free, total = torch.cuda.mem_get_info()
    memory = f"{free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
    return f"{torch.cuda.get_device_name()}, {memory}, torch {torch.__version__}"


def _sinkhorn(device: torch.device) -> str:
    seed(0)
    logits = (torch.randn(1000, 4, 4, device=device) * 2).requires_grad_()
    upstream = torch.randn(1000, 4, 4, device=device)
    result = sinkhorn_ops.sinkhorn(logits, 20)
    (gradient,) = torch.autograd.grad(result, logits, upstream)
    reference = sinkhorn_ops.sinkhorn_reference(logits, 20)
    (wanted,) = torch.autograd.grad(reference, logits, upstream)
    forward, backward = (
        float((result - reference).detach().abs().max()),
        float((gradient - wanted).abs().max()),
    )
    if not max(forward, backward) < 1e-5:
        raise CheckFailed(f"forward differs by {forward:.1e}, backward by {backward:.1e}")
    return f"forward {forward:.1e}, backward {backward:.1e} from torch"


def _golden(device: torch.device) -> str:
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

    details: list[str] = []
    for name in ("swa16_mix", "win128_pro"):
        folder = GOLDEN / name
        model = load_model(folder, device=device)
        recorded = load_file(folder / "io.safetensors")
        ids = recorded["input_ids"].long().to(device)
        tokens = ids.shape[1]
        row = torch.zeros(1, -(-tokens // 128) * 128, dtype=torch.int64, device=device)
        row[:, :tokens] = ids
        with torch.no_grad():
            logits = model.logits(model(row, torch.zeros_like(row)).hidden)[0, :tokens]
        wanted = recorded["logits_prefill"].view(tokens, -1).to(device)
        difference = float((logits - wanted).abs().max())
        if not difference < 1e-4:
            raise CheckFailed(f"{name}: logits differ by {difference:.1e} from the official outputs")
        details.append(f"{name} {difference:.1e}")
    return ", ".join(details)


def _compile(trainer: Trainer, arguments: argparse.Namespace) -> str:
    rows = random_rows(arguments.rows, arguments.row_length, trainer.model.config.vocab_size)
    before = {name: master.clone() for name, master in trainer.optimizer.masters().items()}
    begin = time.monotonic()
    trainer.warm_up(rows)
    seconds = time.monotonic() - begin
    if not all(torch.equal(master, before[name]) for name, master in trainer.optimizer.masters().items()):
        raise CheckFailed("the warm-up changed the weights")
    detail = f"{seconds:.1f} s"
    if arguments.cache_tar is not None:
        size = save_compile_cache(arguments.cache_dir, arguments.cache_tar)
        detail += f", kernels in {arguments.cache_tar}: {size / 2**20:.1f} MiB"
    if trainer.device.type == "cuda":
        detail += f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
    return detail


def _rows(stream: RowStream, arguments: argparse.Namespace) -> str:
    stream.wait_for(arguments.rows, timeout=120)
    before, begin = stream.received, time.monotonic()
    time.sleep(4)
    rate = (stream.received - before) / (time.monotonic() - begin)
    full = stream.waiting >= stream.backlog
    row = stream.batch(arguments.rows)
    assistant, environment = float((row.weight == 2).mean()), float((row.weight == 1).mean())
    if not assistant > 0:
        raise CheckFailed("no token of the rows is the assistant's")
    filled = float((row.ids != 2).mean())
    speed = "as many as wanted" if full else f"{rate * arguments.row_length:,.0f} tok/s"
    return f"{speed} fresh, {filled:.0%} filled, {assistant:.0%} assistant, {environment:.0%} environment"


def _train(trainer: Trainer, stream: RowStream, arguments: argparse.Namespace) -> str:
    schedule = Schedule(warmup=20)
    losses: list[float] = []
    _synchronise(trainer)
    begin = time.monotonic()
    for step in range(STEPS):
        result = trainer.step(stream.batch(arguments.rows), schedule.factor(0, step), sparse=False)
        if step % 10 == 9:
            losses.append(float(result.assistant))
    speed = STEPS * arguments.rows * arguments.row_length / (time.monotonic() - begin)
    shown = " ".join(f"{loss:.2f}" for loss in losses)
    if not losses[-1] < losses[0]:
        raise CheckFailed(f"the loss does not fall: {shown}")
    used = stream.fresh + stream.replayed
    return f"{speed:,.0f} tok/s, loss {shown}, {stream.replayed} of {used} rows replayed"


def _collection(trainer: Trainer, stream: RowStream, arguments: argparse.Namespace) -> str:
    """Collect once, then train on: nothing may be compiled again, and the decoder's memory must be free."""
    runs = 64 if trainer.device.type == "cuda" else 2
    few = {"collect_at": (0.0,), "collect_runs": runs, "collect_seconds": 20.0}
    collector = Collector(argparse.Namespace(**{**vars(arguments), **few}), trainer, stream)
    allocated, graphs = _allocated(trainer), _compiled_graphs()
    collector.prepare(0.0)
    report = collector.collect(0.0)
    left = _allocated(trainer) - allocated
    begin = time.monotonic()
    loss = float(trainer.step(stream.batch(arguments.rows), 1.0, sparse=False).assistant)
    seconds = time.monotonic() - begin
    if report.failed:
        raise CheckFailed(str(report))
    if left > LEFT_BYTES:
        raise CheckFailed(f"{left / 2**20:.0f} MiB are still allocated")
    if _compiled_graphs() != graphs:
        raise CheckFailed("the next step was compiled again")
    return f"{report}; {left / 2**20:.0f} MiB left, next step {1000 * seconds:.0f} ms, loss {loss:.2f}"


def _allocated(trainer: Trainer) -> int:
    return torch.cuda.memory_allocated() if trainer.device.type == "cuda" else 0


def _compiled_graphs() -> int:
    import torch._dynamo.utils as dynamo

    return cast(Any, dynamo).counters["stats"]["unique_graphs"]


def _split(trainer: Trainer, stream: RowStream, arguments: argparse.Namespace) -> str:
    parts: dict[str, list[float]] = {
        "data": [],
        "forward+backward": [],
        "optimizer": [],
        "sparse": [],
        "rounded": [],
    }

    def timed(part: str, body: Callable[[], object]) -> None:
        _synchronise(trainer)
        begin = time.monotonic()
        body()
        _synchronise(trainer)
        parts[part].append(1000 * (time.monotonic() - begin))

    for _ in range(5):
        begin = time.monotonic()
        rows = stream.batch(arguments.rows)
        parts["data"].append(1000 * (time.monotonic() - begin))
        timed("forward+backward", lambda rows=rows: trainer.gradients(rows, sparse=False))
        timed("optimizer", lambda: trainer.optimizer.step(0.01))
    trainer.set_quantised(True)
    for _ in range(3):
        rows = stream.batch(arguments.rows)
        timed("sparse", lambda rows=rows: trainer.gradients(rows, sparse=True))
        timed("rounded", lambda: trainer.optimizer.step(0.01))
    trainer.set_quantised(False)
    tokens = arguments.rows * arguments.row_length
    flops = forward_backward_flops(trainer.model.config, tokens)
    rate = flops / (min(parts["forward+backward"]) / 1000) / 1e12
    shown = ", ".join(f"{name} {mean(times[1:]):.1f}" for name, times in parts.items())
    return f"ms per step: {shown}; {rate:.0f} TFLOP/s over weights"


def _checkpoint(trainer: Trainer, arguments: argparse.Namespace) -> str:
    path = arguments.out / "smoke.pt"
    trainer.save(path, spent=1.0, tokens=2, step=3)
    before = {name: master.clone() for name, master in trainer.optimizer.masters().items()}
    trainer.step(random_rows(arguments.rows, arguments.row_length, 64), 1.0, sparse=False)
    progress = trainer.restore(path)
    if not all(torch.equal(master, before[name]) for name, master in trainer.optimizer.masters().items()):
        raise CheckFailed("a restored checkpoint differs from the saved state")
    size = path.stat().st_size
    path.unlink()
    return f"{size / 2**20:.0f} MiB, progress {json.dumps(progress)}"


def _export(trainer: Trainer, folder: Path, arguments: argparse.Namespace) -> str:
    report = export(trainer.model, trainer.optimizer.masters(), folder, tokenizer=arguments.tokenizer)
    return f"{report.size:,} bytes, logits within {report.difference:.1e} of the engine's"


@torch.no_grad()
def _decoder(folder: Path, device: str) -> str:
    """Compare the batched decoder with the packed forward pass, in the type that rollouts use."""
    model = load_model(folder, device=device, dtype=compute_type(device))
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, model.config.vocab_size, (640,), generator=generator)
    row = ids[None].to(device)
    packed = model.logits(model(row, torch.zeros_like(row)).hidden)[0].float()
    decoder = BatchDecoder(model, 3, 1024)
    decoder.extend([0, 2], [integers(ids[:600]), integers(ids[:130])])
    advance = torch.tensor([True, False, True], device=device)
    similarities: list[float] = []
    for k in range(30):
        fed = torch.stack((ids[600 + k], ids[0], ids[130 + k])).to(device)
        logits = decoder.step(fed, advance, 601 + k)
        for sequence, position in ((0, 600 + k), (2, 130 + k)):
            similarities.append(float(torch.cosine_similarity(logits[sequence], packed[position], dim=0)))
    if not min(similarities) > 0.95 or not mean(similarities) > 0.99:
        raise CheckFailed(f"cosine {mean(similarities):.4f} on average, {min(similarities):.4f} at worst")
    return (
        f"cosine of decoded and packed logits: mean {mean(similarities):.5f}, worst {min(similarities):.5f}"
    )


def _rollout(folder: Path, device: str, arguments: argparse.Namespace) -> str:
    limits = Limits(steps=3, context=4096, turn=256)
    model = load_model(folder, device=device, dtype=compute_type(device))
    count = 16 if device == "cuda" else 2
    with WorldPool(WORLDS, arguments.tokenizer, workers=min(arguments.workers, 8), limits=limits) as pool:
        rollout = Rollout(model, pool, batch=count, limits=limits)
        begin = time.monotonic()
        outcomes = rollout.run([Task("known", index) for index in range(count)], Sampling(1.0))
        seconds = time.monotonic() - begin
    endings = sorted({outcome.ending.value for outcome in outcomes})
    return (
        f"{len(outcomes)} runs, {rollout.prefilled_tokens} tokens prefilled, "
        f"{rollout.sampled_tokens} sampled, "
        f"{seconds:.1f} s, endings {', '.join(endings)}"
    )


def _synchronise(trainer: Trainer) -> None:
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
