from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.train_mini.packing import (
    ALIGNMENT,
    DocumentLike,
    FeederError,
    Rows,
    RowStream,
    StoredDocument,
    load_documents,
    mixed,
    pack_row,
    packed_rows,
    save_documents,
)
from tests.train_mini.training_documents import documents

SOURCE = "tests.train_mini.training_documents:documents"


def document(size: int, first: int) -> StoredDocument:
    ids = (np.arange(size) % 50 + first).astype(np.uint16)
    return StoredDocument(ids, np.full(size, 2, np.uint8))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 512), min_size=1, max_size=12))
def test_rows_hold_whole_documents_at_aligned_starts(sizes: list[int]) -> None:
    offered: list[DocumentLike] = [document(size, 3 + number) for number, size in enumerate(sizes)]
    kept = list(offered)
    row = pack_row(kept, 512)
    taken = [d for d in offered if not any(d is other for other in kept)]
    assert taken[0] is offered[0]
    starts = row.start[0]
    assert all(start % ALIGNMENT == 0 for start in starts)
    for number, start in enumerate(sorted(set(starts.tolist()))):
        positions = np.flatnonzero(starts == start)
        assert positions[0] == start
        assert row.weight[0, start] == 0
        ids = row.ids[0, positions]
        if (ids == 2).all():
            assert number == len(taken)
            assert not row.weight[0, positions].any()
        else:
            assert any(
                np.array_equal(ids[: len(d.ids)], d.ids) and (ids[len(d.ids) :] == 2).all() for d in taken
            )
    used = sum(-(-len(d.ids) // ALIGNMENT) * ALIGNMENT for d in taken)
    assert all(len(other.ids) > 512 - used for other in kept)


def test_bytes_round_trip() -> None:
    row = next(packed_rows(documents(1), 1024, random.Random(0)))
    again = Rows.from_bytes(row.to_bytes(), 1024)
    assert np.array_equal(row.ids, again.ids)
    assert np.array_equal(row.start, again.start)
    assert np.array_equal(row.weight, again.weight)


def test_too_long_documents_are_dropped_and_the_stream_ends() -> None:
    stream = iter([document(2000, 3), document(100, 4), document(1, 5)])
    rows = list(packed_rows(stream, 1024, random.Random(0)))
    assert len(rows) == 1
    assert int((rows[0].ids == 4).sum()) > 0
    with pytest.raises(ValueError, match="does not fit"):
        pack_row([document(2000, 3)], 1024)


def test_documents_survive_a_file_and_are_mixed_in(tmp_path: Path) -> None:
    extra = [document(30, 3), document(20, 9)]
    save_documents(tmp_path / "extra.npz", extra)
    loaded = load_documents(tmp_path / "extra.npz")
    assert [d.ids.tolist() for d in loaded] == [d.ids.tolist() for d in extra]
    assert [d.weight.tolist() for d in loaded] == [d.weight.tolist() for d in extra]
    stream = list(islice(mixed(documents(0), loaded, 0.3, random.Random(0)), 400))
    share = sum(any(d is other for other in loaded) for d in stream) / 400
    assert 0.2 < share < 0.4
    assert len(list(mixed(iter(extra), [], 0.5, random.Random(0)))) == 2


def test_empty_file_of_documents(tmp_path: Path) -> None:
    save_documents(tmp_path / "none.npz", [])
    assert load_documents(tmp_path / "none.npz") == []


def test_stream_serves_fresh_rows_then_replays(tmp_path: Path) -> None:
    stream = RowStream(SOURCE, workers=2, length=512, seed=1, backlog=8, log=tmp_path / "log")
    try:
        stream.wait_for(8, timeout=60)
        first = stream.batch(4)
        assert first.ids.shape == first.weight.shape == first.start.shape == (4, 512)
        assert stream.fresh == 4
        assert (first.weight == 2).any()
        many = stream.batch(200)
        assert many.tokens == 200 * 512
        assert stream.replayed > 100
        assert stream.fresh + stream.replayed == 204
        assert stream.received <= stream.fresh + stream.backlog
    finally:
        stream.close()


def test_dead_feeders_are_reported(tmp_path: Path) -> None:
    stream = RowStream(
        "tests.train_mini.training_documents:failing", workers=1, length=512, seed=1, log=tmp_path / "log"
    )
    try:
        with pytest.raises(FeederError, match="log"):
            stream.wait_for(1, timeout=60)
        with pytest.raises(FeederError):
            stream.batch(1)
    finally:
        stream.close()
