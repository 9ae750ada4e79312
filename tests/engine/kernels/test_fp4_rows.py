# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dsv4agent.engine.kernels import kv_rows
from dsv4agent.engine.kernels.fp4_rows import decode_pairs, hadamard, pack_pairs
from dsv4agent.engine.kernels.sums import sum_all, sum_columns, sum_rows
from dsv4agent.engine.ops.hadamard import hadamard_matrix


@triton.jit
def _pack(x, out):
    row = tl.program_id(0)
    pair = tl.arange(0, 64)
    a, b = tl.load(x + row * 128 + 2 * pair), tl.load(x + row * 128 + 2 * pair + 1)
    packed, scales = pack_pairs(a[None, :], b[None, :], 1)
    tl.store(out + row * 68 + pair[None, :], packed)
    tl.store(out + row * 68 + 64 + tl.arange(0, 4)[None, :], scales)


@triton.jit
def _unpack(packed, out, ROWS: tl.constexpr):
    row = tl.arange(0, ROWS)[:, None]
    pair = tl.arange(0, 64)[None, :]
    scales = tl.load(packed + row * 68 + 64 + tl.arange(0, 4)[None, :])
    even, odd = decode_pairs(tl.load(packed + row * 68 + pair), scales, ROWS)
    tl.store(out + row * 128 + 2 * pair, even)
    tl.store(out + row * 128 + 2 * pair + 1, odd)


@triton.jit
def _sums(x, out, matrix):
    i, j = tl.arange(0, 8)[:, None], tl.arange(0, 16)[None, :]
    rows = tl.load(x + i * 16 + j)
    tl.store(out + tl.arange(0, 8), sum_columns(rows, 16))
    tl.store(out + 8 + tl.arange(0, 16), sum_rows(rows, 8))
    tl.store(out + 24, sum_all(tl.load(x + tl.arange(0, 128)), 128))
    k = tl.arange(0, 64)
    tl.store(matrix + k[:, None] * 64 + k[None, :], hadamard(64))


def packed_by_kernel(x: Tensor) -> Tensor:
    out = torch.zeros(x.shape[0], 68, dtype=torch.uint8, device=x.device)
    _pack[(x.shape[0],)](x, out)
    return out


def test_bytes_are_those_of_the_format(device: torch.device, generator: torch.Generator) -> None:
    x = torch.randn(24, 128, generator=generator, device=device)
    x *= torch.exp2(torch.randint(-30, 30, (24, 4), generator=generator, device=device)).repeat_interleave(
        32, 1
    )
    x[:2] = 0.0
    x[3, 40:] = 0.0
    assert torch.equal(packed_by_kernel(x), kv_rows.pack_index_rows(x))


def test_every_value_and_every_tie(device: torch.device) -> None:
    values = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], device=device)
    between = (values[1:] + values[:-1]) / 2
    both = torch.cat(
        (values, between, torch.nextafter(between, values[1:]), torch.nextafter(between, values[:-1]))
    )
    row = torch.nn.functional.pad(torch.cat((both, -both)), (0, 4))
    # The largest value fixes the scale of its block at 1.
    row = torch.nn.functional.pad(row.view(2, 31), (0, 1), value=6.0)
    x = torch.cat((row.flatten(), row.flatten()))[None] * torch.tensor([[1.0], [0.25]], device=device)
    packed = packed_by_kernel(x.contiguous())
    assert torch.equal(packed, kv_rows.pack_index_rows(x))
    out = torch.empty_like(x)
    _unpack[(1,)](packed, out, ROWS=2)
    assert torch.equal(out, kv_rows.unpack_index_rows(packed))


def test_sums_are_trees_of_halves(device: torch.device, generator: torch.Generator) -> None:
    x = torch.randn(8, 16, generator=generator, device=device)
    out, matrix = torch.empty(25, device=device), torch.empty(64, 64, device=device)
    _sums[(1,)](x, out, matrix)

    def halves(v: Tensor) -> Tensor:
        while v.shape[0] > 1:
            v = v[: v.shape[0] // 2] + v[v.shape[0] // 2 :]
        return v[0]

    assert torch.equal(out[:8], halves(x.t()))
    assert torch.equal(out[8:24], halves(x))
    assert torch.equal(out[24], halves(x.flatten()))
    assert torch.equal(matrix / 8, hadamard_matrix(64).to(device))
