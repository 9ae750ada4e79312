"""Tile sizes of the attention kernels: the fastest that `sweep` found for Flash on one H200 (2026-12-01).

`keys` of the attention plan decides bits, because every tile is summed by itself: it is one number for all
shapes. The rest decides speed only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RowPlan:
    """How rows are normalised, rotated and packed: heads of a program, and warps."""

    heads: int = 8
    row_warps: int = 4
    head_warps: int = 8


@dataclass(frozen=True)
class PoolPlan:
    """How compressed entries are pooled: slots in flight (it decides bits), and warps."""

    slots: int = 8
    warps: int = 8


@dataclass(frozen=True)
class IndexPlan:
    """How entries are scored.

    Attributes:
        keys: Entries of a tile.
        tiles: Tiles one program goes through.
        queries: Queries of one sequence that share a tile once it is unpacked.
        warps: Of a program.
        stages: Depth of the pipeline over queries.
        query_warps: Warps that rotate and quantise the query heads of one token.
        workspace: Bytes of score keys held at a time; queries are taken in blocks that fit.
    """

    keys: int = 128
    tiles: int = 1
    queries: int = 32
    warps: int = 4
    stages: int = 2
    query_warps: int = 8
    workspace: int = 64 << 20


@dataclass(frozen=True)
class SelectPlan:
    """How the largest scores are found: score keys of a program, keys it takes at a time, and warps."""

    chunk: int = 4096
    keys: int = 2048
    warps: int = 8


@dataclass(frozen=True)
class AttentionPlan:
    """How queries attend.

    Attributes:
        heads: Of a program; 64 fill the matrix unit of a warpgroup.
        keys: Rows of a tile. Decides bits.
        split_tokens: Up to here every tile has a program of its own, and a second kernel adds them up.
        warps: Of a program that goes through all tiles.
        stages: Of its pipeline.
        split_warps: Of a program of one tile.
        merge_heads: Heads of a program that adds tiles up.
        merge_warps: Of such a program.
        merge_stages: Tiles it reads ahead.
    """

    heads: int = 64
    keys: int = 64
    split_tokens: int = 16
    warps: int = 8
    stages: int = 3
    split_warps: int = 4
    merge_heads: int = 1
    merge_warps: int = 4
    merge_stages: int = 4


ROWS = RowPlan()
POOL = PoolPlan()
INDEX = IndexPlan()
SELECT = SelectPlan()
FLASH = AttentionPlan()
PRO = AttentionPlan()


def attention_plan(heads: int) -> AttentionPlan:
    """Return the plan for a model with `heads` attention heads."""
    return FLASH if heads <= 64 else PRO
