from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from dsv4agent import Rewound, SessionBusy, SessionCorrupt, SessionNotFound, StepStarted, UserMessage
from dsv4agent.transcript import Header, ModelRecord, NewSpan, Sampling, Span, Transcript
from dsv4agent.transcript.transcript import DATABASE


def header(**changes: object) -> Header:
    model = ModelRecord(name="m", path="/m", fingerprint="f", revision="v4-preview", context_window=100)
    base = Header(
        session_id="s",
        model=model,
        mode="non-think",
        instructions="Be brief.",
        sampling=Sampling(seed=7),
        tools=({"name": "bash"},),
        sandbox={"provider": "none"},
        workspace="/w",
    )
    return base.model_copy(update=changes)


def filled(folder: Path) -> Transcript:
    transcript = Transcript.create(folder, header())
    transcript.commit(UserMessage(step=1, text="hé"))
    prompt = [NewSpan((0, 5), "control", "control"), NewSpan((6, 7, 8), "content", "user")]
    transcript.commit(StepStarted(step=1, position=5, new_tokens=5), spans=prompt, step=1)
    transcript.extend([9, 10], step=1)
    transcript.extend([4294967295], step=1)
    return transcript


def test_what_is_committed_is_read_again(tmp_path: Path) -> None:
    first = filled(tmp_path / "s")
    first.close()
    second = Transcript.open(tmp_path / "s")
    assert second.tokens == [0, 5, 6, 7, 8, 9, 10, 4294967295]
    assert second.events == first.events
    assert [event.seq for event in second.events] == [0, 3]
    assert second.header == header()
    assert second.spans == [
        Span(0, 2, 1, "control", "control"),
        Span(2, 3, 1, "content", "user"),
        Span(5, 3, 1, "sampled", "model"),
    ]
    second.close()


def test_a_cut_shortens_the_views_and_not_the_log(tmp_path: Path) -> None:
    transcript = filled(tmp_path / "s")
    transcript.cut(3, Rewound(step=1, position=3), step=1)
    transcript.extend([11], step=1)
    transcript.close()
    again = Transcript.open(tmp_path / "s")
    assert again.tokens == [0, 5, 6, 11]
    assert [span.length for span in again.spans] == [2, 1, 1]
    assert [event.type for event in again.events] == ["user_message", "step_started", "rewound"]
    assert [event.type for event in again.live_events()] == ["user_message"]
    again.close()


def test_a_fork_has_the_live_content_and_goes_its_own_way(tmp_path: Path) -> None:
    source = filled(tmp_path / "s")
    branch = source.fork(tmp_path / "t", header(session_id="t"))
    source.extend([1], step=1)
    assert branch.tokens == source.tokens[:-1]
    assert branch.spans[:2] == source.spans[:2]
    assert [event.type for event in branch.live_events()] == ["user_message", "step_started"]
    branch.close()
    source.close()
    Transcript.open(tmp_path / "t").close()


def test_one_writer_and_any_readers(tmp_path: Path) -> None:
    writer = filled(tmp_path / "s")
    with pytest.raises(SessionBusy):
        Transcript.open(tmp_path / "s")
    reader = Transcript.open(tmp_path / "s", read_only=True)
    assert reader.tokens == writer.tokens
    reader.close()
    writer.close()
    Transcript.open(tmp_path / "s").close()


def test_others_cannot_read_a_session(tmp_path: Path) -> None:
    transcript = filled(tmp_path / "s")
    for folder in (transcript.folder, transcript.spill_dir):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    transcript.close()


def test_a_missing_session_is_named(tmp_path: Path) -> None:
    with pytest.raises(SessionNotFound, match="sessions list"):
        Transcript.open(tmp_path / "nothing")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE records SET body = X'01000000' WHERE kind = 'ids' AND start = 0",
        "UPDATE records SET label = 'content tool:bash' WHERE start = 2",
        "UPDATE records SET start = start + 1 WHERE seq = 4",
        "UPDATE records SET step = 2 WHERE seq = 0",
        "DELETE FROM records WHERE seq = 2",
        "DELETE FROM records WHERE seq = 0",
        "UPDATE records SET seq = 99 WHERE seq = 1",
        "UPDATE records SET digest = X'00' WHERE seq = 5",
        "UPDATE records SET body = replace(body, 'h', 'H') WHERE seq = 0",
        "UPDATE header SET body = replace(body, 'Be brief', 'Be long')",
        "DELETE FROM header",
        "UPDATE header SET body = '{}'",
    ],
)
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    filled(tmp_path / "s").close()
    with sqlite3.connect(tmp_path / "s" / DATABASE) as connection:
        assert connection.execute(damage).rowcount == 1
    connection.close()
    with pytest.raises(SessionCorrupt):
        Transcript.open(tmp_path / "s")
    # The lock is free again: the error says why, and not that the session is busy.
    with pytest.raises(SessionCorrupt):
        Transcript.open(tmp_path / "s")


def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path) -> None:
    filled(tmp_path / "s").close()
    (tmp_path / "s" / DATABASE).write_bytes(b"not a database, not at all" * 99)
    with pytest.raises(SessionCorrupt):
        Transcript.open(tmp_path / "s")


def test_another_format_is_refused(tmp_path: Path) -> None:
    Transcript.create(tmp_path / "s", header(format=999)).close()
    with pytest.raises(SessionCorrupt, match="format 999"):
        Transcript.open(tmp_path / "s")
