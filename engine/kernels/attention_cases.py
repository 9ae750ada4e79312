"""The work that `attention_trial` checks and times: attention's kernels at the shapes of a model.

Data is drawn anew for every case. Decode steps take turns on caches that together exceed the second-level
cache, as the layers of a model do.
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from dsv4agent.engine.kernels import compressor, indexer, kv_rows
from dsv4agent.engine.kernels.attention_tuning import AttentionPlan, attention_plan
from dsv4agent.engine.kernels.kv_rows import HEAD_DIM, INDEX_DIM, PAGE_TOKENS, WINDOW, Places, RowBlocks
from dsv4agent.engine.kernels.launch import ceil_div
from dsv4agent.engine.kernels.random_data import fill_index_rows, fill_rows, normal
from dsv4agent.engine.kernels.sparse_attention import Entries, attend, attend_reference
from dsv4agent.engine.kernels.top_k import select_top_k_reference
from dsv4agent.engine.kernels.trial_cases import relative
from dsv4agent.engine.kernels.trial_shapes import Case, Prepared

EPS = 1e-6
INDEX_HEADS = 64
_MOST_BYTES = 2_000_000_000
"""Of the pages of one case."""


@dataclass(frozen=True)
class AttentionShape:
    """What distinguishes the models' attention, and what is tried.

    Attributes:
        rows: Whether to try what is the same in both models.
        chunk: Tokens of a prefill step.
        decode: Tokens of decode steps.
        contexts: Positions at which a step ends.
        cold_bytes: Of the caches that decode steps take turns on: twice the second-level cache.
    """

    name: str
    heads: int
    top_k: int
    rows: bool = True
    chunk: int = 4096
    decode: tuple[int, ...] = (1, 8)
    contexts: tuple[int, ...] = (8192, 131072, 1048576)
    cold_bytes: int = 120_000_000


FLASH = AttentionShape("flash", 64, 512)
PRO = AttentionShape("pro", 128, 1024, rows=False)


def cases(model: AttentionShape) -> Iterator[Case]:
    """Yield every kernel at the shapes of `model`."""
    for tokens in (*model.decode, model.chunk):
        if model.rows:
            yield _write_case(model, tokens)
            for ratio, dim in ((4, HEAD_DIM), (4, INDEX_DIM), (128, HEAD_DIM)):
                yield _compress_case(model, ratio, dim, tokens)
            yield _index_query_case(model, tokens)
        yield _query_case(model, tokens)
        yield _attend_case(model, 0, model.contexts[0], tokens)
        for context in model.contexts:
            yield _select_case(model, context, tokens)
            yield _attend_case(model, 4, context, tokens)
            yield _attend_case(model, 128, context, tokens)


def _write_case(model: AttentionShape, tokens: int) -> Case:
    end = 2 * model.chunk

    def prepare(generator: torch.Generator) -> Prepared:
        x, weight = normal(generator, tokens, HEAD_DIM), normal(generator, HEAD_DIM)
        places = _places(generator.device, tokens, end)
        rotations = _rotations(places.positions)
        ring, other = (RowBlocks.ring(1, end, generator.device) for _ in range(2))

        def run() -> None:
            kv_rows.write_rows(x, weight, rotations, places, ring, eps=EPS)

        def rows(blocks: RowBlocks) -> Tensor:
            return blocks.gather(0, end - tokens, tokens)

        def error() -> float:
            run()
            expected = kv_rows.unpack_rows(kv_rows.write_rows_reference(x, weight, rotations, EPS))
            return relative(kv_rows.unpack_rows(rows(ring)), expected)

        def same() -> bool:
            last = _places(generator.device, 1, end)
            kv_rows.write_rows(x[-1:], weight, rotations[-1:], last, other, eps=EPS)
            return torch.equal(rows(ring)[-1], rows(other)[-1])

        return Prepared((run,), error, same)

    return Case("write_rows", f"{tokens}", tokens * (2 * HEAD_DIM + 584), 0, "bf16", 5e-3, prepare)


def _query_case(model: AttentionShape, tokens: int) -> Case:
    def prepare(generator: torch.Generator) -> Prepared:
        x = normal(generator, tokens, model.heads * HEAD_DIM)
        rotations = _rotations(_places(generator.device, tokens, 2 * model.chunk).positions)

        def run() -> Tensor:
            return kv_rows.finish_queries(x, model.heads, rotations, eps=EPS)

        def error() -> float:
            return relative(run(), kv_rows.finish_queries_reference(x, model.heads, rotations, EPS))

        def same() -> bool:
            alone = kv_rows.finish_queries(x[-1:], model.heads, rotations[-1:], eps=EPS)
            return torch.equal(run()[-1:], alone)

        return Prepared((run,), error, same)

    moved = 4 * tokens * model.heads * HEAD_DIM
    return Case("finish_queries", f"{tokens}", moved, 0, "bf16", 5e-3, prepare)


def _compress_case(model: AttentionShape, ratio: int, dim: int, tokens: int) -> Case:
    chunk = model.chunk
    series = 2 if ratio == 4 else 1
    width, end = 2 * series * dim, 3 * chunk
    index = dim == INDEX_DIM

    def prepare(generator: torch.Generator) -> Prepared:
        device = generator.device
        whole = torch.randn(chunk, width, generator=generator, device=device)
        ape = torch.randn(ratio, series * dim, generator=generator, device=device)
        weight = normal(generator, dim)
        table = torch.arange(end // PAGE_TOKENS, dtype=torch.int32, device=device).unsqueeze(0)

        def made() -> tuple[compressor.RawRows, RowBlocks]:
            pages = RowBlocks.pages(table.shape[1], ratio, table, index=index)
            return compressor.RawRows.zeros(1, ratio, dim, device), pages

        def step(first: int, count: int, state: compressor.RawRows, pages: RowBlocks) -> None:
            places = Places.of([(0, end - chunk + first, count)], device)
            rotations = _rotations(places.positions // ratio * ratio)
            rows = whole[first : first + count]
            compressor.compress(rows, ape, weight, rotations, places, state, pages, eps=EPS)

        state, pages = made()
        step(0, chunk - tokens, state, pages)
        places = _places(device, tokens, end)
        rotations = _rotations(places.positions // ratio * ratio)

        def run() -> None:
            compressor.compress(whole[-tokens:], ape, weight, rotations, places, state, pages, eps=EPS)

        def entries(found: RowBlocks) -> Tensor:
            # What is pooled from before the data is left out.
            first = (end - chunk) // ratio + 1
            return found.gather(0, first, end // ratio - first)

        def error() -> float:
            run()
            groups = torch.arange(chunk // ratio, device=device) * ratio + end - chunk
            unpack = kv_rows.unpack_index_rows if index else kv_rows.unpack_rows
            packed = compressor.compress_reference(whole, ape, weight, _rotations(groups), ratio, EPS)
            return relative(unpack(entries(pages)), unpack(packed[1:]))

        def same() -> bool:
            cut_state, cut = made()
            for first, last in pairwise((0, 1, chunk // 3, chunk // 2, chunk)):
                step(first, last - first, cut_state, cut)
            return torch.equal(entries(pages), entries(cut))

        return Prepared((run,), error, same)

    kept = min(tokens, series * ratio + 64)
    groups = max(1, tokens // ratio)
    read = max(tokens, groups * ratio * series) if tokens < chunk else tokens
    moved = (read + kept) * width * 4 + groups * (68 if index else 584)
    name = "compress index" if index else f"compress {ratio}"
    return Case(name, f"{tokens}", moved, 0, "bf16", 0.05 if index else 1e-2, prepare)


def _index_query_case(model: AttentionShape, tokens: int) -> Case:
    def prepare(generator: torch.Generator) -> Prepared:
        x = normal(generator, tokens, INDEX_HEADS * INDEX_DIM)
        weights = normal(generator, tokens, INDEX_HEADS)
        rotations = _rotations(_places(generator.device, tokens, 2 * model.chunk).positions)

        def run() -> indexer.IndexQueries:
            return indexer.finish_index_queries(x, weights, rotations)

        def error() -> float:
            return relative(run().q, indexer.finish_index_queries_reference(x, weights, rotations).q)

        def same() -> bool:
            alone = indexer.finish_index_queries(x[-1:], weights[-1:], rotations[-1:])
            return torch.equal(alone.q, run().q[-1:])

        return Prepared((run,), error, same)

    moved = tokens * INDEX_HEADS * (4 * INDEX_DIM + 6)
    operations = tokens * INDEX_HEADS * 4 * (INDEX_DIM // 2) ** 2
    return Case("index_queries", f"{tokens}", moved, operations, "bf16", 0.03, prepare)


def _select_case(model: AttentionShape, context: int, tokens: int) -> Case:
    entries, k = context // 4, model.top_k

    def prepare(generator: torch.Generator) -> Prepared:
        sets = 1 if tokens == model.chunk else min(512, ceil_div(model.cold_bytes, entries * 68))
        pages = _filled_pages(4, context, sets, generator, index=True)
        raw = normal(generator, tokens, INDEX_HEADS * INDEX_DIM)
        places = [_places(generator.device, tokens, context, sequence) for sequence in range(sets)]
        weights, rotations = normal(generator, tokens, INDEX_HEADS), _rotations(places[0].positions)
        queries = indexer.finish_index_queries(raw, weights, rotations)

        def run(sequence: int) -> tuple[Tensor, Tensor]:
            return indexer.select_entries(queries, pages, places[sequence], k, entries)

        def one() -> indexer.IndexQueries:
            return indexer.IndexQueries(queries.q[-1:], queries.weights[-1:])

        def error() -> float:
            found = run(0)[0][-1:]
            rows = kv_rows.unpack_index_rows(pages.gather(0, 0, entries))
            visible = torch.tensor([entries], dtype=torch.int32, device=rows.device)
            expected = select_top_k_reference(indexer.scores_reference(one(), rows), visible, k)[0]
            return 1.0 - float(torch.isin(found, expected).float().mean())

        def same() -> bool:
            last = _places(generator.device, 1, context)
            alone = indexer.select_entries(one(), pages, last, k, entries)[0]
            return torch.equal(alone, run(0)[0][-1:])

        return Prepared(tuple(lambda s=s: run(s) for s in range(sets)), error, same)

    operations = 2 * tokens * (entries - tokens // 8) * INDEX_HEADS * INDEX_DIM
    moved = entries * 68 + tokens * (2 * INDEX_HEADS * INDEX_DIM + 4 * k)
    shape = f"{tokens} at {context // 1024}K"
    # The order of one sum may turn a score that stands at the border.
    return Case("select_entries", shape, moved, operations, "bf16", 0.02, prepare)


def _attend_case(model: AttentionShape, ratio: int, context: int, tokens: int) -> Case:
    count = 0 if ratio == 0 else context // ratio
    most = min(count, model.top_k) if ratio == 4 else count
    rows = WINDOW + most

    def prepare(generator: torch.Generator) -> Prepared:
        device = generator.device
        sets = 1 if tokens == model.chunk else min(256, ceil_div(model.cold_bytes, rows * 584))
        ring = RowBlocks.ring(sets, 2 * model.chunk if tokens == model.chunk else 256, device)
        fill_rows(ring, generator)
        pages = _filled_pages(ratio, context, sets, generator) if ratio else None
        places = [_places(device, tokens, context, sequence) for sequence in range(sets)]
        rotations = _rotations(places[0].positions)
        q = normal(generator, tokens, model.heads, HEAD_DIM)
        sink = torch.randn(model.heads, generator=generator, device=device)
        seen = [_chosen(tokens, most, count, generator) if ratio == 4 else None for _ in range(sets)]

        def entries(sequence: int, last: int) -> Entries | None:
            chosen = seen[sequence]
            if pages is None or chosen is None:
                return None if pages is None else Entries(pages, ratio, most)
            return Entries(pages, ratio, most, chosen[-last:], _counts(last, most, device))

        step = [entries(sequence, tokens) for sequence in range(sets)]

        def run(sequence: int, plan: AttentionPlan | None = None) -> Tensor:
            return attend(q, sink, rotations, places[sequence], ring, step[sequence], plan=plan)

        def error() -> float:
            last = min(tokens, 2)
            some = _places(device, last, context)
            found = run(0)[-last:]
            expected = attend_reference(q[-last:], sink, rotations[-last:], some, ring, entries(0, last))
            return relative(found, expected)

        def same() -> bool:
            split = replace(attention_plan(model.heads), split_tokens=model.chunk)
            last = min(tokens, 3)
            some, few = _places(device, last, context), entries(0, last)
            alone = attend(q[-last:], sink, rotations[-last:], some, ring, few, plan=split)
            whole = run(0, replace(split, split_tokens=0))
            return torch.equal(alone, whole[-last:]) and torch.equal(whole, run(0))

        return Prepared(tuple(lambda s=s: run(s) for s in range(sets)), error, same)

    name = "attend window" if ratio == 0 else f"attend {ratio}"
    shape = f"{tokens} at {context // 1024}K"
    read = rows + (tokens - 1 if ratio != 4 else (tokens - 1) * (1 + most))
    moved = min(read, WINDOW + tokens + count) * 584 + 4 * tokens * model.heads * HEAD_DIM
    operations = 4 * model.heads * HEAD_DIM * rows * tokens
    return Case(name, shape, moved, operations, "bf16", 8e-3, prepare)


def _places(device: torch.device, tokens: int, end: int, sequence: int = 0) -> Places:
    """Return the places of the last `tokens` before `end`."""
    return Places.of([(sequence, end - tokens, tokens)], device)


def _rotations(positions: Tensor) -> Tensor:
    f = 160000.0 ** (-torch.arange(0, 64, 2, dtype=torch.float32, device=positions.device) / 64)
    return kv_rows.rotation_rows(f, positions)


def _chosen(tokens: int, k: int, count: int, generator: torch.Generator) -> Tensor:
    """Return `k` ascending entries out of `count` for each token, one out of each of k equal ranges."""
    span = count // k
    offset = torch.randint(0, span, (tokens, k), generator=generator, device=generator.device)
    return (torch.arange(k, device=generator.device) * span + offset).to(torch.int32)


def _counts(tokens: int, k: int, device: torch.device) -> Tensor:
    return torch.full((tokens,), k, dtype=torch.int32, device=device)


def _filled_pages(
    ratio: int, context: int, sets: int, generator: torch.Generator, *, index: bool = False
) -> RowBlocks:
    """Return pages of random rows for `sets` sequences, in no order; too many sequences share them."""
    pages = ceil_div(context, PAGE_TOKENS)
    own = max(1, min(sets, _MOST_BYTES // (context // ratio * (68 if index else 584))))
    order = torch.randperm(own * pages, generator=generator, device=generator.device).to(torch.int32)
    table = order.view(own, pages).repeat(ceil_div(sets, own), 1)[:sets].contiguous()
    blocks = RowBlocks.pages(own * pages, ratio, table, index=index)
    if index:
        fill_index_rows(blocks, generator)
    else:
        fill_rows(blocks, generator)
    return blocks
