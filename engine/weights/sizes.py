"""What the parts of a checkpoint take: as stored, and in the layout that the kernels read.

Reckoned from the configuration alone. Weights are taken as the official files have them: FP4 experts, FP8
projections. Layouts are those of `kernels.linear`, `kernels.experts` and `kernels.mixes`; this file repeats
their sizes because it must load where there is no Triton, and a test holds the two together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.weights.inventory import Role, TensorSpec, tensors

_BLOCK = 128
_TILE_ROWS = 64
_MIX_PIECES = 3


class Part(StrEnum):
    """What memory is needed for."""

    ATTENTION = "attention projections"
    SHARED = "shared experts"
    COMPRESSORS = "compressors"
    INDEXERS = "indexers"
    HYPER_CONNECTIONS = "hyper-connections"
    ROUTERS = "routers"
    NORMS = "norms and sinks"
    HEAD = "head"
    DRAFTER = "drafter without experts"
    EMBEDDING = "embedding"
    EXPERTS = "routed experts"
    DRAFTER_EXPERTS = "drafter's routed experts"
    WORKSPACE = "workspace"
    SEQUENCES = "windows and open groups"
    PAGES = "key-value pages"
    RESERVE = "reserve"


DRAFTING = frozenset({Part.DRAFTER, Part.DRAFTER_EXPERTS})
ROUTED = frozenset({Part.EXPERTS, Part.DRAFTER_EXPERTS})


@dataclass(frozen=True)
class WeightSize:
    """Bytes of one part.

    Attributes:
        stored: In the checkpoint.
        split: In the kernels' layout, of tensors that several GPUs divide among them.
        copied: In the kernels' layout, of tensors that every GPU has whole.
        unread: What one token does not read of a part that it reads otherwise.
    """

    stored: int = 0
    split: int = 0
    copied: int = 0
    unread: int = 0

    def on_each(self, gpus: int) -> int:
        """Return the bytes on each of `gpus` GPUs."""
        return -(-self.split // gpus) + self.copied


@lru_cache(maxsize=16)
def weight_sizes(config: ModelConfig, *, packed_scales: bool = False) -> dict[Part, WeightSize]:
    """Return the sizes of all parts that are weights.

    Args:
        config: Of the model.
        packed_scales: Experts' scales in 4 bits, see `expert_bytes`.
    """
    sums: dict[Part, list[int]] = {}
    for spec in tensors(config):
        row = sums.setdefault(_part(spec.name), [0, 0, 0, 0])
        kept = _kept_bytes(config, spec, packed_scales=packed_scales)
        row[0] += _stored_bytes(spec)
        row[1 if _is_split(spec.name) else 2] += kept
        if spec.role is Role.INDEX:
            row[3] += kept
    return {part: WeightSize(*sums[part]) for part in Part if part in sums}


def scales_may_be_packed(config: ModelConfig) -> bool:
    """Return whether the kernels' layout of 4-bit scales, which takes 256 columns at once, has the shape."""
    return all(_blocks(size) % 2 == 0 for size in (config.hidden_size, config.moe_intermediate_size))


def expert_bytes(config: ModelConfig, *, packed_scales: bool = False) -> int:
    """Return the bytes of one routed expert in the kernels' layout.

    An official scale is one byte, an exponent, for 32 weights. Where the exponents of 128 rows differ by at
    most 15, offsets of 4 bits from a base for them say the same.
    """
    shapes = ((config.moe_intermediate_size, config.hidden_size),) * 2
    shapes += ((config.hidden_size, config.moe_intermediate_size),)
    names = ("w1", "w3", "w2")
    return sum(
        _fp4_bytes(f"{name}.weight", shape, packed_scales) for name, shape in zip(names, shapes, strict=True)
    )


def _part(name: str) -> Part:
    if ".ffn.experts." in name:
        return Part.DRAFTER_EXPERTS if name.startswith("mtp.") else Part.EXPERTS
    if name.startswith("mtp."):
        return Part.DRAFTER
    rules = (
        ("embed.", Part.EMBEDDING),
        ("head.", Part.HEAD),
        ("shared_experts", Part.SHARED),
        (".indexer.", Part.INDEXERS),
        (".compressor.", Part.COMPRESSORS),
        ("hc_", Part.HYPER_CONNECTIONS),
        (".gate.", Part.ROUTERS),
        (".attn.w", Part.ATTENTION),
    )
    return next((part for mark, part in rules if mark in name), Part.NORMS)


def _is_split(name: str) -> bool:
    """Whether GPUs divide a tensor: experts by number, the head by words, projections by groups of heads."""
    marks = (".experts.", ".shared_experts.", "head.weight", ".attn.wq_b.", ".attn.wo_a.", ".attn.wo_b.")
    return any(mark in name for mark in marks)


def _stored_bytes(spec: TensorSpec) -> int:
    count = math.prod(spec.shape)
    match spec.role:
        case Role.EXPERT:
            return count // 2 + count // 32
        case Role.LINEAR:
            return count + _blocks(spec.shape[0]) * _blocks(spec.shape[1])
        case Role.BF16:
            return 2 * count
        case Role.F32:
            return 4 * count
        case Role.INDEX:
            return 8 * count


def _kept_bytes(config: ModelConfig, spec: TensorSpec, *, packed_scales: bool) -> int:
    rows, columns = (*spec.shape, 1)[:2]
    match spec.role:
        case Role.EXPERT:
            return _fp4_bytes(spec.name, spec.shape, packed_scales)
        case Role.LINEAR:
            return _tiled(rows, columns) + _blocks(rows) * _blocks(columns)
        case Role.BF16 if len(spec.shape) == 2 and spec.name != "embed.weight":
            return 2 * _tiled(rows, columns)
        case Role.BF16:
            return 2 * math.prod(spec.shape)
        case Role.F32 if spec.name.endswith("_fn"):
            # Three bfloat16 pieces stand for a float32 number.
            streams = config.hc_mult
            return 2 * _MIX_PIECES * rows * streams * _blocks(columns // streams) * _BLOCK
        case Role.F32 | Role.INDEX:
            return 4 * math.prod(spec.shape)


def _fp4_bytes(name: str, shape: tuple[int, ...], packed_scales: bool) -> int:
    """For 128 columns, 64 bytes of codes a row, and 4 of scales or, packed, 2 and a base per tile."""
    # A tile of the first product holds 64 rows of w1 and 64 of w3.
    tile = _BLOCK if name.endswith("w2.weight") else _TILE_ROWS
    tiles = -(-shape[0] // tile)
    rows = tiles * tile * _blocks(shape[1])
    if not packed_scales:
        return rows * 68
    # Bases come in sixteens, those of w1 and w3 together.
    return rows * 66 + (0 if name.endswith("w3.weight") else -(-tiles // 16) * 16)


def _tiled(rows: int, columns: int) -> int:
    return -(-rows // _TILE_ROWS) * _TILE_ROWS * _blocks(columns) * _BLOCK


def _blocks(count: int) -> int:
    return -(-count // _BLOCK)
