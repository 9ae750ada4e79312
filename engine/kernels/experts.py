"""Routed experts in the kernels' layout: E2M1 codes and E8M0 scales as they come, reordered, one piece each.

A tile is 128 rows. For each 128 inner columns it holds a record of 8 704 bytes: 64 bytes of codes for each
row, then four scales per row. A program streams records, a thread reads 16 bytes of one row at a time. A
little-endian word of 16 bits holds number c of each of the row's four scale groups of 32: sign, exponent and
mantissa s, ee, m of the first in bits 15 and 8 to 6, where bfloat16's sign and the end of its exponent are,
of the second in bits 12 and 5 to 3, of the third in bits 9 and 2 to 0: one shift away from there. That leaves
the bits 14, 13, 11 and 10 for the fourth. The first product's tiles hold 64 rows of w1 and the same 64 of w3,
so that one program can have both sides of the SwiGLU.

Experts are found through a table of addresses: some may live in pinned host memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsv4agent.engine.kernels.launch import ceil_div
from dsv4agent.engine.weights.formats import decode_e8m0, dequantize_fp4

ROWS = 128
"""Rows of a tile."""
PAIR = ROWS // 2
"""Rows of w1, and of w3, in a tile of the first product."""
CODES = 8192
RECORD = CODES + 512
"""Bytes of a record, and of the codes in it."""

LEAST_SCALE, MOST_SCALE = 66, 192
"""E8M0 codes of scales with which the kernels' products are exact: 2**-61 to 2**65."""

Fp4Weight = tuple[Tensor, Tensor]
"""Packed codes int8 or uint8 [o, i / 2] and E8M0 codes uint8 [o, i / 32], as in the checkpoint."""


@dataclass(frozen=True)
class ExpertShape:
    """Sizes of one expert.

    Attributes:
        hidden: Channels of input and output.
        width: Channels between the products.
    """

    hidden: int
    width: int

    @property
    def in_tiles(self) -> int:
        """Tiles of the first product."""
        return ceil_div(self.width, PAIR)

    @property
    def in_steps(self) -> int:
        """Records per tile of the first product."""
        return ceil_div(self.hidden, 128)

    @property
    def out_tiles(self) -> int:
        """Tiles of the second product."""
        return ceil_div(self.hidden, ROWS)

    @property
    def out_steps(self) -> int:
        """Records per tile of the second product."""
        return ceil_div(self.width, 128)

    @property
    def out_offset(self) -> int:
        """Bytes before the second product's tiles."""
        return self.in_tiles * self.in_steps * RECORD

    @property
    def size(self) -> int:
        """Bytes of an expert."""
        return self.out_offset + self.out_tiles * self.out_steps * RECORD


class ExpertTable:
    """The experts of one layer and where they are.

    Attributes:
        shape: Of each.
        addresses: int64 [e], on the device that computes.
        packed: The experts themselves.
        away: Which of them are in host memory.
        uses: int32 [e], on the device that computes: the router adds each choice; None if nobody counts.
        version: How often addresses changed.
    """

    def __init__(
        self,
        shape: ExpertShape,
        experts: Sequence[Tensor],
        device: torch.device,
        *,
        away: Sequence[bool] | None = None,
    ) -> None:
        """Take packed experts, uint8 [shape.size], on the device or in pinned memory of the host.

        `away` tells which are in host memory; by default, those that are not on the device.
        """
        for expert in experts:
            assert expert.numel() == shape.size and expert.is_contiguous()
            # The kernels are told that addresses are multiples of 16.
            assert expert.data_ptr() % 16 == 0
            assert expert.device.type == device.type or expert.is_pinned()
        self.shape = shape
        self.addresses = torch.tensor([e.data_ptr() for e in experts], dtype=torch.int64, device=device)
        self.packed = list(experts)
        self.away = [e.device.type != device.type for e in experts] if away is None else list(away)
        self.uses: Tensor | None = None
        self.version = 0

    def __len__(self) -> int:
        return len(self.packed)

    def exchange(self, wanted: int, unused: int, staging: Tensor) -> None:
        """Let an expert on the host and one on the device change places, behind what was started before.

        Args:
            wanted: On the host.
            unused: On the device.
            staging: uint8 [shape.size or more], on the device; overwritten.
        """
        assert self.away[wanted] and not self.away[unused]
        there, here = self.packed[wanted], self.packed[unused]
        kept = staging[: self.shape.size]
        kept.copy_(here)
        here.copy_(there, non_blocking=True)
        there.copy_(kept, non_blocking=True)
        self.packed[wanted], self.packed[unused] = here, there
        self.away[wanted], self.away[unused] = False, True
        for expert in (wanted, unused):
            # Filled on the device: a number copied there would make the host wait.
            self.addresses[expert : expert + 1].fill_(self.packed[expert].data_ptr())
        self.version += 1


def pack_expert(w1: Fp4Weight, w2: Fp4Weight, w3: Fp4Weight) -> Tensor:
    """Bring one expert into the kernels' layout: uint8 [ExpertShape.size]."""
    gates = _tile_rows(w1, PAIR), _tile_rows(w3, PAIR)
    first = _records(*(torch.cat(parts, dim=1) for parts in zip(*gates, strict=True)))
    return torch.cat((first.flatten(), _records(*_tile_rows(w2, ROWS)).flatten()))


def unpack_expert(packed: Tensor, shape: ExpertShape) -> tuple[Tensor, Tensor, Tensor]:
    """Return w1, w2, w3 as float32."""
    first = _dense(packed[: shape.out_offset].view(shape.in_tiles, shape.in_steps, RECORD))
    second = _dense(packed[shape.out_offset :].view(shape.out_tiles, shape.out_steps, RECORD))
    w1, w3 = first[:, :PAIR].flatten(0, 1), first[:, PAIR:].flatten(0, 1)
    return (
        w1[: shape.width, : shape.hidden],
        second.flatten(0, 1)[: shape.hidden, : shape.width],
        w3[: shape.width, : shape.hidden],
    )


def _tile_rows(weight: Fp4Weight, rows: int) -> Fp4Weight:
    """Pad to whole tiles and steps: codes [t, rows, steps * 64] and scales [t, rows, steps * 4]."""
    codes, scales = weight[0].view(torch.uint8), weight[1].view(torch.uint8)
    padding = (0, -codes.shape[1] % 64, 0, -codes.shape[0] % rows)
    codes = torch.nn.functional.pad(codes, padding)
    padding = (0, -scales.shape[1] % 4, 0, -scales.shape[0] % rows)
    scales = torch.nn.functional.pad(scales, padding, value=127)
    return codes.view(-1, rows, codes.shape[1]), scales.view(-1, rows, scales.shape[1])


def _records(codes: Tensor, scales: Tensor) -> Tensor:
    """Return uint8 [tiles, steps, RECORD] of codes [tiles, 128, steps * 64] and scales [tiles, 128, ...]."""
    tiles, rows, _ = codes.shape
    nibbles = torch.stack((codes & 0xF, codes >> 4), dim=-1).view(tiles, rows, -1, 4, 32)
    words = _interleaved(nibbles.to(torch.int32))
    body = torch.stack((words & 0xFF, words >> 8), dim=-1).to(torch.uint8)
    steps = body.shape[2]
    body = body.transpose(1, 2).reshape(tiles, steps, CODES)
    tail = scales.view(tiles, rows, steps, 4).transpose(1, 2).reshape(tiles, steps, RECORD - CODES)
    return torch.cat((body, tail), dim=2)


def _dense(records: Tensor) -> Tensor:
    """Return float32 [tiles, 128, steps * 128]."""
    tiles, steps, _ = records.shape
    body = records[..., :CODES].view(tiles, steps, ROWS, 32, 2).to(torch.int32)
    codes = _separated(body[..., 0] | (body[..., 1] << 8)).transpose(1, 2)
    codes = codes.reshape(tiles * ROWS, steps * 128).to(torch.uint8)
    scales = records[..., CODES:].view(tiles, steps, ROWS, 4).transpose(1, 2).reshape(tiles * ROWS, steps * 4)
    packed = codes[:, 0::2] | (codes[:, 1::2] << 4)
    return dequantize_fp4(packed, decode_e8m0(scales)).view(tiles, ROWS, steps * 128)


def _interleaved(codes: Tensor) -> Tensor:
    """Return words [..., 32] of 16 bits that hold the E2M1 codes [..., 4, 32] of four scale groups."""
    sign, size = codes >> 3, codes & 7
    word = torch.zeros_like(sign[..., 0, :])
    for group, base in enumerate((6, 3, 0)):
        word |= (sign[..., group, :] << (base + 9)) | (size[..., group, :] << base)
    last = size[..., 3, :]
    return word | (sign[..., 3, :] << 14) | ((last >> 2) << 13) | ((last & 3) << 10)


def _separated(words: Tensor) -> Tensor:
    """Return the codes [..., 4, 32] in such words."""
    groups = [((words >> base) & 7) | ((words >> (base + 9)) & 1) << 3 for base in (6, 3, 0)]
    last = ((words >> 10) & 3) | ((words >> 13) & 1) << 2 | ((words >> 14) & 1) << 3
    return torch.stack((*groups, last), dim=-2)
