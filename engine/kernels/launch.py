"""What every launcher needs: the device's context, and counters for programs that finish each other's work."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

_COUNTERS = 1 << 16
_pools: dict[tuple[torch.device, int], Tensor] = {}


def on_device(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Make the device of `x` current; Triton launches on the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def counters(device: torch.device, count: int) -> Tensor:
    """Return at least `count` zeros, int32. The kernel that counts with them leaves them zero.

    Streams have their own, so that launches that overlap do not count together.
    """
    assert count <= _COUNTERS, "raise the size of the pool"
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    pool = _pools.get((device, stream))
    if pool is None:
        pool = _pools[device, stream] = torch.zeros(_COUNTERS, dtype=torch.int32, device=device)
    return pool


def ceil_div(a: int, b: int) -> int:
    """Return a / b rounded up."""
    return -(-a // b)


def next_power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least `n`, for n >= 1."""
    return 1 << (n - 1).bit_length()
