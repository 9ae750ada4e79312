"""A small random checkpoint with a tokenizer of bytes, for tests of what stands on a real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsv4agent.encoding.control_tokens import ALL
from dsv4agent.engine.weights.export import save_checkpoint
from dsv4agent.engine.weights.synthetic import mini_config, random_weights
from tests.scripted import tiny_definition


def write_checkpoint(folder: Path, **changes: Any) -> Path:
    """Write a checkpoint of four layers and 64 dimensions, with context 8,192."""
    config = mini_config(
        vocab_size=384,
        hidden_size=128,
        num_hidden_layers=4,
        compress_ratios=[0, 0, 4, 128],
        num_attention_heads=2,
        sliding_window=128,
        q_lora_rank=128,
        moe_intermediate_size=128,
        dsv4agent={"mode": "non-think", "max_steps": 60},
        **changes,
    )
    weights = random_weights(config)
    # A random model would end its turn at some random place. This one is sure never to say a control token.
    head = weights["head.weight"].mul_(8.0)
    head[: len(ALL)] = 0.0
    save_checkpoint(folder, weights, config)
    (folder / "tokenizer.json").write_text(tiny_definition())
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.7, "top_p": 0.9}))
    return folder
