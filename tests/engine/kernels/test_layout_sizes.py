"""What a memory plan reckons with is what the kernels' layouts take."""

from __future__ import annotations

import pytest
import torch

from dsv4agent.engine.cache import sizes
from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.kernels.compressor import RawRows
from dsv4agent.engine.kernels.experts import ExpertShape
from dsv4agent.engine.kernels.kv_rows import PAGE_TOKENS, RowBlocks
from dsv4agent.engine.kernels.linear import pack_linear
from dsv4agent.engine.kernels.mixes import pack_mix
from dsv4agent.engine.ops.hyper_connections import Mix
from dsv4agent.engine.weights import mini_config
from dsv4agent.engine.weights.known_shapes import known_config
from dsv4agent.engine.weights.sizes import Part, expert_bytes, scales_may_be_packed, weight_sizes

CPU = torch.device("cpu")


def test_experts() -> None:
    configs = [known_config("flash"), known_config("pro"), ModelConfig.from_dict(mini_config())]
    for config in [*configs, ModelConfig.from_dict(mini_config(hidden_size=352, moe_intermediate_size=160))]:
        hidden, width = config.hidden_size, config.moe_intermediate_size
        plain = ExpertShape(hidden, width)
        assert expert_bytes(config) == plain.size
        assert scales_may_be_packed(config) == plain.even
        if plain.even:
            packed = ExpertShape(hidden, width, packed_scales=True)
            assert expert_bytes(config, packed_scales=True) == packed.size


@pytest.mark.parametrize("name", ["flash", "pro"])
def test_state_of_a_sequence(name: str) -> None:
    config, chunk = known_config(name), 257
    rows = 384
    assert rows >= chunk + config.sliding_window - 1
    total = len(config.layers) * RowBlocks.ring(1, rows, CPU).bytes.nbytes
    table = torch.zeros(1, 1, dtype=torch.int32)
    page = 0
    for layer in config.layers:
        if not layer.ratio:
            continue
        page += RowBlocks.pages(1, layer.ratio, table).bytes.nbytes
        total += RawRows.zeros(1, layer.ratio, config.head_dim, CPU).rows.nbytes
        if layer.overlap:
            page += RowBlocks.pages(1, layer.ratio, table, index=True).bytes.nbytes
            total += RawRows.zeros(1, layer.ratio, config.index_head_dim, CPU).rows.nbytes
    assert sizes.PAGE_TOKENS == PAGE_TOKENS
    assert sizes.page_bytes(config) == page
    assert sizes.sequence_bytes(config, chunk=chunk, drafter=False) == total


def test_projections_and_mixes() -> None:
    config = ModelConfig.from_dict(
        mini_config(num_hidden_layers=1, compress_ratios=[0], num_hash_layers=0, hidden_size=352)
    )
    d, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    grouped = config.o_groups * config.o_lora_rank
    shapes = [
        (config.q_lora_rank, d),
        (heads, config.q_lora_rank),
        (config.head_dim, d),
        (grouped, heads // config.o_groups),
        (d, grouped),
    ]
    attention = 0
    for n, k in shapes:
        scale = torch.zeros(-(-n // 128), -(-k // 128), dtype=torch.uint8)
        packed = pack_linear(torch.zeros(n, k, dtype=torch.uint8), scale)
        assert packed.scales is not None
        attention += packed.tiles.nbytes + packed.scales.nbytes
    size = weight_sizes(config)[Part.ATTENTION]
    assert size.split + size.copied == attention

    head = pack_linear(torch.zeros(config.vocab_size, d, dtype=torch.bfloat16)).tiles.nbytes
    assert weight_sizes(config)[Part.HEAD].split == head

    total = 0
    for columns in (config.mix_width, config.mix_width, config.hc_mult):
        fn = torch.zeros(columns, config.hc_mult * d)
        mix = Mix.build(fn, torch.zeros(3), torch.zeros(columns), iterations=1, eps=0.0, norm_eps=0.0)
        total += pack_mix(mix).pieces.nbytes
    # Scales and bases besides are a few hundred bytes.
    assert 0 <= weight_sizes(config)[Part.HYPER_CONNECTIONS].copied - total < 512
