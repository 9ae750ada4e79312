"""Nothing that was printed as done is lost, whenever the process is killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from dsv4agent import RunFinished, StopReason, ToolCallFinished, ToolCallStarted
from dsv4agent.transcript import EVENT_ADAPTER, Transcript, find_session, list_sessions
from tests.e2e.killable import STEPS, script
from tests.scripted import ScriptedBackend, only

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def forker() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.e2e.killable"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


def run_and_kill(forker: subprocess.Popen[str], folder: Path, output: Path, moment: random.Random) -> None:
    """Let a child print so many events, and work on for a moment, then kill it."""
    stdin, stdout = pipes(forker)
    size = lines(output)
    wanted = size + moment.choice([0, 1, 3, 10, 40]) + moment.randrange(4)
    stdin.write(f"{folder} {output}\n")
    stdin.flush()
    pid = int(stdout.readline())
    deadline = time.monotonic() + 5
    while lines(output) < wanted and time.monotonic() < deadline and not finished(output):
        time.sleep(0.002)
    time.sleep(moment.random() * 0.03)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    assert stdout.readline() == "end\n"


def lines(output: Path) -> int:
    return output.read_bytes().count(b"\n") if output.exists() else 0


def finished(output: Path) -> bool:
    return output.exists() and b'"run_finished"' in output.read_bytes()


def pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def printed_events(output: Path) -> list[dict[str, object]]:
    """Return the lines that were written whole."""
    lines = output.read_text().split("\n")[:-1] if output.exists() else []
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_session_survives_being_killed_at_any_moment(
    forker: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    moment = random.Random(seed)
    monkeypatch.setenv("DSV4AGENT_HOME", str(tmp_path))
    (tmp_path / "workspace").mkdir()
    output = tmp_path / "events.jsonl"
    kills = 0
    while not finished(output):
        assert kills < 200, "the session does not get on"
        run_and_kill(forker, tmp_path, output, moment)
        kills += 1
        check_stored(output)
    assert kills >= 10
    check_finished(tmp_path)


def check_stored(output: Path) -> None:
    sessions = list_sessions()
    assert [session.problem for session in sessions] in ([], [None])
    if not sessions:
        assert not printed_events(output)
        return
    transcript = Transcript.open(find_session(sessions[0].session_id), read_only=True)
    stored = {event.seq: event for event in transcript.events}
    transcript.close()
    for line in printed_events(output):
        event = EVENT_ADAPTER.validate_python(line)
        if event.seq is not None:
            assert stored[event.seq] == event


def check_finished(folder: Path) -> None:
    """Assert that the model said what it would have said without any kill, and that no command ran twice."""
    [summary] = list_sessions()
    transcript = Transcript.open(find_session(summary.session_id))
    transcript.close()
    backend = ScriptedBackend(script())
    sampled = [
        transcript.tokens[span.start : span.start + span.length]
        for span in transcript.spans
        if span.kind == "sampled"
    ]
    assert sampled == [backend.turn_ids(number) for number in range(STEPS + 1)]
    assert only(transcript.events, RunFinished)[-1].stop_reason is StopReason.FINISHED
    started = [event.call_id for event in only(transcript.events, ToolCallStarted)]
    assert started == [f"call_{step}_{number}" for step in range(1, STEPS + 1) for number in (1, 2)]
    results = {event.call_id: event for event in only(transcript.events, ToolCallFinished)}
    assert list(results) == started
    trace = (folder / "workspace" / "trace").read_text().split()
    assert len(set(trace)) == len(trace)
    for identity, result in results.items():
        name = identity.removeprefix("call_").replace("_", ".")
        if result.code == "interrupted":
            assert result.text.startswith("interrupted: the runtime ended while this call ran")
        else:
            assert result.text == f"ok {name}"
            assert name in trace
