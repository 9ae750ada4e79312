"""The runner on the card where there is one, and otherwise in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.weights.loader import Checkpoint
from dsv4agent.engine.weights.synthetic import mini_config, write_random_checkpoint

if not torch.cuda.is_available():
    # Read when a kernel is defined: before the first import of a kernel file.
    os.environ["TRITON_INTERPRET"] = "1"


if importlib.util.find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]

SMALL = mini_config(
    vocab_size=96,
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    head_dim=512,
    qk_rope_head_dim=64,
    q_lora_rank=128,
    o_groups=1,
    o_lora_rank=128,
    sliding_window=128,
    compress_ratios=[4, 128],
    index_n_heads=2,
    index_head_dim=128,
    index_topk=2,
    moe_intermediate_size=128,
    n_routed_experts=4,
    num_experts_per_tok=2,
    num_hash_layers=1,
    max_position_embeddings=1024,
    quantization_config={"quant_method": "fp8"},
)
"""The smallest model whose heads, windows and index rows are those the kernels are made for."""


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder: Path = write_random_checkpoint(tmp_path_factory.mktemp("runner") / "model", SMALL, seed=3)
    return Checkpoint(folder, ModelConfig.from_dict(SMALL))
