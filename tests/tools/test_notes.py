import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4agent.sandboxes import MemorySandbox, Policy, SandboxUnavailable, choose_sandbox
from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.tools import Status, ToolContext, ToolResult
from dsv4agent.tools.note_search import search_notes
from dsv4agent.tools.notes import MAX_NOTE_BYTES, MAX_NOTES, Notes
from tests.tools.editor_desk import count_words
from tests.tools.shell_desk import open_desk

pytestmark = pytest.mark.anyio

STAMP = r"<!-- 20\d\d-\d\d-\d\d \d\d:\d\d UTC, s-1 -->"


class Shelf:
    """Notes over files in memory."""

    def __init__(self, files: Mapping[str, str] | None = None, budget: int = 4000) -> None:
        folder = "/workspace/.dsv4agent/notes"
        contents = {f"{folder}/{name}.md": text.encode() for name, text in (files or {}).items()}
        self.sandbox = MemorySandbox(contents)
        self.context = ToolContext(self.sandbox, count_words, budget)
        self.tool = Notes(source="s-1")

    async def call(self, action: str, **args: Any) -> ToolResult:
        return await self.tool(self.context, {"action": action, **args})

    async def text(self, action: str, **args: Any) -> str:
        return (await self.call(action, **args)).text


async def test_notes_carry_date_and_source() -> None:
    shelf = Shelf()
    assert await shelf.text("list") == "No notes yet."
    assert re.fullmatch(r"Wrote plan \(\d+ bytes\)\.", await shelf.text("write", name="plan", text="\none\n"))
    assert re.fullmatch(STAMP + "\none", await shelf.text("read", name="plan"))
    assert (await shelf.text("append", name="plan.md", text="two")).startswith("Appended to plan")
    both = await shelf.text("read", name="plan")
    assert re.fullmatch(STAMP + "\none\n\n" + STAMP + "\ntwo", both)
    assert (await shelf.text("append", name="new", text="first")).startswith("Wrote new")
    assert re.fullmatch(
        r"new \(\d+ bytes, 20\d\d-\d\d-\d\d\): first\nplan \(\d+ bytes, 20\d\d-\d\d-\d\d\): one",
        await shelf.text("list"),
    )
    await shelf.call("write", name="plan", text="three")
    assert "one" not in await shelf.text("read", name="plan")
    assert shelf.sandbox.files["/workspace/.dsv4agent/.gitignore"] == b"*\n"


async def test_refusals() -> None:
    shelf = Shelf()
    assert await shelf.text("read", name="x") == "not_found: no note x; list shows what there is"
    assert (await shelf.call("delete", name="x")).code == "not_found"
    assert await shelf.text("write", name="x") == "invalid_arguments: write needs name and text"
    for name in ("../x", "a/b", ".x", "-x", "x" * 65, "a.txt", "é", "a\n"):
        assert (await shelf.call("write", name=name, text="t")).code == "invalid_arguments", name
    assert (await shelf.call("write", name="x", text="\ud800")).code == "invalid_arguments"
    assert (await shelf.call("write", name="x", text="t" * MAX_NOTE_BYTES)).code == "too_large"
    assert (await shelf.call("search", query="anything")).code == "not_found"
    assert set(shelf.sandbox.files) == set()
    full = Shelf(files={f"n{number}": "t" for number in range(MAX_NOTES)})
    assert (await full.call("write", name="x", text="t")).code == "too_many_notes"
    assert (await full.call("write", name="n0", text="t")).status is Status.OK


async def test_search_ranks_paragraphs() -> None:
    shelf = Shelf(
        {
            "build": "# Build\n\nRun make test before a commit.\n\nThe cache lies in /var.",
            "deploy": "Deploy with make.\n\nNever on a Friday: the tests are slow then.",
        }
    )
    assert set((await shelf.text("search", query='make "test')).split("\n")) == {
        "build:3: Run make test before a commit.",
        "deploy:1: Deploy with make.",
        "deploy:3: Never on a Friday: the tests are slow then.",
    }
    assert (await shelf.text("search", query="make test")).startswith("build:3:")
    assert await shelf.text("search", query="FRIDAY") == (
        "deploy:3: Never on a Friday: the tests are slow then."
    )
    assert (await shelf.text("search", query="deploy")).startswith("deploy:1: Deploy with make.")
    assert (await shelf.call("search", query="()*-:")).code == "not_found"


@given(st.text(max_size=60), st.text(max_size=200))
def test_any_query_is_only_words(query: str, text: str) -> None:
    for match in search_notes({"n": text, "m": query}, query):
        assert match.name in {"n", "m"} and match.line >= 1


def test_every_word_of_a_note_finds_its_line() -> None:
    text = "alpha beta\n\n\ngamma\ndelta\n\nepsilon"
    for word, line in {"alpha": 1, "beta": 1, "gamma": 4, "delta": 4, "epsilon": 7}.items():
        assert [match.line for match in search_notes({"n": text}, word)] == [line]


async def test_a_long_note_is_cut_to_the_budget() -> None:
    shelf = Shelf({"long": "word " * 2000}, 100)
    text = await shelf.text("read", name="long")
    assert count_words(text) <= 100 and text.endswith("[cut here; search shows single paragraphs]")


async def test_a_folder_that_cannot_be_written() -> None:
    sandbox = MemorySandbox()
    tool = Notes("/elsewhere/notes")
    refused = await tool(
        ToolContext(sandbox, count_words, 100), {"action": "write", "name": "x", "text": "t"}
    )
    assert (refused.status, refused.code) == (Status.DENIED, "permission_denied")


@pytest.mark.parametrize("provider", ["bubblewrap", "landlock"])
async def test_in_real_cages(provider: ProviderName, tmp_path: Path) -> None:
    try:
        async with open_desk(tmp_path, [Notes()], provider) as desk:
            await desk.call("notes", action="write", name="a", text="kept for later")
            assert (desk.workspace / ".dsv4agent/notes/a.md").read_text().endswith("\nkept for later\n")
            assert await desk.text("notes", action="search", query="later") == "a:2: kept for later"
            assert await desk.text("notes", action="delete", name="a") == "Deleted a."
            assert os.listdir(desk.workspace / ".dsv4agent/notes") == []
            (desk.workspace / ".dsv4agent/notes/link.md").symlink_to("/etc/hosts")
            assert await desk.text("notes", action="list") == "No notes yet."
    except SandboxUnavailable as error:
        pytest.skip(str(error))


async def test_a_writable_folder_outside_the_workspace(tmp_path: Path) -> None:
    for name in ("workspace", "notes"):
        (tmp_path / name).mkdir()
    policy = Policy(str(tmp_path / "workspace"), writable=(str(tmp_path / "notes"),))
    async with await choose_sandbox(policy, "none") as sandbox:
        tool = Notes(str(tmp_path / "notes"))
        await tool(ToolContext(sandbox, count_words, 100), {"action": "write", "name": "x", "text": "t"})
    assert os.listdir(tmp_path / "notes") == ["x.md"]


_WRITER = """
import asyncio, sys
from dsv4agent.sandboxes import Policy, choose_sandbox
from dsv4agent.tools import ToolContext
from dsv4agent.tools.notes import Notes

async def main():
    async with await choose_sandbox(Policy(sys.argv[1]), "none") as sandbox:
        context = ToolContext(sandbox, len, 100000)
        for number in range(100000):
            text = f"begin {number} " + "x" * 30000 + f" end {number}"
            await Notes()(context, {"action": "write", "name": "n", "text": text})
            print(number, flush=True)

asyncio.run(main())
"""


def kill_while_writing(folder: Path) -> int:
    """Write a note again and again in another process, kill that, and return the last number it reported."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(folder)], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    written = -1
    for line in process.stdout:
        written = int(line)
        if written >= 20:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return written


async def test_a_note_survives_kill_9_whole(tmp_path: Path) -> None:
    folder = tmp_path / "workspace"
    folder.mkdir()
    written = kill_while_writing(folder)
    text = (folder / ".dsv4agent/notes/n.md").read_text()
    found = re.search(r"begin (\d+) x{30000} end (\d+)\n$", text)
    assert found is not None and found[1] == found[2] and int(found[1]) >= written
    async with open_desk(tmp_path, [Notes()]) as desk:
        assert (await desk.text("notes", action="list")).startswith("n (")
