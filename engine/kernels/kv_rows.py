"""Key-value rows as the cache stores them: their bytes, and the kernels that finish and write them.

A block holds `rows` rows; all data first, so that it is read 16 bytes at a time, then all scales:

| row | bytes of row r | content |
|---|---|---|
| attention, 584 | 576 r ... +448 | E4M3 codes of channels 0 ... 447 |
| | 576 r + 448 ... +128 | bfloat16 channels 448 ... 511, the rotated ones |
| | 576 rows + 8 r ... +7 | E8M0 scales of the seven 64 channels |
| | 576 rows + 8 r + 7 | zero |
| index, 68 | 64 r ... +64 | E2M1 codes; low nibble of byte j: channel 2 j, high nibble: 2 j + 1 |
| | 64 rows + 4 r ... +4 | E8M0 scales of the four 32 channels |

These are exactly the values that the official path rounds rows to, so nothing is lost. A page of 256 tokens
is one block: 64 entries of ratio 4 (37 376 bytes, and 4 352 of index rows) or 2 of ratio 128 (1 168 bytes). A
window ring is one block too: position p stands in row p modulo its rows, which are at least 127 more than the
tokens of a step.

Needs per token: a row 1 KB or 2 KB read and 584 bytes written; queries 2 KB per head, read and written once:
128 KB for Flash's 64 heads. At 4.3 TB/s one token is 0.03 us, latency alone; 4096 tokens are 125 us (Pro 250
us).

measured, H200, 2026-12-01, one token: queries 4.4 us, rows 2.5 us.
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from dsv4agent.engine.kernels import attention_tuning
from dsv4agent.engine.kernels.launch import ceil_div, on_device
from dsv4agent.engine.kernels.numerics import INTERPRETED, encode_e4m3, fp8_scale, round_bf16
from dsv4agent.engine.kernels.overlap import overlapping, wait_for_previous
from dsv4agent.engine.kernels.sums import sum_all, sum_columns
from dsv4agent.engine.ops.quantizers import CACHE_BLOCK, quantize_fp8_rows
from dsv4agent.engine.ops.quantizers import round_bf16 as round_to_bf16
from dsv4agent.engine.weights.formats import decode_e4m3, decode_e8m0, dequantize_fp4, quantize_fp4

HEAD_DIM = 512
ROPE_DIM = 64
INDEX_DIM = 128
PAGE_TOKENS = 256
WINDOW = 128
ROW_DATA, ROW_SCALES = 576, 8
INDEX_DATA, INDEX_SCALES = 64, 4

_HEAD_DIM = tl.constexpr(HEAD_DIM)
_PLAIN = tl.constexpr(HEAD_DIM - ROPE_DIM)
_PAIRS = tl.constexpr(ROPE_DIM // 2)
DATA = tl.constexpr(ROW_DATA)
SCALES = tl.constexpr(ROW_SCALES)


@dataclass(frozen=True)
class RowBlocks:
    """Rows of many sequences in blocks of one size.

    Attributes:
        bytes: uint8 [blocks, block bytes].
        table: int32 [sequences, n]: the block that holds a sequence's rows n * rows ...
        rows: Rows of a block.
    """

    bytes: Tensor
    table: Tensor
    rows: int

    @classmethod
    def ring(cls, sequences: int, rows: int, device: torch.device) -> RowBlocks:
        """Allocate a window ring for each sequence."""
        table = torch.arange(sequences, dtype=torch.int32, device=device).unsqueeze(1)
        return cls._zeros(sequences, rows, ROW_DATA + ROW_SCALES, table)

    @classmethod
    def pages(cls, blocks: int, ratio: int, table: Tensor, *, index: bool = False) -> RowBlocks:
        """Allocate pages for entries of a ratio, or for their index rows; `table` says whose they are."""
        row = INDEX_DATA + INDEX_SCALES if index else ROW_DATA + ROW_SCALES
        return cls._zeros(blocks, PAGE_TOKENS // ratio, row, table)

    @classmethod
    def _zeros(cls, blocks: int, rows: int, row: int, table: Tensor) -> RowBlocks:
        assert rows % 2 == 0, "blocks start at multiples of 16 bytes"
        return cls(torch.zeros(blocks, rows * row, dtype=torch.uint8, device=table.device), table, rows)

    def gather(self, sequence: int, first: int, count: int) -> Tensor:
        """Return packed rows `first ...` of a sequence, as `take` does."""
        return self.take(sequence, torch.arange(first, first + count, device=self.table.device))

    def take(self, sequence: int, ids: Tensor) -> Tensor:
        """Return packed rows `ids` int64 [n] of a sequence, data before scales: uint8 [n, row bytes]."""
        codes, scales = self._parts()
        place = self.table[sequence].to(torch.int64)[ids // self.rows], ids % self.rows
        return torch.cat((codes[place], scales[place]), dim=1)

    def put(self, sequence: int, ids: Tensor, rows: Tensor) -> None:
        """Store packed rows uint8 [n, row bytes], as `take` gives them, as rows `ids` of a sequence."""
        codes, scales = self._parts()
        place = self.table[sequence].to(torch.int64)[ids // self.rows], ids % self.rows
        codes[place], scales[place] = rows.split((codes.shape[2], scales.shape[2]), dim=1)

    def _parts(self) -> tuple[Tensor, Tensor]:
        """Return views of all data [blocks, rows, bytes] and of all scales."""
        row = self.bytes.shape[1] // self.rows
        data = ROW_DATA if row == ROW_DATA + ROW_SCALES else INDEX_DATA
        codes = self.bytes[:, : self.rows * data].view(-1, self.rows, data)
        return codes, self.bytes[:, self.rows * data :].view(-1, self.rows, row - data)


@dataclass(frozen=True)
class Places:
    """Where the rows of one step belong; tokens of a sequence stand together, in order.

    Attributes:
        sequences: int32 [t], row of the tables.
        positions: int32 [t].
        before: int32 [t], tokens of the same sequence before it in this step.
        after: int32 [t], and after it.
        runs: Sequences in the step.
        longest: Most tokens of one.
    """

    sequences: Tensor
    positions: Tensor
    before: Tensor
    after: Tensor
    runs: int
    longest: int

    @classmethod
    def of(cls, runs: Sequence[tuple[int, int, int]], device: torch.device) -> Places:
        """Build from (sequence, first position, tokens)."""
        columns = [
            (sequence, position + i, i, count - 1 - i)
            for sequence, position, count in runs
            for i in range(count)
        ]
        table = torch.tensor(columns, dtype=torch.int32).view(-1, 4).t().contiguous().to(device)
        longest = max((count for _, _, count in runs), default=0)
        return cls(table[0], table[1], table[2], table[3], len(runs), longest)


def rotation_rows(frequencies: Tensor, positions: Tensor) -> Tensor:
    """Return cosine and sine float32 [t, 32, 2] of the angles position * frequency, computed in float32."""
    angles = positions.to(torch.float32)[:, None] * frequencies
    return torch.stack((torch.cos(angles), torch.sin(angles)), dim=-1)


def write_rows(
    x: Tensor, weight: Tensor, rotations: Tensor, places: Places, ring: RowBlocks, *, eps: float
) -> None:
    """Normalise, rotate and round the projected key-value rows and put them into the window rings.

    Args:
        x: bfloat16 or float32 [t, 512], last dimension contiguous.
        weight: float32 or bfloat16 [512], of the norm.
        rotations: float32 [t, 32, 2].
        places: Of the tokens.
        ring: Window rings, wide enough that no query of the step loses a row.
        eps: Of the norm.
    """
    assert places.longest + WINDOW - 1 <= ring.rows, "a step would overwrite rows its own queries see"
    if not x.shape[0]:
        return
    with on_device(x):
        _write_rows_kernel[(x.shape[0],)](
            x,
            x.stride(0),
            weight,
            rotations,
            places.sequences,
            places.positions,
            ring.bytes,
            ring.bytes.view(torch.bfloat16),
            ring.table,
            ring.table.stride(0),
            eps,
            ROWS=ring.rows,
            num_warps=attention_tuning.ROWS.row_warps,
            enable_fp_fusion=False,
            **overlapping(),
        )


def finish_queries(x: Tensor, heads: int, rotations: Tensor, *, eps: float) -> Tensor:
    """Normalise queries per head without a weight and rotate them; every step rounds to bfloat16.

    The softmax scale is no power of two: attention multiplies the scores by it, in float32.

    Args:
        x: bfloat16 or float32 [t, n]; the first heads * 512 columns are the heads.
        heads: Their number.
        rotations: float32 [t, 32, 2].
        eps: Of the norm.

    Returns:
        bfloat16 [t, heads, 512].
    """
    tokens = x.shape[0]
    q = torch.empty(tokens, heads, HEAD_DIM, dtype=torch.bfloat16, device=x.device)
    if tokens:
        plan = attention_tuning.ROWS
        with on_device(x):
            _finish_queries_kernel[(tokens, ceil_div(heads, plan.heads))](
                x,
                x.stride(0),
                rotations,
                q,
                heads,
                eps,
                HEADS=plan.heads,
                num_warps=plan.head_warps,
                enable_fp_fusion=False,
                **overlapping(),
            )
    return q


@triton.jit
def locate(table, stride, sequence, row, ROWS: tl.constexpr, BLOCK_BYTES: tl.constexpr, mask=None):
    """Return the first byte of the block with a sequence's row, int64, and the row inside of it."""
    place = table + sequence * stride + row // ROWS
    block = tl.load(place) if mask is None else tl.load(place, mask=mask, other=0)
    return block.to(tl.int64) * BLOCK_BYTES, row % ROWS


@triton.jit
def to_bf16(x):
    """Round float32 to bfloat16 and back, by the hardware where there is one."""
    if INTERPRETED:
        return round_bf16(x)
    else:
        return x.to(tl.bfloat16).to(tl.float32)


@triton.jit
def norm_factor(squares, WIDTH: tl.constexpr, eps):
    """Return 1 / sqrt(squares / WIDTH + eps)."""
    return tl.div_rn(1.0, tl.sqrt_rn(squares * (1.0 / WIDTH) + eps))


@triton.jit
def finish_and_pack(plain, a, b, weight, rotation, eps, codes, tails, start, row, ROWS: tl.constexpr):
    """Normalise, rotate, round and store one attention row.

    Args:
        plain: float32 [8, 64], bfloat16 values; the channels without rotation, then zeros.
        a: float32 [32], even channels of the rotated ones.
        b: Odd channels.
        weight: Pointer to the norm's weight [512].
        rotation: Pointer to cosine and sine [32, 2].
        eps: Of the norm.
        codes: Pointer to the cache, uint8.
        tails: The same, bfloat16.
        start: First byte of the block.
        row: Row in it.
        ROWS: Of a block.
    """
    block = tl.arange(0, 8)
    column = block[:, None] * 64 + tl.arange(0, 64)[None, :]
    pair = tl.arange(0, 32)
    squares = sum_all(sum_columns(plain * plain, 64), 8) + sum_all(a * a + b * b, 32)
    factor = norm_factor(squares, _HEAD_DIM, eps)
    inside = column < _PLAIN
    plain = to_bf16(plain * factor * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32))
    a = to_bf16(a * factor * tl.load(weight + _PLAIN + 2 * pair).to(tl.float32))
    b = to_bf16(b * factor * tl.load(weight + _PLAIN + 1 + 2 * pair).to(tl.float32))
    cosine, sine = tl.load(rotation + 2 * pair), tl.load(rotation + 2 * pair + 1)
    code, inverse = fp8_scale(tl.max(tl.abs(plain), axis=1))
    data = start + row * DATA
    tl.store(codes + data + column, encode_e4m3(plain * inverse[:, None]), mask=inside)
    scale = tl.where(block < 7, code, 0).to(tl.uint8)
    tl.store(codes + start + ROWS * DATA + row * SCALES + block, scale)
    tail = tails + (data + _PLAIN) // 2 + 2 * pair
    tl.store(tail, to_bf16(a * cosine - b * sine).to(tl.bfloat16))
    tl.store(tail + 1, to_bf16(a * sine + b * cosine).to(tl.bfloat16))


@triton.jit
def _write_rows_kernel(
    x,
    stride,
    weight,
    rotations,
    sequences,
    positions,
    codes,
    tails,
    table,
    table_stride,
    eps,
    ROWS: tl.constexpr,
):
    wait_for_previous()
    write_row(
        tl.program_id(0), x, stride, weight, rotations, sequences, positions, codes, tails, table,
        table_stride, eps, ROWS,
    )  # fmt: skip


@triton.jit
def write_row(
    token,
    x,
    stride,
    weight,
    rotations,
    sequences,
    positions,
    codes,
    tails,
    table,
    table_stride,
    eps,
    ROWS: tl.constexpr,
):
    """Finish and store the row of one token: see `write_rows`."""
    x += token.to(tl.int64) * stride
    column = tl.arange(0, 8)[:, None] * 64 + tl.arange(0, 64)[None, :]
    pair = tl.arange(0, 32)
    plain = to_bf16(tl.load(x + column, mask=column < _PLAIN, other=0.0).to(tl.float32))
    a = to_bf16(tl.load(x + _PLAIN + 2 * pair).to(tl.float32))
    b = to_bf16(tl.load(x + _PLAIN + 1 + 2 * pair).to(tl.float32))
    slot = tl.load(positions + token) % ROWS
    start, row = locate(table, table_stride, tl.load(sequences + token), slot, ROWS, ROWS * (DATA + SCALES))
    finish_and_pack(plain, a, b, weight, rotations + token * 64, eps, codes, tails, start, row, ROWS)


@triton.jit
def _finish_queries_kernel(x, stride, rotations, q, heads, eps, HEADS: tl.constexpr):
    wait_for_previous()
    token = tl.program_id(0)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    column = head[:, None] * _HEAD_DIM + tl.arange(0, _HEAD_DIM)[None, :]
    inside = (head < heads)[:, None]
    row = to_bf16(tl.load(x + token.to(tl.int64) * stride + column, mask=inside, other=0.0).to(tl.float32))
    mean = to_bf16(sum_columns(to_bf16(row * row), _HEAD_DIM) * (1.0 / _HEAD_DIM))
    factor = to_bf16(tl.div_rn(1.0, tl.sqrt_rn(to_bf16(mean + eps))))
    row = to_bf16(row * factor[:, None])
    pair = tl.arange(0, _HEAD_DIM // 2)
    place = rotations + token * 64 + 2 * (pair - (_PLAIN // 2))
    cosine = tl.load(place, mask=pair >= _PLAIN // 2, other=1.0)[None, :]
    sine = tl.load(place + 1, mask=pair >= _PLAIN // 2, other=0.0)[None, :]
    a, b = tl.split(tl.reshape(row, (HEADS, _HEAD_DIM // 2, 2)))
    row = tl.reshape(tl.join(a * cosine - b * sine, a * sine + b * cosine), (HEADS, _HEAD_DIM))
    out = q + token.to(tl.int64) * heads * _HEAD_DIM + column
    tl.store(out, to_bf16(row).to(tl.bfloat16), mask=inside)


def pack_rows(rows: Tensor) -> Tensor:
    """Pack float32 rows [n, 512] that `OfficialPrecision.cache_row` gave: uint8 [n, 584]. The reference."""
    plain = HEAD_DIM - ROPE_DIM
    codes, scales = quantize_fp8_rows(rows[:, :plain], CACHE_BLOCK)
    tail = rows[:, plain:].to(torch.bfloat16).contiguous().view(torch.uint8)
    return torch.cat((codes, tail, scales, torch.zeros_like(scales[:, :1])), dim=1)


def unpack_rows(packed: Tensor) -> Tensor:
    """Return float32 [n, 512] of packed rows [n, 584]."""
    plain = HEAD_DIM - ROPE_DIM
    scales = decode_e8m0(packed[:, ROW_DATA : ROW_DATA + 7]).repeat_interleave(CACHE_BLOCK, 1)
    tail = packed[:, plain:ROW_DATA].contiguous().view(torch.bfloat16).to(torch.float32)
    return torch.cat((decode_e4m3(packed[:, :plain].contiguous()) * scales, tail), dim=1)


def pack_index_rows(rows: Tensor) -> Tensor:
    """Pack float32 rows [n, 128] that `OfficialPrecision.index_row` gave: uint8 [n, 68]. The reference."""
    codes, scales = quantize_fp4(rows)
    return torch.cat((codes.view(torch.uint8), scales), dim=1)


def unpack_index_rows(packed: Tensor) -> Tensor:
    """Return float32 [n, 128] of packed rows [n, 68]."""
    return dequantize_fp4(packed[:, :INDEX_DATA], decode_e8m0(packed[:, INDEX_DATA:]))


def write_rows_reference(x: Tensor, weight: Tensor, rotations: Tensor, eps: float) -> Tensor:
    """Return the packed rows uint8 [t, 584] that `write_rows` stores."""
    x = round_to_bf16(x.to(torch.float32))
    factor = torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)
    rows = _rotate(round_to_bf16(x * factor * weight.to(torch.float32)), rotations)
    return pack_rows(rows)


def finish_queries_reference(x: Tensor, heads: int, rotations: Tensor, eps: float) -> Tensor:
    """Return what `finish_queries` does, as float32."""
    q = round_to_bf16(x[:, : heads * HEAD_DIM].to(torch.float32).reshape(-1, heads, HEAD_DIM))
    mean = round_to_bf16(round_to_bf16(q * q).mean(-1, keepdim=True))
    q = round_to_bf16(q * round_to_bf16(torch.rsqrt(round_to_bf16(mean + eps))))
    return _rotate(q, rotations.unsqueeze(1))


def _rotate(x: Tensor, rotations: Tensor) -> Tensor:
    pairs = x[..., HEAD_DIM - ROPE_DIM :].unflatten(-1, (-1, 2))
    a, b = pairs.unbind(-1)
    cosine, sine = rotations.unbind(-1)
    turned = torch.stack((a * cosine - b * sine, a * sine + b * cosine), dim=-1).flatten(-2)
    return round_to_bf16(torch.cat((x[..., : HEAD_DIM - ROPE_DIM], turned), dim=-1))
