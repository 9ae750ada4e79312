from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dsv4agent.engine import Engine
from dsv4agent.engine.weights import mini_config, write_random_checkpoint


@pytest.fixture(scope="session", autouse=True)
def single_thread() -> None:
    torch.set_num_threads(1)


def tiny_config(**changes: Any) -> dict[str, Any]:
    """Every kind of layer, borders close together: a sparse layer leaves entries out from token 35 on."""
    tiny = {
        "vocab_size": 96,
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "head_dim": 32,
        "qk_rope_head_dim": 16,
        "q_lora_rank": 32,
        "o_lora_rank": 32,
        "sliding_window": 24,
        "compress_ratios": [0, 4, 128, 4],
        "max_position_embeddings": 700,
        "index_topk": 8,
        "moe_intermediate_size": 32,
        "n_routed_experts": 5,
    }
    return mini_config(**{**tiny, **changes})


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("tiny"), tiny_config(), seed=3)


@pytest.fixture(scope="session")
def shared_engine(tiny_folder: Path) -> Iterator[Engine]:
    """For tests that look at results only; counts and records of others are in it."""
    with Engine.load(tiny_folder, device="cpu", threads=1) as engine:
        yield engine


@pytest.fixture
def engine(tiny_folder: Path) -> Iterator[Engine]:
    with Engine.load(tiny_folder, device="cpu", threads=1) as engine:
        yield engine


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
