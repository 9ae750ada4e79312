"""Sinkhorn normalisation of the 4x4 stream-mixing matrices: torch reference, Triton forward and backward.

A token needs two matrices of 16 numbers a layer, and 39 normalisations of each. In torch every normalisation
is a pass over device memory; the kernels keep a matrix in registers, so they move 64 bytes in and 64 bytes
out per matrix forward, and the row and column sums (8 * iterations floats) as well backward. The backward
pass replays the forward pass from the recorded sums, undoing one division at a time, instead of storing 39
matrices.
"""

import importlib.util
from typing import Any, cast

import torch
from torch import Tensor

EPS = 1e-6
BLOCK = 64


def sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """Make 4x4 matrices doubly stochastic: softmax, then column and row normalisations by turns.

    `logits` is fp32 `[..., 4, 4]`; so is the result. The last step is a column normalisation (V4 report, mHC;
    the order follows the official inference code).
    """
    return cast(Tensor, _sinkhorn(logits, iterations))


def sinkhorn_reference(logits: Tensor, iterations: int) -> Tensor:
    """Compute the same in plain differentiable torch."""
    matrix = torch.softmax(logits, -1) + EPS
    matrix = matrix / (matrix.sum(-2, keepdim=True) + EPS)
    for _ in range(iterations - 1):
        matrix = matrix / (matrix.sum(-1, keepdim=True) + EPS)
        matrix = matrix / (matrix.sum(-2, keepdim=True) + EPS)
    return matrix


def reference_backward(logits: Tensor, upstream: Tensor, iterations: int) -> Tensor:
    """Compute the gradient of the logits in plain torch, by the kernel's steps."""
    soft = torch.softmax(logits, -1)
    matrix = soft + EPS
    sums: list[tuple[int, Tensor]] = []
    for step in range(2 * iterations - 1):
        axis = -2 if step % 2 == 0 else -1
        total = matrix.sum(axis, keepdim=True) + EPS
        sums.append((axis, total))
        matrix = matrix / total
    gradient = upstream
    for axis, total in reversed(sums):
        gradient = (gradient - (gradient * matrix).sum(axis, keepdim=True)) / total
        matrix = matrix * total
    return soft * (gradient - (gradient * soft).sum(-1, keepdim=True))


@torch.library.custom_op("dsv4agent_mini::sinkhorn", mutates_args=())
def _sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    if not logits.is_cuda:
        return sinkhorn_reference(logits, iterations).contiguous()
    return launch_forward(logits.contiguous(), iterations)


@torch.library.custom_op("dsv4agent_mini::sinkhorn_backward", mutates_args=())
def _sinkhorn_backward(logits: Tensor, upstream: Tensor, iterations: int) -> Tensor:
    if not logits.is_cuda:
        return reference_backward(logits, upstream, iterations).contiguous()
    return launch_backward(logits.contiguous(), upstream.contiguous(), iterations)


def _forward_shape(logits: Tensor, iterations: int) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _backward_shape(logits: Tensor, upstream: Tensor, iterations: int) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _remember(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.iterations = inputs[1]


def _gradient(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
    (logits,) = ctx.saved_tensors
    return cast(Tensor, _sinkhorn_backward(logits, upstream, ctx.iterations)), None


cast(Any, _sinkhorn).register_fake(_forward_shape)
cast(Any, _sinkhorn_backward).register_fake(_backward_shape)
cast(Any, _sinkhorn).register_autograd(_gradient, setup_context=_remember)


def launch_forward(logits: Tensor, iterations: int) -> Tensor:
    """Run the forward kernel on contiguous fp32 `[..., 4, 4]`."""
    from examples.train_mini import sinkhorn_kernels as kernels

    count = logits.numel() // 16
    result = torch.empty_like(logits)
    cast(Any, kernels).forward[(-(-count // BLOCK),)](
        logits, result, count, EPS, ITERATIONS=iterations, BLOCK=BLOCK, num_warps=2
    )
    return result


def launch_backward(logits: Tensor, upstream: Tensor, iterations: int) -> Tensor:
    """Run the backward kernel on contiguous fp32 `[..., 4, 4]`."""
    from examples.train_mini import sinkhorn_kernels as kernels

    count = logits.numel() // 16
    result = torch.empty_like(logits)
    sums = torch.empty(count * 8 * iterations, device=logits.device, dtype=torch.float32)
    cast(Any, kernels).backward[(-(-count // BLOCK),)](
        logits, upstream, result, sums, count, EPS, ITERATIONS=iterations, BLOCK=BLOCK, num_warps=2
    )
    return result


def triton_available() -> bool:
    """Whether the kernels can be compiled or interpreted here."""
    return importlib.util.find_spec("triton") is not None
