from collections.abc import Sequence

import anyio
import pytest

from dsv4agent.sandboxes import MemorySandbox
from dsv4agent.tools import Status, ToolContext
from dsv4agent.tools.ask_user import AskUser
from tests.tools.editor_desk import count_words

pytestmark = pytest.mark.anyio


def context(budget: int = 4000) -> ToolContext:
    return ToolContext(MemorySandbox(), count_words, budget)


async def test_the_answer_is_the_result() -> None:
    asked: list[tuple[str, Sequence[str]]] = []

    async def ask(question: str, options: Sequence[str]) -> str:
        asked.append((question, options))
        return f" {options[-1] if options else 'free'}\n"

    tool = AskUser(ask)
    result = await tool(context(), {"question": "Which?", "options": ["a", "b"]})
    assert (result.text, result.status, result.code) == ("b", Status.OK, None)
    assert (await tool(context(), {"question": "How?"})).text == "free"
    assert asked == [("Which?", ["a", "b"]), ("How?", [])]


async def test_without_a_user_the_model_decides() -> None:
    result = await AskUser()(context(), {"question": "Which?"})
    assert result.text == ("no_user: nobody is there to ask; decide yourself and say what you assumed")
    assert (result.status, result.code) == (Status.ERROR, "no_user")


async def test_a_user_who_does_not_answer_in_time() -> None:
    async def ask(question: str, options: Sequence[str]) -> str:
        await anyio.sleep_forever()
        return "never"

    result = await AskUser(ask, timeout=0.05)(context(), {"question": "Which?"})
    assert result.text == (
        "no_answer: nobody answered within 0.05 s; decide yourself and say what you assumed"
    )


async def test_empty_and_endless_answers() -> None:
    async def nothing(question: str, options: Sequence[str]) -> str:
        return " \n"

    async def much(question: str, options: Sequence[str]) -> str:
        return "word " * 1000

    assert (await AskUser(nothing)(context(), {"question": "?"})).code == "no_answer"
    long = await AskUser(much)(context(60), {"question": "?"})
    assert count_words(long.text) <= 60
    assert long.text.endswith("word\n[the rest of the answer is too long to show]")
