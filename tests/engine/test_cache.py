from __future__ import annotations

import torch

from dsv4agent.engine.cache.prefix import MAX_CLOSED, MAX_SNAPSHOTS, Lineage, PrefixRecords, common_prefix
from dsv4agent.engine.cache.rows import EntryRows
from dsv4agent.engine.cache.state import SequenceState, WindowRing
from dsv4agent.engine.config import ModelConfig
from tests.engine.conftest import tiny_config

CPU = torch.device("cpu")


def rows_of(start: int, count: int) -> torch.Tensor:
    return torch.arange(start, start + count, dtype=torch.float32)[:, None].expand(count, 3).contiguous()


def test_entries_keep_both_layouts() -> None:
    rows = EntryRows(3, 4, with_values=True, device=CPU)
    rows.append(rows_of(0, 3))
    rows.append(rows_of(3, 7))
    assert rows.count == 10 and rows.blocks() == 3
    assert torch.equal(rows.dense(), rows_of(0, 10))
    assert torch.equal(rows.keys().transpose(1, 2).reshape(-1, 3)[:10], rows_of(0, 10))
    bare = EntryRows(3, 4, with_values=False, device=CPU)
    bare.append(rows_of(0, 6))
    assert torch.equal(bare.dense(), rows_of(0, 6))


def test_forks_share_memory_until_they_differ() -> None:
    first = EntryRows(3, 8, with_values=True, device=CPU)
    first.append(rows_of(0, 2))
    second = first.fork()
    assert first.keys().data_ptr() == second.keys().data_ptr()
    first.append(rows_of(10, 1))
    assert first.keys().data_ptr() == second.keys().data_ptr(), "the first to append stays"
    second.append(rows_of(20, 1))
    assert first.keys().data_ptr() != second.keys().data_ptr()
    assert torch.equal(first.dense()[2], rows_of(10, 1)[0])
    assert torch.equal(second.dense(), torch.cat((rows_of(0, 2), rows_of(20, 1))))


def test_the_ring_returns_the_window_in_order() -> None:
    ring = WindowRing(5, 3, CPU)
    assert ring.capacity == 256
    for block in range(3):
        ring.write(block * 128, rows_of(block * 128, 128))
    assert torch.equal(ring.last(384), rows_of(379, 5))
    assert torch.equal(ring.last(3), rows_of(256, 3))
    bare = ring.fork(transposed=False)
    assert torch.equal(bare.keys, ring.keys)
    bare.write(384, rows_of(0, 1))
    assert torch.equal(ring.last(384), rows_of(379, 5)), "a copy"


def test_common_prefix() -> None:
    assert common_prefix([], [1]) == 0
    assert common_prefix([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_prefix(list(range(1000)), [*range(999), 0]) == 999


def state_at(position: int) -> SequenceState:
    state = SequenceState.empty(ModelConfig.from_dict(tiny_config()), CPU)
    state.position = position
    return state


def test_records_prefer_the_deepest_matching_state() -> None:
    records = PrefixRecords()
    short, long = Lineage([1, 2, 3, 4]), Lineage([1, 2, 3, 9, 9])
    short.keep(state_at(2))
    long.keep(state_at(3))
    long.keep(state_at(5))
    records.add(short)
    records.add(long)
    found = records.attach([1, 2, 3, 4, 5])
    assert found is not None and found.position == 3
    found = records.attach([1, 2, 8])
    assert found is not None and found.position == 2
    assert records.attach([7]) is None


def test_closed_lineages_are_forgotten_in_order() -> None:
    records = PrefixRecords()
    lineages = [Lineage([number, 1]) for number in range(MAX_CLOSED + 1)]
    for lineage in lineages:
        lineage.state = state_at(2)
        records.retire(lineage)
    assert records.attach([0, 1]) is None
    assert records.attach([1, 1]) is not None


def test_kept_states_thin_out_evenly() -> None:
    lineage = Lineage(list(range(20_000)))
    for position in range(100, 20_000, 100):
        lineage.keep(state_at(position))
    places = [lineage.depth(limit) for limit in range(100, 20_000, 100)]
    assert len(set(places)) <= MAX_SNAPSHOTS + 1
    assert lineage.depth(19_900) == 19_900
    gaps = [limit - place for limit, place in zip(range(100, 20_000, 100), places, strict=True)]
    assert max(gaps) <= 2000


def test_truncating_moves_to_a_kept_state() -> None:
    lineage = Lineage(list(range(50)))
    lineage.keep(state_at(10))
    lineage.keep(state_at(30))
    lineage.state = state_at(50)
    lineage.truncate(29)
    assert lineage.tokens == list(range(29))
    assert lineage.state is not None and lineage.state.position == 10
    lineage.truncate(5)
    assert lineage.state is None
