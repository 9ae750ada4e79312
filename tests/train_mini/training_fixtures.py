"""Small shapes and a byte-level tokenizer for the tests of the training."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel

from dsv4agent.encoding.control_tokens import ALL, BOS, EOS, PAD
from examples.train_mini.architecture import MiniConfig
from examples.train_mini.model import MiniModel
from examples.train_mini.packing import Rows
from examples.train_mini.tensors import seed as seed_everything

TINY = MiniConfig(
    vocab_size=64,
    hidden=64,
    ratios=(0, 4, 128),
    heads=2,
    head_dim=32,
    rope_dim=16,
    q_lora=32,
    o_lora=32,
    window=64,
    index_heads=2,
    index_dim=16,
    index_topk=16,
    experts=4,
    width=64,
    chunk=128,
    max_positions=1024,
)
TINY_JSON = json.dumps(
    {
        name: getattr(TINY, name)
        for name in TINY.__dataclass_fields__
        if name != "vocab_size" and getattr(TINY, name) != getattr(MiniConfig(), name)
    }
)


def tiny_model(seed: int = 0, **sizes: int) -> MiniModel:
    """Return a random model; hyper-connections, gates and sinks are made to matter."""
    seed_everything(seed)
    model = MiniModel(replace(TINY, **sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("hc.fn", "hc_head_fn", "ape", "attn_sink")):
                parameter.normal_(std=0.3)
    return model.eval()


def pattern_rows(rows: int = 2, length: int = 256) -> Rows:
    """Return rows in which a random half of 64 tokens is repeated, all of it the assistant's."""
    rng = np.random.default_rng(0)
    ids = np.tile(rng.integers(3, 60, (rows, 64)), (1, length // 64)).astype(np.int16)
    weight = np.full((rows, length), 2, np.uint8)
    return Rows(ids, weight, np.zeros((rows, length), np.int16))


@cache
def byte_tokenizer_json() -> str:
    """Return a `tokenizer.json` with one id per byte, after the control tokens."""
    first = [BOS, EOS, PAD]
    controls = [*first, *(token for token in ALL if token not in first)]
    added = [
        {
            "id": i,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, text in enumerate(controls)
    ]
    vocab = {letter: len(controls) + i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
        }
    )


def write_byte_tokenizer(folder: Path) -> Path:
    """Write the tokenizer into a folder."""
    path = folder / "tokenizer.json"
    path.write_text(byte_tokenizer_json(), encoding="utf-8")
    return path
