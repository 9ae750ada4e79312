from __future__ import annotations

import random
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.train_mini.packing import (
    ALIGNMENT,
    KEPT_ROWS,
    LOOK_EVERY,
    DocumentLike,
    ExtraDocuments,
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
    stream = list(islice(mixed(documents(0), lambda: loaded, 0.3, random.Random(0)), 400))
    share = sum(any(d is other for other in loaded) for d in stream) / 400
    assert 0.2 < share < 0.4
    assert len(list(mixed(iter(extra), list[DocumentLike], 0.5, random.Random(0)))) == 2


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


def marked(size: int, letter: int) -> StoredDocument:
    """Return a document of one id that the source never yields."""
    return StoredDocument(np.full(size, letter, np.uint16), np.full(size, 2, np.uint8))


def test_extra_documents_follow_their_file(tmp_path: Path) -> None:
    fixed, watched = tmp_path / "fixed.npz", tmp_path / "watched.npz"
    save_documents(fixed, [marked(30, 61)])
    extra = ExtraDocuments(fixed, watched)

    def ids() -> list[int]:
        return sorted(int(d.ids[0]) for d in [extra() for _ in range(LOOK_EVERY + 1)][-1])

    assert ids() == [61]
    for documents_now in ([marked(20, 62)], [marked(20, 62), marked(20, 63)]):
        save_documents(tmp_path / "partial.npz", documents_now)
        (tmp_path / "partial.npz").replace(watched)
        assert ids() == [61, *(int(d.ids[0]) for d in documents_now)]
    assert list(ExtraDocuments(None, None)()) == []


def test_running_feeders_take_in_further_documents(tmp_path: Path) -> None:
    stream = RowStream(
        SOURCE,
        workers=2,
        length=512,
        seed=1,
        extra_share=0.5,
        further=tmp_path / "further.npz",
        backlog=400,
        log=tmp_path / "log",
    )
    try:
        stream.wait_for(400, timeout=60)
        assert not (stream.batch(100).ids > 60).any()
        stream.add_documents([marked(100, 61)])
        assert stream.waiting <= KEPT_ROWS
        stream.add_documents([marked(100, 62)])
        seen = _rows_with(stream, 61), _rows_with(stream, 62)
        assert all(count > 20 for count in seen)
        stream.hold(True)
        time.sleep(0.3)
        received = stream.received
        time.sleep(0.3)
        assert stream.received <= received + 1
        stream.hold(False)
        stream.batch(stream.waiting)
        stream.wait_for(1, timeout=60)
        deadline = time.monotonic() + 30
        while stream.received <= received + 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        stream.close()
    again = RowStream(SOURCE, workers=1, length=512, seed=1, further=tmp_path / "further.npz")
    try:
        again.add_documents([marked(100, 63)])
    finally:
        again.close()
    assert [int(d.ids[0]) for d in load_documents(tmp_path / "further.npz")] == [61, 62, 63]


def _rows_with(stream: RowStream, letter: int) -> int:
    """Return how many of the next fresh rows, more than the queue held before, have an id."""
    count = 0
    for _ in range(300):
        deadline = time.monotonic() + 30
        while not stream.waiting:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        count += bool((stream.batch(1).ids == letter).any())
    return count


def test_a_stream_without_a_file_takes_no_documents(tmp_path: Path) -> None:
    stream = RowStream(SOURCE, workers=1, length=512, seed=1, log=tmp_path / "log")
    try:
        with pytest.raises(ValueError, match="no file"):
            stream.add_documents([marked(10, 61)])
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
