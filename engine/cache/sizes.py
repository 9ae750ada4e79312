"""What the state of a sequence takes on a GPU: pages of entries, window rings, rows of open groups.

Layouts are those of `kernels.kv_rows` and `kernels.compressor`. A row of the official models takes 584 bytes,
an index row 68.
"""

from __future__ import annotations

from dsv4agent.engine.config import BLOCK, LayerSpec, ModelConfig

PAGE_TOKENS = 256
REWIND = 64
"""Tokens that can be taken back without a snapshot: more than a draft ever has."""


def row_bytes(config: ModelConfig) -> int:
    """Return the bytes of a key-value row: FP8 with a scale for 64 channels, rotated channels bfloat16."""
    plain = config.head_dim - config.rope_dim
    scales = -(-plain // 64)
    return plain + 2 * config.rope_dim + -(-scales // 8) * 8


def index_row_bytes(config: ModelConfig) -> int:
    """Return the bytes of an index row: FP4 with a scale for 32 channels."""
    return config.index_head_dim // 2 + config.index_head_dim // 32


def page_bytes(config: ModelConfig) -> int:
    """Return the bytes of all layers' entries for `PAGE_TOKENS` tokens."""
    return sum(
        PAGE_TOKENS // layer.ratio * _entry_bytes(config, layer) for layer in config.layers if layer.ratio
    )


def pages(context: int) -> int:
    """Return the pages that so many tokens need."""
    return -(-context // PAGE_TOKENS)


def sequence_bytes(config: ModelConfig, *, chunk: int, drafter: bool) -> int:
    """Return the bytes of one sequence besides its pages.

    Args:
        config: Of the model.
        chunk: Most tokens of a step; a ring holds them besides the window.
        drafter: Whether the drafter's windows are kept.
    """
    rows = -(-(chunk + config.sliding_window - 1) // BLOCK) * BLOCK
    layers = config.layers + (config.draft_layers if drafter else ())
    rings = len(layers) * rows * row_bytes(config)
    return rings + sum(_group_bytes(config, layer) for layer in config.layers if layer.ratio)


def read_bytes(config: ModelConfig, context: int) -> int:
    """Return the bytes of state that one decoded token reads after `context` tokens."""
    row = row_bytes(config)
    total = len(config.layers) * min(context, config.sliding_window) * row
    for layer in config.layers:
        entries = context // layer.ratio if layer.ratio else 0
        if layer.overlap:
            total += min(config.index_topk, entries) * row + entries * index_row_bytes(config)
        else:
            total += entries * row
    return total


def _entry_bytes(config: ModelConfig, layer: LayerSpec) -> int:
    return row_bytes(config) + (index_row_bytes(config) if layer.overlap else 0)


def _group_bytes(config: ModelConfig, layer: LayerSpec) -> int:
    """Return the bytes of a compressor's raw rows: float32 values and gates."""
    series = 2 if layer.overlap else 1
    channels = config.head_dim + (config.index_head_dim if layer.overlap else 0)
    return (series * layer.ratio + REWIND) * 2 * series * channels * 4
