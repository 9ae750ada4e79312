"""Turns that only repeat edits are taken back and drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from dsv4agent import Agent, Limits, RunFinished, StopReason, ToolCallFinished, TurnDiscarded, UsageError
from dsv4agent.repeats import KnownStates, redrawn
from dsv4agent.tools import Foresight
from tests.scripted import ScriptedBackend, Turn, assert_exact, calls, collect, only, says

pytestmark = pytest.mark.anyio


def edit(old: str, new: str, text: str = "") -> dict[str, Any]:
    arguments = {"command": "str_replace", "path": "a.txt", "old_str": old, "new_str": new}
    return calls(("str_replace_editor", arguments), ("bash", {"command": "cat a.txt"}), text=text)


THERE, BACK, OTHER = edit("world", "moon"), edit("moon", "world"), edit("world", "sun")
EMPTY = edit("world", "world")


def make(*turns: Turn, redraws: int = 4) -> tuple[Agent[None], ScriptedBackend]:
    backend = ScriptedBackend(turns, redraws=redraws)
    return Agent(backend, temperature=0.25), backend


def texts(events: Sequence[Any]) -> list[str]:
    return [event.text for event in only(events, ToolCallFinished)]


async def test_an_edit_made_before_from_the_same_state_is_drawn_again(workspace: Path) -> None:
    again = edit("world", "moon", text="Try this.")
    agent, backend = make(THERE, BACK, (again, EMPTY, OTHER), says("ok"))
    async with agent.session(workspace, sandbox="none", seed=7) as session:
        events = await collect(session, "go")
        assert_exact(session, backend)
        said = [message.get("content") for message in session.messages() if message["role"] == "assistant"]
    assert (workspace / "a.txt").read_text() == "hello\nsun\n"
    discarded = only(events, TurnDiscarded)
    assert [(event.step, event.draw) for event in discarded] == [(3, 1), (3, 2)]
    assert discarded[0].calls[0][0] == "str_replace_editor"
    assert '"moon"' in discarded[0].calls[0][1]
    assert "Try this." not in "".join(map(str, said)), "what a discarded turn said does not count"
    # The first draw of each turn is the user's; others are hotter and have seeds of their own.
    third = backend.samplings[2:5]
    assert [sampling.temperature for sampling in third] == [0.25, 1.0, 1.0]
    assert third[0].seed == 7
    assert len({sampling.seed for sampling in third}) == 3


async def test_an_edit_made_after_taking_another_one_back_counts_as_the_same(workspace: Path) -> None:
    def undo_and(old: str, new: str) -> dict[str, Any]:
        edits = [(old, "world"), ("world", new)]
        arguments = [
            {"command": "str_replace", "path": "a.txt", "old_str": a, "new_str": b} for a, b in edits
        ]
        return calls(*(("str_replace_editor", given) for given in arguments))

    third = (undo_and("sun", "moon"), undo_and("sun", "sun"), undo_and("sun", "sky"))
    agent, _ = make(THERE, undo_and("moon", "sun"), third, says("ok"))
    async with agent.session(workspace, sandbox="none") as session:
        events = await collect(session, "go")
    assert len(only(events, TurnDiscarded)) == 2
    assert (workspace / "a.txt").read_text() == "hello\nsky\n"


async def test_the_last_draw_counts_whatever_it_is(workspace: Path) -> None:
    agent, backend = make(THERE, BACK, (THERE, THERE, THERE), says("ok"), redraws=2)
    async with agent.session(workspace, sandbox="none") as session:
        events = await collect(session, "go")
        assert_exact(session, backend)
    assert len(only(events, TurnDiscarded)) == 2
    assert (workspace / "a.txt").read_text() == "hello\nmoon\n"


@pytest.mark.parametrize("limits", [Limits(redraws=0), None])
async def test_nothing_is_drawn_again_unless_wanted(workspace: Path, limits: Limits | None) -> None:
    agent, _ = make(EMPTY, THERE, BACK, THERE, says("ok"), redraws=4 if limits else 0)
    async with agent.session(workspace, sandbox="none") as session:
        events = [event async for event in session.run("go", limits=limits)]
    assert not only(events, TurnDiscarded)
    assert texts(events)[0].startswith("no_change: ")


async def test_the_same_edit_of_a_changed_file_is_no_repeat(workspace: Path) -> None:
    change = calls(("bash", {"command": "echo world > a.txt"}))
    agent, _ = make(THERE, change, THERE, says("ok"))
    async with agent.session(workspace, sandbox="none") as session:
        assert not only(await collect(session, "go"), TurnDiscarded)
    assert (workspace / "a.txt").read_text() == "moon\n"


async def test_turns_without_edits_may_repeat(workspace: Path) -> None:
    look = calls(
        ("bash", {"command": "cat a.txt"}), ("str_replace_editor", {"command": "view", "path": "a.txt"})
    )
    agent, _ = make(look, look, look, says("ok"))
    async with agent.session(workspace, sandbox="none") as session:
        assert not only(await collect(session, "go"), TurnDiscarded)


async def test_a_crash_between_discarding_and_drawing_loses_nothing(workspace: Path) -> None:
    agent, backend = make(THERE, BACK, (THERE, OTHER), says("ok"))
    async with agent.session(workspace, sandbox="none") as session:
        stops: list[StopReason] = []
        async for event in session.run("go"):
            if isinstance(event, TurnDiscarded):
                session.interrupt()
            elif isinstance(event, RunFinished):
                stops.append(event.stop_reason)
        name = session.id
    assert stops == [StopReason.INTERRUPTED]
    async with Agent[None](backend).session(workspace, sandbox="none", resume=name) as session:
        events = await collect(session, None)
        assert_exact(session, backend)
    assert isinstance(events[-1], RunFinished) and events[-1].stop_reason is StopReason.FINISHED
    assert (workspace / "a.txt").read_text() == "hello\nsun\n"


async def test_a_message_that_came_meanwhile_stays(workspace: Path) -> None:
    agent, _ = make(THERE, BACK, (THERE, OTHER), says("ok"))
    async with agent.session(workspace, sandbox="none") as session, anyio.create_task_group() as tasks:
        async for event in session.run("go"):
            if event.type == "step_started" and event.step == 3:
                tasks.start_soon(session.steer, "and hurry")
        assert any("and hurry" in str(message["content"]) for message in session.messages())
        assert (workspace / "a.txt").read_text() == "hello\nsun\n"


def sight(before: str, after: str, place: str = "a") -> Foresight:
    return Foresight(place, before, after)


def test_a_turn_is_vain_if_it_leaves_nothing_new() -> None:
    known = KnownStates()
    assert not known.vain([sight("0", "1"), None])
    assert known.vain([sight("0", "0")])
    assert known.vain([None, sight("0", "1"), sight("1", "0")]), "there and back"
    known.add([sight("0", "1"), None])
    assert not known.vain([sight("1", "0")]), "back to the beginning is no repeat"
    assert not known.vain([sight("1", "0"), sight("0", "2")])
    known.add([sight("1", "0"), sight("0", "2")])
    assert known.vain([sight("2", "0"), sight("0", "1")]), "left so before, by another way"
    assert not known.vain([sight("2", "0"), sight("0", "1"), sight("0", "1", "b")]), "together it is new"
    known.add([sight("2", "0")])
    known.add([sight("0", "1")])
    assert not known.vain([sight("1", "0")]), "and is none the second time"
    assert known.vain([sight("9", "1")]), "whoever changed it meanwhile"
    assert not known.vain([None, None])
    assert not known.vain([])


def test_draws_have_seeds_of_their_own() -> None:
    assert redrawn(0.0, 5, 0) == (0.0, 5)
    seeds = {redrawn(0.0, seed, draw)[1] for seed in range(10) for draw in range(5)}
    assert len(seeds) == 50
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert redrawn(1.5, 5, 1)[0] == 1.5


def test_the_number_of_draws_cannot_be_negative() -> None:
    assert Limits(redraws=0).redraws == 0
    with pytest.raises(UsageError, match="redraws"):
        Limits(redraws=-1)
