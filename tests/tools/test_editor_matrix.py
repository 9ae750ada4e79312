"""The editor over one real cage: every row is a folder of real files, a call, and the folder after it."""

import os
import stat
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from dsv4agent.tools import Status, StrReplaceEditor
from tests.tools.editor_matrix import TEXT_ROWS, Row, create, insert, replace, view
from tests.tools.editor_matrix_files import FILE_ROWS
from tests.tools.real_desk import RealDesk, open_desk, with_mode

pytestmark = pytest.mark.anyio

ROWS = [*TEXT_ROWS, *FILE_ROWS]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealDesk]:
    async with open_desk(tmp_path_factory.mktemp("editor")) as desk:
        yield desk


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_editor(desk: RealDesk, row: Row) -> None:
    desk.fill(row.before)
    expected = desk.contents()
    for name, content in row.after.items():
        if content is None:
            del expected[name]
        else:
            expected[name] = content.encode() if isinstance(content, str) else content
    editor = StrReplaceEditor()
    for step in row.first:
        if isinstance(step, str):
            assert (await desk.sandbox.run(["sh", "-c", step])).exit_code == 0
        else:
            await desk.call(editor, **step)
    result = await desk.call(editor, **row.call)
    assert result.code == row.code, result.text
    # Not by `==` alone: a difference between files of megabytes takes minutes to explain.
    found = desk.contents()
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    if row.code is None:
        assert result.status is Status.OK
        assert row.text is None or result.text == row.text
    else:
        denied = row.code in {"outside_workspace", "permission_denied"}
        assert result.status is (Status.DENIED if denied else Status.ERROR)
        assert result.text.startswith(row.text or f"{row.code}: ")
    result.text.encode()


def test_rows_are_many_and_named_apart() -> None:
    assert [name for name, count in Counter(row.name for row in ROWS).items() if count > 1] == []
    assert len(ROWS) >= 130


@pytest.mark.parametrize("mode", [0o400, 0o444, 0o600, 0o640, 0o755, 0o777])
async def test_the_mode_stays(desk: RealDesk, mode: int) -> None:
    desk.fill({"a": with_mode(mode, "x\n")})
    editor = StrReplaceEditor()
    for call in (replace("a", "x", "y"), insert("a", 1, "z"), view("a"), create("a", "new\n")):
        assert (await desk.call(editor, **call)).status is Status.OK
        assert stat.S_IMODE(os.stat(desk.workspace / "a").st_mode) == mode


async def test_absolute_paths_inside(desk: RealDesk) -> None:
    desk.fill({"a": "x\n"})
    path = str(desk.workspace / "a")
    editor = StrReplaceEditor()
    result = await desk.call(editor, **replace(path, "x", "y"))
    assert result.text == f"Edited {path}.\n     1\ty"
    assert (await desk.call(editor, **create("a", "z"))).text == "Overwrote a."


async def test_a_cut_view_says_what_is_missing(desk: RealDesk) -> None:
    desk.fill({"lines": "x y z\n" * 900, "long": "x y " * 9000 + "\nend\n", "one": "x y " * 9000})
    editor = StrReplaceEditor()
    shown = (await desk.call(editor, 400, **view("lines"))).text
    last = shown.count("\n")
    assert shown.endswith(f"\n{last:6}\tx y z\n[... lines {last + 1}-900 of 900 not shown; use view_range]")
    assert (await desk.call(editor, 400, **view("long"))).text.endswith(
        "\n[... line 1 is cut, lines 2-2 of 2 are not shown; use bash with cut -c]"
    )
    assert (await desk.call(editor, 400, **view("one"))).text.endswith(
        "\n[... line 1 is cut; use bash with cut -c]"
    )
    edited = await desk.call(editor, 400, **replace("long", "end", "fin"))
    assert edited.text.endswith("\n[... cut; view the file for the rest]")


async def test_no_temporary_file_stays(desk: RealDesk) -> None:
    desk.fill({"a": "x\n"})
    editor = StrReplaceEditor()
    await desk.call(editor, **replace("a", "x", "y"))
    await desk.call(editor, **create("../outside/b", "x"))
    await desk.call(editor, **create("n" * 300, "x"))
    assert os.listdir(desk.workspace) == ["a"]
