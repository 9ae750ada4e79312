"""Kernels that start while the previous one of their stream ends (programmatic dependent launches)."""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from dsv4agent.engine.kernels import tuning
from dsv4agent.engine.kernels.numerics import INTERPRETED


def overlapping() -> dict[str, bool]:
    """Return the launch options of a kernel that begins with `wait_for_previous`.

    It may start before the previous one has ended, as soon as all programs of that one wait for nothing more
    and leave room.
    """
    on = tuning.OVERLAP and not INTERPRETED.value and torch.cuda.get_device_capability()[0] >= 9
    return {"launch_pdl": True} if on else {}


@triton.jit
def wait_for_previous():
    """Wait until the previous kernel of the stream is over, and let the next one start.

    What comes before may touch only what no kernel writes: weights. In a usual launch nothing happens here.
    """
    if not INTERPRETED:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit
def prefetch(pointer, size, BYTES: tl.constexpr):
    """Bring up to BYTES bytes from `pointer` on to the second cache, without waiting for them.

    Args:
        pointer: Start of weights, aligned to 128 bytes.
        size: How many bytes are there; a multiple of 128.
        BYTES: 128 times a power of two.
    """
    if not INTERPRETED:
        line = tl.minimum(tl.arange(0, BYTES // 128) * 128, size - 128)
        address = pointer.to(tl.int64) + line
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.b32 $0, 0;",
            "=r,l",
            [address],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
