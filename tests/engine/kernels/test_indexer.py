from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsv4agent.engine.config import Yarn
from dsv4agent.engine.kernels import kv_rows
from dsv4agent.engine.kernels.attention_tuning import IndexPlan
from dsv4agent.engine.kernels.indexer import (
    IndexQueries,
    finish_index_queries,
    finish_index_queries_reference,
    scores_reference,
    select_entries,
)
from dsv4agent.engine.kernels.kv_rows import INDEX_DIM, PAGE_TOKENS, Places, RowBlocks
from dsv4agent.engine.kernels.top_k import select_top_k_reference
from dsv4agent.engine.model.rope import frequencies
from dsv4agent.engine.ops.quantizers import fake_fp4_rows

SMALL = IndexPlan(keys=32, tiles=2, queries=4, warps=4, stages=2, workspace=1 << 20)
HEADS = 4


def index_pages(count: int, generator: torch.Generator) -> tuple[RowBlocks, Tensor]:
    """Two sequences of `count` random index rows each, in scattered pages, and the rows [2, count, 128]."""
    device, size = generator.device, PAGE_TOKENS // 4
    pages = -(-count // size)
    order = torch.randperm(2 * pages, generator=generator, device=device).to(torch.int32)
    blocks = RowBlocks.pages(2 * pages, 4, order.view(2, pages), index=True)
    rows = fake_fp4_rows(torch.randn(2, pages * size, INDEX_DIM, generator=generator, device=device))
    for sequence in range(2):
        for page in range(pages):
            packed = kv_rows.pack_index_rows(rows[sequence, page * size : (page + 1) * size])
            block = blocks.bytes[int(blocks.table[sequence, page])]
            block[: size * 64] = packed[:, :64].flatten()
            block[size * 64 :] = packed[:, 64:].flatten()
    return blocks, rows[:, :count]


def random_queries(tokens: int, generator: torch.Generator) -> IndexQueries:
    raw = torch.randn(tokens, HEADS * INDEX_DIM, generator=generator, device=generator.device)
    weights = torch.randn(tokens, HEADS, generator=generator, device=generator.device)
    rotations = torch.tensor([1.0, 0.0], device=generator.device).expand(tokens, 32, 2)
    return finish_index_queries_reference(raw, weights, rotations)


def test_queries_round_like_the_official_path(device: torch.device, generator: torch.Generator) -> None:
    raw = torch.randn(5, HEADS * INDEX_DIM + 40, generator=generator, device=device)
    weights = torch.randn(5, HEADS, generator=generator, device=device)
    f = frequencies(64, 160000.0, Yarn(16, 65536, 32, 1)).to(device)
    rotations = kv_rows.rotation_rows(f, torch.tensor([0, 1, 77, 5000, 900_000], device=device))
    found = finish_index_queries(raw[:, : HEADS * INDEX_DIM], weights, rotations)
    expected = finish_index_queries_reference(raw[:, : HEADS * INDEX_DIM], weights, rotations)
    assert torch.equal(found.weights, expected.weights)
    different = found.q != expected.q
    assert different.float().mean() < 0.01
    alone = finish_index_queries(raw[3:4, : HEADS * INDEX_DIM], weights[3:4], rotations[3:4])
    assert torch.equal(alone.q, found.q[3:4])


@pytest.mark.parametrize("k", [5, 32])
def test_the_best_entries_are_chosen(k: int, device: torch.device, generator: torch.Generator) -> None:
    blocks, rows = index_pages(150, generator)
    queries = random_queries(7, generator)
    # From the first entry on, over the border where choosing begins, and past it.
    for first in (0, 4 * k - 2, 590):
        places = Places.of([(1, first, 7)], device)
        ids, counts = select_entries(queries, blocks, places, k, 150, plan=SMALL)
        scores = scores_reference(queries, rows[1])
        expected = select_top_k_reference(scores, (places.positions + 1) // 4, k)
        assert torch.equal(ids, expected[0])
        assert torch.equal(counts, expected[1])


def test_bits_do_not_depend_on_batch_and_workspace(device: torch.device, generator: torch.Generator) -> None:
    blocks, _ = index_pages(130, generator)
    queries = random_queries(6, generator)
    together = select_entries(queries, blocks, Places.of([(0, 500, 6)], device), 16, 130, plan=SMALL)
    narrow = IndexPlan(keys=32, tiles=1, queries=2, warps=4, workspace=1)
    for plan in (SMALL, narrow):
        again = select_entries(queries, blocks, Places.of([(0, 500, 6)], device), 16, 130, plan=plan)
        assert torch.equal(together[0], again[0])
    mixed = IndexQueries(queries.q.flip(0).contiguous(), queries.weights.flip(0).contiguous())
    runs = [(0, 505 - i, 1) for i in range(6)]
    apart = select_entries(mixed, blocks, Places.of(runs, device), 16, 130, plan=SMALL)
    assert torch.equal(together[0], apart[0].flip(0))


def test_sequences_have_their_own_entries(device: torch.device, generator: torch.Generator) -> None:
    blocks, rows = index_pages(100, generator)
    queries = random_queries(2, generator)
    places = Places.of([(1, 399, 1), (0, 199, 1)], device)
    ids, _ = select_entries(queries, blocks, places, 9, 100, plan=SMALL)
    for i, (sequence, visible) in enumerate([(1, 100), (0, 50)]):
        one = IndexQueries(queries.q[i : i + 1], queries.weights[i : i + 1])
        scores = scores_reference(one, rows[sequence])
        seen = torch.tensor([visible], dtype=torch.int32, device=device)
        assert torch.equal(ids[i], select_top_k_reference(scores, seen, 9)[0][0])


def test_no_entry_is_visible(device: torch.device, generator: torch.Generator) -> None:
    blocks, _ = index_pages(10, generator)
    ids, counts = select_entries(random_queries(3, generator), blocks, Places.of([(0, 0, 3)], device), 8, 0)
    assert (ids == -1).all()
    assert not counts.any()
