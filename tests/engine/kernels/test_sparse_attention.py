from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsv4agent.engine.kernels import kv_rows
from dsv4agent.engine.kernels.attention_tuning import AttentionPlan
from dsv4agent.engine.kernels.kv_rows import HEAD_DIM, PAGE_TOKENS, Places, RowBlocks
from dsv4agent.engine.kernels.sparse_attention import Entries, attend, attend_reference
from dsv4agent.engine.model.precision import OfficialPrecision
from dsv4agent.engine.ops.norms import row_norms

HEADS = 3
SPLIT = AttentionPlan(heads=16, merge_heads=2, split_tokens=1000)
WHOLE = AttentionPlan(heads=16, split_tokens=0)


def fill(blocks: RowBlocks, generator: torch.Generator) -> None:
    """Write random rows everywhere."""
    rows = blocks.rows
    count = blocks.bytes.shape[0] * rows
    x = torch.randn(count, HEAD_DIM, generator=generator, device=generator.device).bfloat16().float()
    packed = kv_rows.pack_rows(OfficialPrecision().cache_row(x, 64)).view(-1, rows, 584)
    blocks.bytes[:, : rows * 576] = packed[..., :576].flatten(1)
    blocks.bytes[:, rows * 576 :] = packed[..., 576:].flatten(1)


def ring_of(generator: torch.Generator) -> RowBlocks:
    ring = RowBlocks.ring(2, 160, generator.device)
    fill(ring, generator)
    return ring


def pages_of(ratio: int, count: int, generator: torch.Generator) -> RowBlocks:
    pages = -(-count // (PAGE_TOKENS // ratio))
    order = torch.randperm(2 * pages, generator=generator, device=generator.device).to(torch.int32)
    blocks = RowBlocks.pages(2 * pages, ratio, order.view(2, pages))
    fill(blocks, generator)
    return blocks


def queries(tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    device = generator.device
    q = torch.randn(tokens, HEADS, HEAD_DIM, generator=generator, device=device).bfloat16()
    angles = torch.randn(tokens, 32, generator=generator, device=device)
    rotations = torch.stack((torch.cos(angles), torch.sin(angles)), -1)
    return q, torch.randn(HEADS, generator=generator, device=device), rotations


def chosen(tokens: int, k: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    ids = torch.full((tokens, k), -1, dtype=torch.int32, device=generator.device)
    counts = torch.tensor(
        [max(0, k - 7 * i) for i in range(tokens)], dtype=torch.int32, device=generator.device
    )
    for i in range(tokens):
        order = torch.randperm(count, generator=generator, device=generator.device)[: int(counts[i])]
        ids[i, : int(counts[i])] = order.sort().values.to(torch.int32)
    return ids, counts


def check(found: Tensor, expected: Tensor) -> None:
    """Weights and output are rounded to bfloat16; sums of some hundred rows average the first out."""
    assert (row_norms(found.float() - expected) < 6e-3 * row_norms(expected)).all()


@pytest.mark.parametrize("plan", [SPLIT, WHOLE], ids=["split", "whole"])
def test_a_sliding_layer(plan: AttentionPlan, generator: torch.Generator) -> None:
    ring = ring_of(generator)
    places = Places.of([(1, 0, 2), (0, 126, 2), (1, 400, 1)], generator.device)
    q, sink, rotations = queries(5, generator)
    found = attend(q, sink, rotations, places, ring, None, plan=plan)
    check(found, attend_reference(q, sink, rotations, places, ring, None))


@pytest.mark.parametrize("plan", [SPLIT, WHOLE], ids=["split", "whole"])
def test_selected_entries(plan: AttentionPlan, generator: torch.Generator) -> None:
    ring, pages = ring_of(generator), pages_of(4, 150, generator)
    places = Places.of([(0, 610, 2), (1, 700, 1)], generator.device)
    q, sink, rotations = queries(3, generator)
    ids, counts = chosen(3, 70, 150, generator)
    entries = Entries(pages, 4, 70, ids, counts)
    found = attend(q, sink, rotations, places, ring, entries, plan=plan)
    check(found, attend_reference(q, sink, rotations, places, ring, entries))


@pytest.mark.parametrize("plan", [SPLIT, WHOLE], ids=["split", "whole"])
def test_all_visible_entries(plan: AttentionPlan, generator: torch.Generator) -> None:
    ring, pages = ring_of(generator), pages_of(128, 80, generator)
    places = Places.of([(1, 126, 2), (0, 80 * 128 - 1, 1)], generator.device)
    q, sink, rotations = queries(3, generator)
    entries = Entries(pages, 128, 80)
    found = attend(q, sink, rotations, places, ring, entries, plan=plan)
    check(found, attend_reference(q, sink, rotations, places, ring, entries))


def test_bits_depend_neither_on_the_form_nor_on_the_batch(generator: torch.Generator) -> None:
    ring, pages = ring_of(generator), pages_of(128, 70, generator)
    sparse = pages_of(4, 100, generator)
    places = Places.of([(0, 70 * 128 - 2, 3), (1, 60, 1)], generator.device)
    q, sink, rotations = queries(4, generator)
    ids, counts = chosen(4, 66, 100, generator)
    for entries in (None, Entries(pages, 128, 70), Entries(sparse, 4, 66, ids, counts)):
        whole = attend(q, sink, rotations, places, ring, entries, plan=WHOLE)
        assert torch.equal(attend(q, sink, rotations, places, ring, entries, plan=SPLIT), whole)
        for i in (1, 3):
            one = Places.of([(int(places.sequences[i]), int(places.positions[i]), 1)], generator.device)
            own = entries
            if entries is not None and entries.ids is not None:
                own = Entries(sparse, 4, 66, ids[i : i + 1], counts[i : i + 1])
            here = slice(i, i + 1)
            alone = attend(q[here], sink, rotations[here], one, ring, own, plan=SPLIT)
            assert torch.equal(alone, whole[here])


def test_room_for_later_entries_changes_nothing(generator: torch.Generator) -> None:
    ring, pages = ring_of(generator), pages_of(128, 80, generator)
    places = Places.of([(0, 300, 1)], generator.device)
    q, sink, rotations = queries(1, generator)
    exact = attend(q, sink, rotations, places, ring, Entries(pages, 128, 2), plan=SPLIT)
    captured = attend(q, sink, rotations, places, ring, Entries(pages, 128, 80), plan=SPLIT)
    assert torch.equal(exact, captured)


def test_a_large_sink_takes_the_weight(generator: torch.Generator) -> None:
    ring = ring_of(generator)
    places = Places.of([(0, 200, 1)], generator.device)
    q, sink, rotations = queries(1, generator)
    sink[0], sink[1] = 1e4, -1e4
    found = attend(q, sink, rotations, places, ring, None, plan=SPLIT)
    assert not found[0, 0].any()
    check(found[:, 1:], attend_reference(q, sink, rotations, places, ring, None)[:, 1:])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("heads", [64, 128])
def test_forms_agree_at_real_shapes(heads: int, generator: torch.Generator) -> None:
    ring, pages = ring_of(generator), pages_of(128, 400, generator)
    places = Places.of([(0, 400 * 128 - 20, 20)], generator.device)
    q = torch.randn(20, heads, HEAD_DIM, generator=generator, device=generator.device).bfloat16()
    sink = torch.randn(heads, generator=generator, device=generator.device)
    rotations = queries(20, generator)[2]
    entries = Entries(pages, 128, 400)
    whole = attend(q, sink, rotations, places, ring, entries)
    split = attend(q, sink, rotations, places, ring, entries, plan=AttentionPlan(split_tokens=1000))
    assert torch.equal(whole, split)
    check(whole, attend_reference(q, sink, rotations, places, ring, entries))
