"""Routed experts in the kernels' layout: E2M1 codes and E8M0 scales, reordered, one piece each.

A tile is 128 rows. For each 128 inner columns it holds 64 bytes of codes for each row, then four scales per
row. A scale is a byte as it comes or, packed, four bits: how many powers of two it lies above the least of
its tile, which is kept behind all tiles of the product. That loses nothing where a tile's scales are within
2**15 of each other. Packed, codes of twice 128 columns come together, so that the scales of a row are a word
of 32 bits all the same. A program streams such records, a thread reads 16 bytes of one row at a time. A
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
"""Bytes of codes in a record."""
MOST_OFFSET = 15
"""Largest offset of a packed scale."""

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
        packed_scales: Whether scales take four bits.
    """

    hidden: int
    width: int
    packed_scales: bool = False

    def __post_init__(self) -> None:
        assert not self.packed_scales or self.even

    @property
    def even(self) -> bool:
        """Whether records can have two steps, as they have with packed scales."""
        return self.in_steps % 2 == 0 and self.out_steps % 2 == 0

    @property
    def record(self) -> int:
        """Bytes of a record."""
        return (2 if self.packed_scales else 1) * CODES + 512

    @property
    def in_tiles(self) -> int:
        """Tiles of the first product."""
        return ceil_div(self.width, PAIR)

    @property
    def in_steps(self) -> int:
        """Steps of 128 columns of the first product."""
        return ceil_div(self.hidden, 128)

    @property
    def out_tiles(self) -> int:
        """Tiles of the second product."""
        return ceil_div(self.hidden, ROWS)

    @property
    def out_steps(self) -> int:
        """Steps of 128 columns of the second product."""
        return ceil_div(self.width, 128)

    @property
    def in_bases(self) -> int:
        """Bytes before the bases of the first product's tiles, one byte each."""
        return self.in_tiles * self.tile_bytes(self.in_steps)

    @property
    def out_offset(self) -> int:
        """Bytes before the second product's tiles."""
        return self.in_bases + self._base_bytes(self.in_tiles)

    @property
    def out_bases(self) -> int:
        """Bytes before the bases of the second product's tiles."""
        return self.out_offset + self.out_tiles * self.tile_bytes(self.out_steps)

    @property
    def size(self) -> int:
        """Bytes of an expert."""
        return self.out_bases + self._base_bytes(self.out_tiles)

    def tile_bytes(self, steps: int) -> int:
        """Return the bytes of a tile of so many steps."""
        return steps // (2 if self.packed_scales else 1) * self.record

    def _base_bytes(self, tiles: int) -> int:
        return ceil_div(tiles, 16) * 16 if self.packed_scales else 0


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


def pack_expert(w1: Fp4Weight, w2: Fp4Weight, w3: Fp4Weight, *, packed_scales: bool = False) -> Tensor:
    """Bring one expert into the kernels' layout: uint8 [ExpertShape.size].

    Raises:
        ValueError: Scales were to be packed and differ by too much, see `scales_fit`.
    """
    return torch.cat([_product(*tiles, packed_scales) for tiles in _tiled(w1, w2, w3)])


def scales_fit(w1: Fp4Weight, w2: Fp4Weight, w3: Fp4Weight) -> bool:
    """Return whether scales can be packed: those of every tile differ by 15 powers of two at most.

    Scales of zeros may be any. Codes are only read if the scales alone do not tell.
    """

    def spread(*scales: Tensor) -> bool:
        rows = ROWS // len(scales)
        wide = [scale.view(torch.uint8).to(torch.int16) for scale in scales]
        tiles = torch.cat([_padded(scale, rows, 4, -1) for scale in wide], dim=1)
        return bool((_range(tiles, tiles >= 0) <= MOST_OFFSET).all())

    if spread(w1[1], w3[1]) and spread(w2[1]):
        return True
    return all(
        bool((_range(scales.to(torch.int16), ~_zeros(codes)) <= MOST_OFFSET).all())
        for codes, scales in _tiled(w1, w2, w3)
    )


def unpack_expert(packed: Tensor, shape: ExpertShape) -> tuple[Tensor, Tensor, Tensor]:
    """Return w1, w2, w3 as float32."""
    first = _dense(packed[: shape.out_offset], shape, shape.in_tiles, shape.in_steps)
    second = _dense(packed[shape.out_offset :], shape, shape.out_tiles, shape.out_steps)
    w1, w3 = first[:, :PAIR].flatten(0, 1), first[:, PAIR:].flatten(0, 1)
    return (
        w1[: shape.width, : shape.hidden],
        second.flatten(0, 1)[: shape.hidden, : shape.width],
        w3[: shape.width, : shape.hidden],
    )


def _tiled(w1: Fp4Weight, w2: Fp4Weight, w3: Fp4Weight) -> tuple[Fp4Weight, Fp4Weight]:
    """Return the tiles of both products: codes [t, 128, steps * 64] and scales [t, 128, steps * 4]."""
    gate, up = _tile_rows(w1, PAIR), _tile_rows(w3, PAIR)
    first = torch.cat((gate[0], up[0]), dim=1), torch.cat((gate[1], up[1]), dim=1)
    return first, _tile_rows(w2, ROWS)


def _tile_rows(weight: Fp4Weight, rows: int) -> Fp4Weight:
    codes, scales = (part.view(torch.uint8) for part in weight)
    return _padded(codes, rows, 64, 0), _padded(scales, rows, 4, 127)


def _padded(x: Tensor, rows: int, columns: int, value: int) -> Tensor:
    """Pad [o, i] to whole tiles and steps: [t, rows, ...]."""
    x = torch.nn.functional.pad(x, (0, -x.shape[1] % columns, 0, -x.shape[0] % rows), value=value)
    return x.view(-1, rows, x.shape[1])


def _product(codes: Tensor, scales: Tensor, packed_scales: bool) -> Tensor:
    """Return the bytes of one product: records, then bases."""
    tiles, rows, _ = codes.shape
    nibbles = torch.stack((codes & 0xF, codes >> 4), dim=-1).view(tiles, rows, -1, 4, 32)
    words = _interleaved(nibbles.to(torch.int32))
    body = torch.stack((words & 0xFF, words >> 8), dim=-1).to(torch.uint8)
    steps = body.shape[2]
    body, tail = body.flatten(3), scales.view(tiles, rows, steps, 4)
    bases = scales.new_empty(0)
    each = 1
    if packed_scales:
        offsets, bases = _offsets(codes, scales)
        tail = offsets[..., 0::2] | (offsets[..., 1::2] << 4)
        each = 2
    # Codes of a step lie together; of a record, all codes and then all scales.
    body = body.transpose(1, 2).reshape(tiles, steps // each, -1)
    tail = tail.reshape(tiles, rows, steps // each, 4).transpose(1, 2).reshape(tiles, steps // each, -1)
    return torch.cat((torch.cat((body, tail), dim=2).flatten(), bases))


def _offsets(codes: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Return offsets of scales, uint8 like them, and the bases uint8 of the tiles, padded to 16 of them."""
    zeros, wide = _zeros(codes), scales.to(torch.int16)
    if bool((_range(wide, ~zeros) > MOST_OFFSET).any()):
        raise ValueError(f"scales of a tile differ by more than 2**{MOST_OFFSET}; they cannot be packed.")
    least = torch.where(zeros, 255, wide).amin(dim=(1, 2))
    # A tile of zeros has no scale of its own.
    least = torch.where(zeros.all(dim=2).all(dim=1), 127, least)
    offsets = torch.where(zeros, 0, wide - least[:, None, None]).to(torch.uint8)
    return offsets, torch.nn.functional.pad(least.to(torch.uint8), (0, -least.shape[0] % 16))


def _zeros(codes: Tensor) -> Tensor:
    """Return which scale groups of codes [t, 128, n * 16] hold zeros only, bool [t, 128, n]."""
    return (codes.unflatten(2, (-1, 16)) & 0x77).amax(dim=3) == 0


def _range(scales: Tensor, counted: Tensor) -> Tensor:
    """Return by how much the counted scales int16 [t, 128, n] of each tile differ; below 0 without any."""
    most = torch.where(counted, scales, -1).amax(dim=(1, 2))
    return most - torch.where(counted, scales, 255).amin(dim=(1, 2))


def _dense(part: Tensor, shape: ExpertShape, tiles: int, steps: int) -> Tensor:
    """Return the weights of one product, float32 [tiles, 128, steps * 128]."""
    count, each = tiles * shape.tile_bytes(steps), 2 if shape.packed_scales else 1
    records = part[:count].view(tiles, steps // each, shape.record)
    body = records[..., : each * CODES].reshape(tiles, steps, ROWS, 32, 2).to(torch.int32)
    codes = _separated(body[..., 0] | (body[..., 1] << 8)).transpose(1, 2)
    codes = codes.reshape(tiles * ROWS, steps * 128).to(torch.uint8)
    scales = records[..., each * CODES :].reshape(tiles, steps // each, ROWS, 4).transpose(1, 2)
    if shape.packed_scales:
        offsets = torch.stack((scales & 15, scales >> 4), dim=-1)
        scales = offsets + part[count : count + tiles, None, None, None, None]
    packed = codes[:, 0::2] | (codes[:, 1::2] << 4)
    dense = dequantize_fp4(packed, decode_e8m0(scales.reshape(tiles * ROWS, steps * 4)))
    return dense.view(tiles, ROWS, steps * 128)


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
