"""The search for files over a real cage."""

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dsv4agent.tools import Status, ToolResult
from dsv4agent.tools.glob import GlobTool
from tests.tools.editor_desk import count_words
from tests.tools.real_desk import RealDesk, folder, link, open_desk

pytestmark = pytest.mark.anyio

OLD_TO_NEW = ["a.py", "d/b.py", "d/e/c.ts", "d/ü 😀.txt", "build/x.py", ".github/w.yml", ".gitignore"]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealDesk]:
    async with open_desk(tmp_path_factory.mktemp("glob")) as desk:
        yield desk


def fill(desk: RealDesk, *more: str) -> None:
    names = [*OLD_TO_NEW, *more]
    desk.fill({**dict.fromkeys(names, ""), ".gitignore": "build/\n", ".git/config": "", "empty": folder})
    for age, name in enumerate(reversed(names)):
        os.utime(desk.workspace / name, (1_700_000_000 - age, 1_700_000_000 - age))


async def glob(desk: RealDesk, pattern: str, budget: int = 4000, **arguments: Any) -> ToolResult:
    return await desk.call(GlobTool(), budget, pattern=pattern, **arguments)


@pytest.mark.parametrize(
    ("pattern", "arguments", "text"),
    [
        ("*.py", {}, "d/b.py\na.py"),
        ("./*.py", {}, "a.py"),
        ("**/*", {}, ".gitignore\n.github/w.yml\nd/ü 😀.txt\nd/e/c.ts\nd/b.py\na.py"),
        ("d/**/*.{ts,txt}", {}, "d/ü 😀.txt\nd/e/c.ts"),
        ("*.py", {"path": "d"}, "d/b.py"),
        ("e/*", {"path": "d/"}, "d/e/c.ts"),
        ("*.py", {"path": "build"}, "build/x.py"),
        ("*", {"path": "a.py"}, "a.py"),
        ("*.rs", {}, "(no files match)"),
        ("empty", {}, "(no files match)"),
        ("config", {}, "(no files match)"),
    ],
)
async def test_glob(desk: RealDesk, pattern: str, arguments: dict[str, Any], text: str) -> None:
    fill(desk)
    result = await glob(desk, pattern, **arguments)
    assert (result.text, result.status, result.code) == (text, Status.OK, None)


@pytest.mark.parametrize(
    ("pattern", "arguments", "text"),
    [
        ("", {}, "invalid_arguments: pattern is empty"),
        ("a\0", {}, "invalid_arguments: pattern is empty or holds a NUL"),
        ("\udcff", {}, "invalid_arguments: glob holds a lone surrogate"),
        ("[a", {}, "invalid_arguments: a bracket is not closed"),
        ("{a", {}, "invalid_arguments: a brace is not closed"),
        ("/etc/*", {}, "invalid_arguments: pattern /etc/* leaves "),
        ("../*", {}, "invalid_arguments: pattern ../* leaves "),
        ("*", {"path": "no"}, "not_found: no does not exist"),
        ("*", {"path": "/dev/null"}, "not_a_file: /dev/null is a pipe, socket or device"),
    ],
)
async def test_refusals(desk: RealDesk, pattern: str, arguments: dict[str, Any], text: str) -> None:
    fill(desk)
    result = await glob(desk, pattern, **arguments)
    assert result.text.startswith(text)
    assert (result.status, result.code) == (Status.ERROR, text.partition(":")[0])


async def test_an_absolute_pattern_below_the_folder(desk: RealDesk) -> None:
    fill(desk)
    assert (await glob(desk, f"{desk.workspace}/*.py")).text == "a.py"
    assert (await glob(desk, f"{desk.workspace}/d/*.py", path="d")).text == "d/b.py"


async def test_the_newest_hundred_are_shown(desk: RealDesk) -> None:
    fill(desk, *(f"many/{number:03}" for number in range(130)))
    result = await glob(desk, "many/*")
    *paths, note = result.text.split("\n")
    assert paths == [f"many/{number:03}" for number in range(129, 29, -1)]
    assert note == "[... 30 of 130 files not shown; narrow the pattern or path]"


async def test_long_lists_are_cut_to_the_budget(desk: RealDesk) -> None:
    fill(desk, *(f"many/{'x y ' * 20}{number:03}" for number in range(50)))
    result = await glob(desk, "many/*", 600)
    assert count_words(result.text) <= 600
    shown = result.text.count("\nmany/") + 1
    assert result.text.endswith(f"\n[... {50 - shown} of 50 files not shown; narrow the pattern or path]")


async def test_names_stay_in_one_line_and_links_are_left_out(desk: RealDesk) -> None:
    desk.fill({"a\nb": "", "l": link("a\nb"), os.fsdecode(b"c\xff"): ""})
    assert sorted((await glob(desk, "*")).text.split("\n")) == ["a\\nb", "c\ufffd"]


async def test_paths_outside_are_absolute(desk: RealDesk) -> None:
    fill(desk)
    assert (await glob(desk, "os-release", path="/usr/lib")).text == "/usr/lib/os-release"
