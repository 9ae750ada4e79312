"""Tile sizes of the kernels, per shape.

Two kinds of numbers stand here. The parts of a sum decide bits: they are functions of the shape of the
weights and must never depend on the number of rows. The rest (rows and tokens of a tile, warps, stages)
decides speed only. What `sweep` found to be the fastest at Flash's shapes on one H200 (2026-12-01) is in use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dsv4agent.engine.kernels.launch import ceil_div

BLOCK = 128
"""Inner columns of one step of every product: the block of the FP8 scales."""
TILE_ROWS = 64
"""Rows of weights that are stored together; the smallest tile of the matrix units of a warpgroup."""
MULTIPROCESSORS = 132
"""Of an H200."""
_PIPELINE_BYTES = 192 << 10
"""Of the 227 KiB of shared memory that a program may have; the rest is for what comes after the product."""
OVERLAP = True
"""Whether a kernel may start while the previous one ends."""


@dataclass(frozen=True)
class Tile:
    """The work of one program.

    Attributes:
        rows: Of weights.
        tokens: Columns of the product.
        warps: A multiple of 4 where the product should run on warpgroups.
        stages: Depth of the software pipeline.
        registers: Most per thread, so that more programs fit at once; None leaves it to the compiler.
        unroll: Steps of a product with FP4 weights that are written out one after another; a stage of its
            pipeline is so many.
    """

    rows: int
    tokens: int
    warps: int
    stages: int
    registers: int | None = None
    unroll: int = 1


@dataclass(frozen=True)
class LinearPlan:
    """How a linear of one shape is computed.

    Attributes:
        splits: Parts of the inner dimension whose sums are added in order. Decides bits.
        skinny: Tile for at most `skinny_tokens` rows, one program per part; wider if there are more rows.
        wide: Tile for more; a program goes through all parts.
        skinny_tokens: Where the forms change.
    """

    splits: int
    skinny: Tile
    wide: Tile
    skinny_tokens: int = 128


_WIDE = {1: Tile(128, 128, warps=8, stages=3), 2: Tile(128, 64, warps=8, stages=4)}
_DEEP = Tile(64, 16, warps=4, stages=8)
LINEAR_PLANS: dict[tuple[int, int, int], LinearPlan] = {
    (2048, 4096, 2): LinearPlan(splits=4, skinny=_DEEP, wide=_WIDE[1]),
    (4096, 2048, 1): LinearPlan(splits=4, skinny=_DEEP, wide=_WIDE[1]),
    (4096, 4096, 1): LinearPlan(splits=4, skinny=_DEEP, wide=_WIDE[1]),
    (4096, 8192, 1): LinearPlan(splits=4, skinny=_DEEP, wide=_WIDE[1]),
}
"""Measured exceptions from the rule, keyed by (rows, inner columns, bytes of a weight)."""


def linear_plan(n: int, k: int, size: int) -> LinearPlan:
    """Return the plan for weights [n, k] of `size` bytes each."""
    return LINEAR_PLANS.get((n, k, size)) or LinearPlan(
        splits=linear_splits(n, k), skinny=Tile(64, 16, warps=4, stages=5), wide=_WIDE[size]
    )


def linear_splits(n: int, k: int) -> int:
    """Return enough parts for two programs per multiprocessor, each of at least four steps if it can be."""
    tiles, steps = ceil_div(n, TILE_ROWS), ceil_div(k, BLOCK)
    splits = 1
    while tiles * splits < 2 * MULTIPROCESSORS and splits < 16 and steps >= 8 * splits:
        splits *= 2
    return splits


def skinny_tile(plan: LinearPlan, m: int, size: int) -> Tile:
    """Return the tile of the skinny form for m rows: as wide as they need, up to 64.

    Weights have `size` bytes each; stages are left out until the pipeline fits into a multiprocessor.
    """
    tile = plan.skinny
    while tile.tokens < min(m, 64):
        tile = replace(tile, tokens=2 * tile.tokens)
    while pipeline_bytes(tile, size) > _PIPELINE_BYTES:
        tile = replace(tile, stages=tile.stages - 1)
    return tile


def pipeline_bytes(tile: Tile, size: int) -> int:
    """Return the shared memory of a pipeline of products whose operands have `size` bytes each."""
    return tile.stages * (tile.rows + tile.tokens) * BLOCK * size


@dataclass(frozen=True)
class ExpertPlan:
    """How the routed experts are computed; nothing here decides bits.

    Attributes:
        decode_tokens: Up to here, every pair of token and expert has a program, and the first of an expert
            works for as many as fit into its tile.
        decode: Tile then.
        grouped: Tile for more tokens, sorted by expert; as wide as experts have tokens on average, at most.
    """

    decode_tokens: int = 32
    decode: Tile = Tile(rows=64, tokens=16, warps=4, stages=2, unroll=4)
    grouped: Tile = Tile(rows=64, tokens=128, warps=4, stages=3)


EXPERT_PLANS: dict[tuple[int, int, bool], ExpertPlan] = {}


def expert_plan(hidden: int, width: int, packed_scales: bool) -> ExpertPlan:
    """Return the plan for experts hidden -> width -> hidden.

    With packed scales a stage of the pipeline is two steps.
    """
    grouped = Tile(128, 128, warps=8, stages=2) if packed_scales else ExpertPlan.grouped
    return EXPERT_PLANS.get((hidden, width, packed_scales), ExpertPlan(grouped=grouped))


def grouped_tile(plan: ExpertPlan, pairs: int, experts: int) -> Tile:
    """Return the tile for so many pairs of token and expert, sorted by expert."""
    tokens = 16
    while tokens < min(pairs // experts, plan.grouped.tokens):
        tokens *= 2
    return replace(plan.grouped, tokens=min(tokens, plan.grouped.tokens))


@dataclass(frozen=True)
class RowPlan:
    """How kernels over rows are launched.

    Attributes:
        blocks: FP8 blocks per program.
        warps: Of a program with that many.
        norm_warps: Of a program with a whole row. Decides bits.
        columns: Channels per program where rows are only added.
        router_warps: Of the choice of experts. Decides bits.
    """

    blocks: int = 8
    warps: int = 4
    norm_warps: int = 8
    columns: int = 1024
    router_warps: int = 1


@dataclass(frozen=True)
class SamplingPlan:
    """How tokens are sampled.

    Attributes:
        block: Tokens per program. Decides bits, like `warps`.
        warps: Per program.
        narrow: Tokens that a program compares with 16 candidates at a time.
        nucleus_warps: Of the program that finds the border of top-p.
    """

    block: int = 1024
    warps: int = 4
    narrow: int = 256
    nucleus_warps: int = 16


@dataclass(frozen=True)
class StreamPlan:
    """How hyper-connections are computed.

    Attributes:
        channels: Of every stream in one part of the product with the mixes. Decides bits.
        skinny: Tokens, warps and stages when every part has a program; the stages go over the four streams.
        wide: The same when one program goes through all parts.
        skinny_tokens: Where the forms change.
        together_tokens: Up to here one launch finishes rows and write weights, then one each.
        finish_warps: Warps that turn the sums of one token into its row. Decides bits.
    """

    channels: int = 128
    skinny: Tile = Tile(rows=128, tokens=16, warps=8, stages=4)
    wide: Tile = Tile(rows=128, tokens=16, warps=4, stages=2)
    skinny_tokens: int = 128
    together_tokens: int = 128
    finish_warps: int = 4


ROWS = RowPlan()
STREAMS = StreamPlan()
SAMPLING = SamplingPlan()
