"""Whether the GPU kernels are made for a checkpoint's shapes."""

from __future__ import annotations

from dsv4agent.engine.config import ModelConfig

_BLOCK = 128


def unsupported(config: ModelConfig) -> str | None:
    """Return why the kernels cannot compute a model, or None if they can.

    They are written for what the published checkpoints have in common: the cache rows, the window, the
    compression ratios, and matrices that fill blocks of scales where several are joined.
    """
    c = config
    ratios = {layer.ratio for layer in c.layers}
    rules = (
        (c.quantized, "its config.json has no quantization_config"),
        (c.head_dim == 512 and c.rope_dim == 64, "heads are not of 512 dimensions, 64 of them rotated"),
        (c.sliding_window == _BLOCK, "its window is not of 128 tokens"),
        (ratios <= {0, 4, 128}, "a compression ratio is none of 4 and 128"),
        (4 not in ratios or c.index_head_dim == _BLOCK, "its indexer's heads are not of 128 dimensions"),
        (c.q_lora_rank % _BLOCK == 0, "q_lora_rank is no multiple of 128"),
        (c.moe_intermediate_size % _BLOCK == 0, "moe_intermediate_size is no multiple of 128"),
        (c.o_groups == 1 or c.o_lora_rank % _BLOCK == 0, "o_lora_rank is no multiple of 128"),
        (c.hidden_size % 32 == 0, "hidden_size is no multiple of 32"),
    )
    return next((reason for holds, reason in rules if not holds), None)
