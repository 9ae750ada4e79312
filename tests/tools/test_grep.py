"""The search for lines over a real cage, with ripgrep and without it."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from dsv4agent.sandboxes import Policy
from dsv4agent.tools import Status, ToolResult
from dsv4agent.tools.grep import GrepTool
from tests.tools.editor_desk import count_words
from tests.tools.real_desk import RealDesk, fifo, folder, link, open_desk, with_mode

pytestmark = pytest.mark.anyio

MORE = "not shown; narrow the search]"
FILES = {
    "a.py": "import os\n\n\ndef f():\n    return os.getcwd()\n",
    "d/b.py": "import sys\r\nIMPORT = 1\r\n",
    "d/c.txt": "import nothing\nlast",
    "build/x.py": "import built\n",
    ".gitignore": "build/\n",
    ".git/config": "import no\n",
    ".hidden": "import hidden\n",
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["ripgrep", "python"])
async def desk(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RealDesk]:
    if request.param == "ripgrep" and shutil.which("rg") is None:
        pytest.skip("ripgrep is not installed")
    env = None if request.param == "ripgrep" else {"PATH": "/nonexistent"}
    root = tmp_path_factory.mktemp("grep")
    async with open_desk(root, lambda path: Policy(path, masked=(f"{root}/outside",), env=env)) as desk:
        yield desk


async def grep(desk: RealDesk, pattern: str, budget: int = 4000, **arguments: Any) -> ToolResult:
    return await desk.call(GrepTool(), budget, pattern=pattern, **arguments)


@pytest.mark.parametrize(
    ("pattern", "arguments", "text"),
    [
        (
            "^import",
            {},
            ".hidden:1:import hidden\na.py:1:import os\nd/b.py:1:import sys\nd/c.txt:1:import nothing",
        ),
        ("import (os|sys)$", {}, "a.py:1:import os\nd/b.py:1:import sys"),
        ("import", {"glob": "*.py"}, "a.py:1:import os\nd/b.py:1:import sys"),
        ("import", {"glob": "/*.py"}, "a.py:1:import os"),
        ("import", {"path": "d"}, "d/b.py:1:import sys\nd/c.txt:1:import nothing"),
        ("import", {"path": "d/c.txt"}, "d/c.txt:1:import nothing"),
        ("import", {"path": "d/../d/c.txt"}, "d/c.txt:1:import nothing"),
        ("import", {"path": "d", "glob": "c*"}, "d/c.txt:1:import nothing"),
        ("import", {"path": "build"}, "build/x.py:1:import built"),
        ("import", {"path": "build/x.py"}, "build/x.py:1:import built"),
        ("IMPORT", {}, "d/b.py:2:IMPORT = 1"),
        ("IMPORT", {"ignore_case": True, "path": "d/b.py"}, "d/b.py:1:import sys\nd/b.py:2:IMPORT = 1"),
        ("import", {"output": "files"}, ".hidden\na.py\nd/b.py\nd/c.txt"),
        ("s", {"output": "count"}, "a.py:2\nd/b.py:1\nd/c.txt:1"),
        ("last", {}, "d/c.txt:2:last"),
        ("nowhere", {}, "(no matches)"),
        ("nowhere", {"output": "files"}, "(no matches)"),
        ("f\\(\\)", {"context": 1}, "a.py-3-\na.py:4:def f():\na.py-5-    return os.getcwd()"),
        (
            "sys|os",
            {"context": 1},
            "a.py:1:import os\na.py-2-\n--\na.py-4-def f():\na.py:5:    return os.getcwd()\n--\n"
            "d/b.py:1:import sys\nd/b.py-2-IMPORT = 1",
        ),
        ("os", {"limit": 1, "context": 1}, f"a.py:1:import os\na.py-2-\n[... 1 of 2 matching lines {MORE}"),
        (
            "import",
            {"limit": 2},
            f".hidden:1:import hidden\na.py:1:import os\n[... 2 of 4 matching lines {MORE}",
        ),
        (
            "import",
            {"limit": 3, "output": "files"},
            f".hidden\na.py\nd/b.py\n[... 1 of 4 files {MORE}",
        ),
    ],
)
async def test_grep(desk: RealDesk, pattern: str, arguments: dict[str, Any], text: str) -> None:
    desk.fill(FILES)
    result = await grep(desk, pattern, **arguments)
    assert (result.text, result.status, result.code) == (text, Status.OK, None)


@pytest.mark.parametrize(
    ("pattern", "arguments", "text"),
    [
        ("a(b", {}, "invalid_arguments: "),
        ("", {}, "invalid_arguments: pattern is empty; use glob to list files"),
        ("a\nb", {}, "invalid_arguments: pattern holds a line end or NUL"),
        ("a\0", {}, "invalid_arguments: pattern holds a line end or NUL"),
        ("\ud800", {}, "invalid_arguments: pattern holds a lone surrogate"),
        ("x", {"glob": "[a"}, "invalid_arguments: a bracket is not closed"),
        ("x", {"path": "no"}, "not_found: no does not exist"),
        ("x", {"path": "a.py/b"}, "not_found: a.py/b leads through something that is not a folder"),
        ("x", {"path": "fifo"}, "not_a_file: fifo is a pipe, socket or device"),
        ("x", {"path": "\0"}, "invalid_arguments: path is empty or holds a NUL character"),
    ],
)
async def test_refusals(desk: RealDesk, pattern: str, arguments: dict[str, Any], text: str) -> None:
    desk.fill({**FILES, "fifo": fifo})
    result = await grep(desk, pattern, **arguments)
    assert result.text.startswith(text)
    assert (result.status, result.code) == (Status.ERROR, text.partition(":")[0])


async def test_a_bad_pattern_is_marked(desk: RealDesk) -> None:
    desk.fill({"a": "x"})
    assert (await grep(desk, "ab(")).text.endswith(" at character 3")
    assert (await grep(desk, "a[z-b]")).code == "invalid_arguments"


async def test_each_engine_takes_its_own_expressions(desk: RealDesk) -> None:
    desk.fill({"a": "xy\n"})
    result = await grep(desk, "x(?=y)")
    if desk.sandbox.policy.env is None:
        assert result.text.startswith("invalid_arguments: look-around, ")
    else:
        assert result.text == "a:1:xy"


async def test_a_pattern_is_never_an_option(desk: RealDesk) -> None:
    desk.fill({"-e": "--files\n", "--pre=touch x": "--pre=touch x\n", "a": "-v\n"})
    assert (await grep(desk, "--files")).text == "-e:1:--files"
    assert (await grep(desk, "--pre=touch x")).text == "--pre=touch x:1:--pre=touch x"
    assert (await grep(desk, "-v", path="a")).text == "a:1:-v"
    assert (await grep(desk, "-e", path="-e")).text == "(no matches)"
    assert sorted(os.listdir(desk.workspace)) == ["--pre=touch x", "-e", "a"]


async def test_configuration_in_the_workspace_does_not_count(desk: RealDesk) -> None:
    desk.fill({"a": "x\n", ".ignore": "a\n", ".rgignore": "a\n", ".ripgreprc": "--invert-match\n"})
    assert (await grep(desk, "^x")).text == "a:1:x"


async def test_binary_files_are_skipped(desk: RealDesk) -> None:
    late = b"match\n" + b"x" * 300_000 + b"\n\0match\n"
    desk.fill({"late": late, "nul": b"match\0\n", "ok": "match\n", "latin": b"caf\xe9 match\n"})
    assert (await grep(desk, "match")).text == "latin:1:caf\ufffd match\nok:1:match"


async def test_byte_order_marks(desk: RealDesk) -> None:
    desk.fill({"8": b"\xef\xbb\xbfmatch\n", "16": "match \u00e9\n".encode("utf-16")})
    assert (await grep(desk, "^match")).text == "16:1:match \u00e9\n8:1:match"


async def test_unicode(desk: RealDesk) -> None:
    desk.fill({"ü/😀 b.txt": "naïve 😀\ne\u0301\n\u05d0\u05d1 x\u2028y\n"})
    assert (await grep(desk, "NAÏVE", ignore_case=True)).text == "ü/😀 b.txt:1:naïve 😀"
    assert (await grep(desk, "\u00e9")).text == "(no matches)"
    assert (await grep(desk, "x.y")).text == "ü/😀 b.txt:3:\u05d0\u05d1 x\u2028y"
    assert (await grep(desk, "^.{2}$")).text == "ü/😀 b.txt:2:e\u0301"


async def test_names_stay_in_one_line(desk: RealDesk) -> None:
    desk.fill({"a\nb:1:forged": "x\n"})
    assert (await grep(desk, "x")).text == "a\\nb:1:forged:1:x"


async def test_long_lines_are_cut_around_the_match(desk: RealDesk) -> None:
    desk.fill({"a": "é" * 5000 + "needle" + "b" * 5000 + "\nneedle" + "c" * 400 + "\n"})
    first, second = (await grep(desk, "needle")).text.split("\n")
    assert len(first.removeprefix("a:1:")) <= 300 and len(second.removeprefix("a:2:")) <= 300
    assert first.startswith("a:1:[...]é") and "needle" in first and first.endswith("b[...]")
    assert second.startswith("a:2:needle") and second.endswith("c[...]")


async def test_results_are_cut_to_the_budget_and_counted(desk: RealDesk) -> None:
    desk.fill({"a": "x y\n" * 240})
    result = await grep(desk, "x", 400, limit=250)
    assert count_words(result.text) <= 400
    shown = result.text.count("\na:") + 1
    assert 20 < shown < 240
    assert result.text.endswith(f"\n[... {240 - shown} of 240 matching lines not shown; narrow the search]")


async def test_counting_ends_somewhere(desk: RealDesk) -> None:
    desk.fill({f"{number}": "x\n" * 6000 for number in range(4)})
    result = await grep(desk, "x", limit=1)
    assert result.text == "0:1:x\n[... more than 11999 matching lines not shown; narrow the search]"


async def test_links_are_not_followed_unless_asked_for(desk: RealDesk) -> None:
    desk.fill({"d/a": "x\n", "l": link("d"), "m": link("d/a"), "loop": link("."), "e": folder})
    assert (await grep(desk, "x")).text == "d/a:1:x"
    assert (await grep(desk, "x", path="l")).text == "l/a:1:x"
    assert (await grep(desk, "x", path="m")).text == "m:1:x"


async def test_what_the_sandbox_hides_stays_hidden(desk: RealDesk) -> None:
    desk.fill({"../outside/secret": "x\n"})
    assert (await grep(desk, "localhost", path="/etc/hosts")).text.startswith("/etc/hosts:")
    for path in ("../outside", f"{desk.root}/outside/secret"):
        assert "secret:1:x" not in (await grep(desk, "x", path=path)).text


async def test_many_files_take_several_runs(desk: RealDesk) -> None:
    desk.fill({f"{'n' * 200}{number:04}": "x\n" for number in range(1200)})
    result = await grep(desk, "x", output="files", limit=1)
    assert result.text == f"{'n' * 200}0000\n[... 1199 of 1200 files not shown; narrow the search]"


async def test_a_search_that_takes_too_long_is_ended(desk: RealDesk) -> None:
    desk.fill(FILES)
    result = await desk.call(GrepTool(timeout=0.0), pattern="x")
    assert (result.status, result.code) == (Status.TIMEOUT, "timeout")
    assert result.text == "timeout: the search took longer than 0 s; narrow the path, glob or pattern"


async def test_a_ripgrep_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    path = f"{tmp_path}/workspace/bin:{os.defpath}"
    async with open_desk(tmp_path, lambda workspace: Policy(workspace, env={"PATH": path})) as desk:
        desk.fill({"bin/rg": with_mode(0o755, "#!/bin/sh\necho broken >&2\nexit 2\n"), "a": "xy\n"})
        assert (await grep(desk, "x(?=y)", path="a")).text == "a:1:xy"


async def test_parallel_searches(desk: RealDesk) -> None:
    desk.fill(FILES)
    texts: list[str] = []

    async def one() -> None:
        texts.append((await grep(desk, "IMPORT")).text)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(one)
    assert texts == ["d/b.py:2:IMPORT = 1"] * 3
