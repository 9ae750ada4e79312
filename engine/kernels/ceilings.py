"""Times calls on the card, and measures what it does at best."""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

_STREAM_BLOCK = 8192


@dataclass(frozen=True)
class Ceilings:
    """What this card does at best.

    Attributes:
        read: Bytes per second from its own memory.
        link: Bytes per second from pinned host memory.
        operations: Operations per second by type.
    """

    read: float
    link: float
    operations: dict[str, float]


def time_calls(runs: Sequence[Callable[[], object]], repeats: int = 7) -> float:
    """Return the median seconds of one call, in replays of a graph that makes them all in turn."""
    # The data comes from another stream.
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        # On the capturing stream, so that whatever is allocated once is not captured.
        for run in runs[:2]:
            run()
        begin.record(stream)
        runs[0]()
        end.record(stream)
        end.synchronize()
        once = max(begin.elapsed_time(end), 0.002)
        rounds = max(1, min(200, int(10.0 / (once * len(runs)))))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(rounds):
                for run in runs:
                    run()
        times: list[float] = []
        graph.replay()
        for _ in range(repeats):
            begin.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3 / (rounds * len(runs)))
    return statistics.median(times)


def measure_ceilings() -> Ceilings:
    """Measure a streaming read of 4 GB, a copy of 256 MB from the host and square products of 8192."""
    words = torch.randint(0, 2**31 - 1, (1 << 30,), dtype=torch.int32, device="cuda")
    sums = torch.empty(words.numel() // _STREAM_BLOCK, dtype=torch.int32, device="cuda")

    def read() -> None:
        _read_kernel[(sums.numel(),)](words, sums, BLOCK=_STREAM_BLOCK, num_warps=8)

    rate = words.numel() * 4 / time_calls((read,))
    away = torch.empty(1 << 28, dtype=torch.uint8).pin_memory()
    here = words.view(torch.uint8)[: away.numel()]
    link = away.numel() / time_calls((lambda: here.copy_(away, non_blocking=True),))
    size = 8192
    a = torch.randn(size, size, device="cuda").to(torch.bfloat16)
    b = torch.randn(size, size, device="cuda").to(torch.bfloat16)
    bf16 = 2 * size**3 / time_calls((lambda: a @ b,))
    return Ceilings(rate, link, {"bf16": bf16, "fp8": _fp8_rate(a, b) or 2 * bf16})


def _fp8_rate(a: Tensor, b: Tensor) -> float | None:
    """Return operations per second of the library's FP8 product, None if it has none."""
    left, right = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()
    one = torch.ones((), device=a.device)
    product = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage]
    try:
        seconds = time_calls(
            (lambda: product(left, right, one, one, out_dtype=torch.bfloat16, use_fast_accum=True),)
        )
    except RuntimeError:
        return None
    return 2 * a.shape[0] ** 3 / seconds


@triton.jit
def _read_kernel(words, sums, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(sums + tl.program_id(0), tl.sum(tl.load(words + place), axis=0))
