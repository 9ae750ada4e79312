from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsv4agent import RunFinished, SessionNotFound, StopReason, UserMessage
from dsv4agent.transcript import Transcript, find_session, list_sessions, new_session_id, sessions_dir
from tests.transcript.test_transcript import header


def make(session_id: str, task: str = "do it", *, finished: bool = True) -> None:
    transcript = Transcript.create(sessions_dir() / session_id, header(session_id=session_id))
    transcript.commit(UserMessage(step=1, text=task))
    if finished:
        end = RunFinished(
            stop_reason=StopReason.FINISHED,
            message="",
            steps=1,
            computed_tokens=1,
            reused_tokens=0,
            sampled_tokens=1,
            seconds=1.0,
        )
        transcript.commit(end)
    transcript.close()


def test_sessions_are_listed_last_used_first(home: Path) -> None:
    make("one")
    make("two", "another", finished=False)
    summaries = list_sessions()
    assert [summary.session_id for summary in summaries] == ["two", "one"]
    assert [summary.task for summary in summaries] == ["another", "do it"]
    assert [summary.stop_reason for summary in summaries] == [None, "finished"]
    assert home in find_session().parents


def test_sessions_are_found_by_prefix() -> None:
    make("abc1")
    make("abd2")
    make("ab")
    assert find_session("abc").name == "abc1"
    assert find_session("ab").name == "ab"
    for unknown in ("abx", "a"):
        with pytest.raises(SessionNotFound, match=repr(unknown)):
            find_session(unknown)


def test_the_last_used_is_the_default() -> None:
    with pytest.raises(SessionNotFound):
        find_session()
    make("one")
    make("two")
    newest = sessions_dir() / "one" / "session.db"
    os.utime(newest, (newest.stat().st_atime, newest.stat().st_mtime + 100))
    assert find_session().name == "one"


def test_a_corrupt_session_is_listed_with_its_problem() -> None:
    make("one")
    (sessions_dir() / "one" / "session.db").write_bytes(b"x" * 5000)
    [summary] = list_sessions()
    assert summary.problem is not None
    assert "not a readable session database" in summary.problem


def test_ids_do_not_repeat_and_sort_by_time() -> None:
    ids = [new_session_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert sorted(identity[:15] for identity in ids) == [identity[:15] for identity in ids]
