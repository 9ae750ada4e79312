"""The Triton kernels of `sinkhorn.py`. One program handles BLOCK matrices, each held whole in registers."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingImports=false
# pyright: reportUnknownArgumentType=false, reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportCallIssue=false, reportArgumentType=false
# Triton is an optional, untyped dependency, and its language is not Python to a type checker.

import triton
import triton.language as tl


@triton.jit
def forward(logits, result, count, eps, ITERATIONS: tl.constexpr, BLOCK: tl.constexpr):
    """Write the normalised matrices of `logits` to `result`."""
    matrix = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lane = tl.arange(0, 4)
    offset = matrix[:, None, None] * 16 + lane[None, :, None] * 4 + lane[None, None, :]
    inside = (matrix < count)[:, None, None] & (lane[None, :, None] < 4) & (lane[None, None, :] < 4)
    z = tl.load(logits + offset, mask=inside, other=0.0)
    z = tl.exp(z - tl.max(z, axis=2)[:, :, None])
    c = z / tl.sum(z, axis=2)[:, :, None] + eps
    c = c / (tl.sum(c, axis=1)[:, None, :] + eps)
    for _ in range(ITERATIONS - 1):
        c = c / (tl.sum(c, axis=2)[:, :, None] + eps)
        c = c / (tl.sum(c, axis=1)[:, None, :] + eps)
    tl.store(result + offset, c, mask=inside)


@triton.jit
def backward(logits, upstream, result, sums, count, eps, ITERATIONS: tl.constexpr, BLOCK: tl.constexpr):
    """Write the gradient of the logits to `result`; `sums` is scratch, 8 * ITERATIONS floats per matrix."""
    matrix = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lane = tl.arange(0, 4)
    offset = matrix[:, None, None] * 16 + lane[None, :, None] * 4 + lane[None, None, :]
    inside = (matrix < count)[:, None, None] & (lane[None, :, None] < 4) & (lane[None, None, :] < 4)
    slot = matrix[:, None] * (8 * ITERATIONS) + lane[None, :]
    present = (matrix < count)[:, None] & (lane[None, :] < 4)
    z = tl.load(logits + offset, mask=inside, other=0.0)
    z = tl.exp(z - tl.max(z, axis=2)[:, :, None])
    soft = z / tl.sum(z, axis=2)[:, :, None]
    c = soft + eps
    total = tl.sum(c, axis=1) + eps
    tl.store(sums + slot, total, mask=present)
    c = c / total[:, None, :]
    for i in range(ITERATIONS - 1):
        total = tl.sum(c, axis=2) + eps
        tl.store(sums + slot + (1 + 2 * i) * 4, total, mask=present)
        c = c / total[:, :, None]
        total = tl.sum(c, axis=1) + eps
        tl.store(sums + slot + (2 + 2 * i) * 4, total, mask=present)
        c = c / total[:, None, :]
    # A reduction over one axis leaves its result in other threads than the loads below use.
    tl.debug_barrier()
    g = tl.load(upstream + offset, mask=inside, other=0.0)
    for k in range(ITERATIONS - 1):
        i = ITERATIONS - 2 - k
        total = tl.load(sums + slot + (2 + 2 * i) * 4, mask=present, other=1.0)
        g = (g - tl.sum(g * c, axis=1)[:, None, :]) / total[:, None, :]
        c = c * total[:, None, :]
        total = tl.load(sums + slot + (1 + 2 * i) * 4, mask=present, other=1.0)
        g = (g - tl.sum(g * c, axis=2)[:, :, None]) / total[:, :, None]
        c = c * total[:, :, None]
    total = tl.load(sums + slot, mask=present, other=1.0)
    g = (g - tl.sum(g * c, axis=1)[:, None, :]) / total[:, None, :]
    tl.store(result + offset, soft * (g - tl.sum(g * soft, axis=2)[:, :, None]), mask=inside)
