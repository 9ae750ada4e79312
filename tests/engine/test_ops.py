from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4agent.engine.ops.activations import swiglu
from dsv4agent.engine.ops.attention import SINK_COLUMNS, EntryBlocks, EntrySelection, attend
from dsv4agent.engine.ops.heads import finish_queries, rotate_heads_
from dsv4agent.engine.ops.hyper_connections import Mix, mix_weights, read_streams, write_streams_
from dsv4agent.engine.ops.lists import floats, integers
from dsv4agent.engine.ops.norms import rms_norm, row_norms
from dsv4agent.engine.ops.pooling import softmax_pool
from dsv4agent.engine.ops.quantizers import round_bf16
from dsv4agent.engine.ops.rotary import rotate_
from dsv4agent.engine.ops.routing import expert_scores, route_by_score
from dsv4agent.engine.ops.selection import top_k_mask
from dsv4agent.engine.ops.tiling import Tiling


@given(st.lists(st.sampled_from([-2.0, -0.0, 0.0, 1.0, 1.5]), min_size=1, max_size=30), st.data())
def test_top_k_breaks_ties_to_the_lower_index(scores: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores)))
    expected = sorted(sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:k])
    assert integers(top_k_mask(torch.tensor([scores]), k)[0].nonzero()) == expected


@settings(deadline=None)
@given(seed=st.integers(0, 2**20), size=st.floats(0.01, 200.0))
def test_a_token_and_a_chunk_get_the_same_mix(seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    mix = Mix.build(
        torch.randn(24, 256, generator=generator) * size,
        torch.randn(3, generator=generator),
        torch.randn(24, generator=generator),
        iterations=20,
        eps=1e-6,
        norm_eps=1e-6,
        norm=torch.rand(64, generator=generator) + 0.5,
    )
    streams = torch.randn(9, 4, 64, generator=generator)
    y = torch.randn(9, 64, generator=generator)
    for official in (False, True):
        x, write = read_streams(streams, mix, official=official)
        after = write_streams_(streams.clone(), y, write, official=official)
        for row in range(9):
            own = slice(row, row + 1)
            one_x, one_write = read_streams(streams[own].clone(), mix, official=official)
            one_after = write_streams_(streams[own].clone(), y[own].clone(), one_write, official=official)
            assert torch.equal(one_x[0], x[row])
            assert torch.equal(one_write[0], write[row])
            assert torch.equal(one_after[0], after[row])
        # Columns of C sum to one, exactly up to the epsilon: the last step normalises them.
        assert torch.allclose(write[:, :, :4].sum(-1), torch.ones(9, 4), atol=1e-5)


@pytest.mark.parametrize("official", [False, True])
def test_compiled_loops_compute_what_the_products_do(official: bool) -> None:
    """The CPU's kernels against the plain operations that other devices use."""
    generator = torch.Generator().manual_seed(4)
    mix = Mix.build(
        torch.randn(24, 256, generator=generator) * 0.05,
        torch.randn(3, generator=generator),
        torch.randn(24, generator=generator),
        iterations=20,
        eps=1e-6,
        norm_eps=1e-6,
        norm=torch.rand(64, generator=generator) + 0.5,
    )
    streams = round_bf16(torch.randn(5, 4, 64, generator=generator))
    x, write = read_streams(streams, mix, official=official)
    flat = streams.flatten(1)
    pre, expected_write = mix_weights(flat @ mix.fn.t(), row_norms(flat), mix, 256)
    blend = torch.bmm(pre.unsqueeze(1), streams).squeeze(1)
    tolerance = 2e-2 if official else 1e-5
    expected = rms_norm(blend, mix.norm, 1e-6, official=official)
    assert torch.allclose(x, expected, rtol=tolerance, atol=tolerance)
    assert torch.allclose(write, expected_write, atol=1e-5)
    y = torch.randn(5, 64, generator=generator)
    after = write_streams_(streams.clone(), y, write, official=official)
    expected = torch.bmm(write, torch.cat((streams, y.unsqueeze(1)), dim=1))
    assert torch.allclose(after, expected, rtol=tolerance, atol=tolerance)

    wide = torch.randn(5, 100, generator=generator)
    rotations = torch.polar(torch.ones(5, 1, 4), torch.rand(5, 1, 4, generator=generator) * 6)
    q = finish_queries(wide, 3, 32, rotations, eps=1e-6, scale=0.25, official=official)
    heads = wide[:, :96].reshape(5, 3, 32)
    heads = heads * torch.rsqrt((heads * heads).mean(-1, keepdim=True) + 1e-6)
    assert torch.allclose(q, rotate_(heads, rotations) * 0.25, rtol=tolerance, atol=tolerance)
    back = rotate_heads_(q.clone(), rotations, official=official, back=True)
    again = rotate_heads_(back, rotations, official=official)
    assert torch.allclose(again, q, rtol=tolerance, atol=tolerance)

    hidden = torch.randn(5, 40, generator=generator) * 8
    weights = torch.rand(5, generator=generator)
    active = swiglu(hidden, weights, 10.0, official=official)
    gate, up = hidden[:, :20].clamp(max=10.0), hidden[:, 20:].clamp(-10.0, 10.0)
    expected = torch.nn.functional.silu(gate) * up * weights.unsqueeze(1)
    assert torch.allclose(active, expected, rtol=tolerance, atol=tolerance)


@given(st.lists(st.sampled_from([-2.0, 0.0, 0.5, 1.0]), min_size=2, max_size=12), st.data())
def test_routing_breaks_ties_to_the_lower_id(logits: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(logits)))
    scores = expert_scores(torch.tensor([logits]))
    ids, weights = route_by_score(scores, np.zeros(len(logits)), k, 2.5)
    expected = sorted(sorted(range(len(logits)), key=lambda index: (-logits[index], index))[:k])
    assert ids[0].tolist() == expected
    assert math.isclose(float(weights.sum()), 2.5)
    assert np.allclose(weights, 2.5 * scores[0, expected] / scores[0, expected].sum())


@settings(deadline=None)
@given(seed=st.integers(0, 2**20), width=st.sampled_from([24, 80, 128, 1536]))
def test_a_token_and_a_chunk_get_the_same_norm(seed: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(17, width, generator=generator)
    weight = torch.randn(width, generator=generator)
    chunk = rms_norm(x, weight, 1e-6)
    for row in range(17):
        token = rms_norm(x[row : row + 1].clone(), weight, 1e-6)
        assert torch.equal(token[0], chunk[row])
        wider = torch.cat((x[row : row + 1], x[row : row + 1]), dim=1)
        assert torch.equal(rms_norm(wider, weight, 1e-6, start=width)[0], chunk[row])
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()
    assert torch.allclose(chunk.double(), exact, atol=1e-5)


def test_pooling_is_a_softmax_per_channel() -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(3, 8, 5, generator=generator)
    gates = torch.randn(3, 8, 5, generator=generator)
    gates[0, :4] = -math.inf
    expected = (torch.softmax(gates, 1) * values).sum(1)
    assert torch.allclose(softmax_pool(values, gates), expected, atol=1e-6)
    assert torch.equal(softmax_pool(values[1:2], gates[1:2]), softmax_pool(values, gates)[1:2])


def naive(q: torch.Tensor, rows: torch.Tensor, seen: torch.Tensor, sink: torch.Tensor) -> torch.Tensor:
    """Attention by its definition, in float64: [s, h, d], rows [n, d], seen bool [s, n], sink [h]."""
    z = torch.einsum("shd,nd->shn", q.double(), rows.double())
    e = torch.exp(z) * seen[:, None]
    weights = e / (e.sum(-1, keepdim=True) + torch.exp(sink.double())[None, :, None])
    return torch.einsum("shn,nd->shd", weights, rows.double())


def test_attention_against_its_definition() -> None:
    generator = torch.Generator().manual_seed(2)
    tokens, heads, dim, window, block = 4, 3, 16, 32, 8
    q = torch.randn(tokens, heads, dim, generator=generator) * 0.3
    ring = torch.randn(window, dim, generator=generator)
    entries = torch.randn(2 * block, dim, generator=generator)
    sink = torch.full((heads, SINK_COLUMNS), -math.inf)
    sink[:, 0] = torch.randn(heads, generator=generator)
    seen_ring = torch.rand(tokens, window, generator=generator) < 0.5
    seen_entries = torch.rand(tokens, 2 * block, generator=generator) < 0.5
    bias = torch.zeros(tokens, window).masked_fill(~seen_ring, -math.inf)
    keys = entries.view(2, block, dim).transpose(1, 2).contiguous()
    dense = EntryBlocks(keys, entries.view(2, block, dim), ~seen_entries)
    both = torch.cat((seen_ring, seen_entries), 1)
    for chosen, rows, seen in ((None, ring, seen_ring), (dense, torch.cat((ring, entries)), both)):
        out = attend(q, sink, ring.t().contiguous(), ring, bias, chosen, Tiling())
        assert torch.allclose(out.double(), naive(q, rows, seen, sink[:, 0]), atol=1e-5)
    picked = torch.stack([torch.randperm(2 * block, generator=generator)[:5].sort().values for _ in range(4)])
    out = attend(q, sink, ring.t().contiguous(), ring, bias, EntrySelection(entries[picked]), Tiling())
    marked = torch.zeros_like(seen_entries).scatter_(1, picked, True)
    expected = naive(q, torch.cat((ring, entries)), torch.cat((seen_ring, marked), 1), sink[:, 0])
    assert torch.allclose(out.double(), expected, atol=1e-5)


def test_weights_rounded_for_the_sum_keep_their_exact_denominator() -> None:
    generator = torch.Generator().manual_seed(3)
    q = torch.randn(2, 2, 8, generator=generator)
    ring = torch.ones(64, 8)
    sink = torch.full((2, SINK_COLUMNS), -math.inf)
    bias = torch.zeros(1, 64)
    out = attend(q, sink, ring.t().contiguous(), ring, bias, None, Tiling(), round_probabilities=True)
    assert max(abs(value - 1.0) for value in floats(out)) < 1e-5
