import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from dsv4agent.sandboxes import MemorySandbox, Policy
from dsv4agent.tools import Status, StrReplaceEditor, ToolContext
from tests.tools.editor_desk import EditorDesk, count_words

pytestmark = pytest.mark.anyio
Desk = Callable[..., EditorDesk]

PROGRAM = "def f(a, b):\n    return a - b\n\n\nprint(f(1, 2))\n"


async def test_view_numbers_lines(make_desk: Desk) -> None:
    result = await make_desk({"a.py": PROGRAM}).call("view", "a.py")
    assert result.status is Status.OK
    assert result.text == (
        "     1\tdef f(a, b):\n     2\t    return a - b\n     3\t\n     4\t\n     5\tprint(f(1, 2))"
    )


@pytest.mark.parametrize(
    ("wanted", "numbers"), [([2, 3], [2, 3]), ([4, -1], [4, 5]), ([5, 5], [5]), ([1, 99], [1, 2, 3, 4, 5])]
)
async def test_view_range(make_desk: Desk, wanted: list[int], numbers: list[int]) -> None:
    result = await make_desk({"a.py": PROGRAM}).call("view", "a.py", view_range=wanted)
    assert [int(line.split("\t")[0]) for line in result.text.split("\n")] == numbers


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ([0, 2], "invalid_arguments: view_range needs 1 <= first <= last, or -1 as last"),
        ([3, 2], "invalid_arguments: view_range needs 1 <= first <= last, or -1 as last"),
        ([6, -1], "invalid_arguments: view_range starts at 6 but a.py has 5 lines"),
    ],
)
async def test_bad_view_ranges_are_explained(make_desk: Desk, wanted: list[int], text: str) -> None:
    result = await make_desk({"a.py": PROGRAM}).call("view", "a.py", view_range=wanted)
    assert (result.text, result.status, result.code) == (text, Status.ERROR, "invalid_arguments")


async def test_long_files_are_cut_with_exact_counts(make_desk: Desk) -> None:
    desk = make_desk({"long.txt": "".join(f"line {n}\n" for n in range(1, 981))}, budget=400)
    result = await desk.call("view", "long.txt", view_range=[101, -1])
    *shown, note = result.text.split("\n")
    first, last = (int(shown[index].split("\t")[0]) for index in (0, -1))
    assert first == 101 and last == 100 + len(shown)
    assert note == f"[... lines {last + 1}-980 of 980 not shown; use view_range]"
    assert count_words(result.text) <= 400
    assert len(shown) > 20


async def test_folders_show_two_levels_without_hidden_names(make_desk: Desk) -> None:
    files = {"b.py": "", ".git/config": "", "a/x/deep/y": "", "a/b": "", "__pycache__/b.pyc": "", "z/.h": ""}
    desk = make_desk(files)
    assert (await desk.call("view", ".")).text == "__pycache__/\na/\na/b\na/x/\nb.py\nz/"
    assert (await desk.call("view", "/workspace/a/x/")).text == "deep/\ndeep/y"
    assert (await desk.call("view", "z")).text == "(empty directory)"


async def test_long_folders_are_cut(make_desk: Desk) -> None:
    desk = make_desk({f"file_{n:04}.txt": "" for n in range(500)}, budget=200)
    result = await desk.call("view", ".")
    assert result.text.endswith("of 500 entries not shown; view a folder below]")
    assert count_words(result.text) <= 200


async def test_special_contents(make_desk: Desk) -> None:
    desk = make_desk(
        {"empty": "", "crlf": "a\r\nb\r\n", "bom": "\ufeffx\n", "latin": b"caf\xe9\n", "form": "a\x0cb\n"}
    )
    assert (await desk.call("view", "empty")).text == "(empty file)"
    assert (await desk.call("view", "crlf")).text == "     1\ta\n     2\tb"
    assert (await desk.call("view", "bom")).text == "     1\tx"
    assert (await desk.call("view", "latin")).text == "     1\tcaf\ufffd"
    assert (await desk.call("view", "form")).text == "     1\ta\x0cb"


async def test_binary_and_large_files_are_refused(make_desk: Desk) -> None:
    desk = make_desk({"logo": b"\x89PNG\r\n\x1a\n\0", "x": b"a\0b", "big": b"a" * (9 << 20)})
    assert (await desk.call("view", "logo")).text == (
        "binary_file: logo is a PNG image of 9 bytes; inspect it with bash"
    )
    assert (await desk.call("str_replace", "x", old_str="a", new_str="b")).code == "binary_file"
    assert (await desk.call("view", "big")).text == (
        f"too_large: big has {9 << 20} bytes; use bash with sed -n or grep"
    )
    assert (await desk.call("create", "x", file_text="t")).text == (
        "binary_file: x exists and is not a text file; remove it first"
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ({"command": "str_replace", "old_str": "a"}, "str_replace needs old_str and new_str"),
        ({"command": "insert", "new_str": "a"}, "insert needs insert_line and new_str"),
        ({"command": "create"}, "create needs file_text"),
        (
            {"command": "insert", "insert_line": 6, "new_str": "a"},
            "insert_line 6 is past the end; a.py has 5 lines",
        ),
        (
            {"command": "str_replace", "old_str": "", "new_str": "a"},
            "old_str is empty; give the text to replace, or use insert",
        ),
        (
            {"command": "create", "path": "n", "file_text": "\ud800"},
            "file_text holds a lone surrogate; write it as plain text",
        ),
        ({"command": "view", "path": ""}, "path is empty or holds a NUL character"),
    ],
)
async def test_invalid_arguments(make_desk: Desk, call: dict[str, Any], text: str) -> None:
    desk = make_desk({"a.py": PROGRAM})
    result = await desk.call(**{"path": "a.py", **call})
    assert result.text == f"invalid_arguments: {text}"
    assert desk.sandbox.files == {"/workspace/a.py": PROGRAM.encode()}


async def test_missing_and_misplaced_paths(make_desk: Desk) -> None:
    desk = make_desk({"d/a.py": PROGRAM})
    assert (await desk.call("view", "no.py")).text == (
        "not_found: no.py does not exist; view its folder to see what does"
    )
    assert (await desk.call("view", "d/a.py/x")).code == "not_found"
    assert (await desk.call("str_replace", "d", old_str="a", new_str="b")).code == "not_a_file"
    assert (await desk.call("create", "d", file_text="")).code == "not_a_file"
    assert (await desk.call("view", "d", view_range=[1, 2])).code == "invalid_arguments"


async def test_writes_outside_the_workspace_are_denied(make_desk: Desk) -> None:
    desk = make_desk({})
    for path in ("/etc/x", "../x", "/workspace/../etc/x"):
        result = await desk.call("create", path, file_text="")
        assert result.text == f"outside_workspace: {path} is not below /workspace; write there"
        assert result.status is Status.DENIED
    assert not desk.sandbox.files


async def test_str_replace_shows_the_region(make_desk: Desk) -> None:
    desk = make_desk({"a.py": PROGRAM})
    result = await desk.call("str_replace", "a.py", old_str="a - b", new_str="a + b")
    assert result.text == ("Edited a.py.\n     1\tdef f(a, b):\n     2\t    return a + b\n     3\t\n     4\t")
    assert desk.file("a.py") == PROGRAM.replace("a - b", "a + b").encode()


async def test_str_replace_at_both_ends_and_deletion(make_desk: Desk) -> None:
    desk = make_desk({"a": "1\n2\n3\n4\n5\n6\n7\n"})
    assert (
        await desk.call("str_replace", "a", old_str="7\n", new_str="")
    ).text == "Edited a.\n     5\t5\n     6\t6"
    assert (await desk.call("str_replace", "a", old_str="1\n2\n", new_str="x\ny\nz\n")).text == (
        "Edited a.\n     1\tx\n     2\ty\n     3\tz\n     4\t3\n     5\t4"
    )
    await desk.call("str_replace", "a", old_str="x\ny\nz\n3\n4\n5\n6\n", new_str="")
    assert desk.file("a") == b""


async def test_looser_matches_are_named(make_desk: Desk) -> None:
    desk = make_desk({"a.py": "if x:\n    y = 1  \n    z = 2\n"})
    result = await desk.call("str_replace", "a.py", old_str="y = 1\n    z", new_str="y = 3\n    z")
    assert result.text.startswith("Edited a.py (matched ignoring trailing blanks and line endings).\n")
    result = await desk.call("str_replace", "a.py", old_str="y = 3\nz = 2", new_str="y = 4\nz = 5")
    assert result.text.startswith("Edited a.py (matched at another indentation, re-indented).\n")
    assert desk.file("a.py") == b"if x:\n    y = 4\n    z = 5\n"


async def test_edits_that_change_nothing_are_refused(make_desk: Desk) -> None:
    desk = make_desk({"a.py": PROGRAM})
    result = await desk.call("str_replace", "a.py", old_str="a - b", new_str="a - b")
    assert result.text == "no_change: old_str and new_str are the same; nothing was edited"
    desk = make_desk({"a": "x \ny\n"})
    assert (await desk.call("str_replace", "a", old_str="x\ny", new_str="x \ny")).text == (
        "no_change: the edit leaves a as it is"
    )


async def test_ambiguity_names_the_lines(make_desk: Desk) -> None:
    desk = make_desk({"a": "x\ny\nx\nx\n", "many": "x\n" * 30})
    assert (await desk.call("str_replace", "a", old_str="x", new_str="z")).text == (
        "not_unique: old_str occurs 3 times in a, at lines 1, 3, 4; include more lines to make it unique"
    )
    assert "at lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, ...; include" in (
        (await desk.call("str_replace", "many", old_str="x", new_str="z")).text
    )


async def test_a_near_miss_shows_the_nearest_region(make_desk: Desk) -> None:
    desk = make_desk({"a.py": PROGRAM})
    assert (
        await desk.call("str_replace", "a.py", old_str="def f(a,b):\n    return a-b\n", new_str="x")
    ).text == (
        "not_found: old_str is not in a.py; the nearest text is at lines 1-2:\n"
        "     1\tdef f(a, b):\n     2\t    return a - b"
    )
    assert (await desk.call("str_replace", "a.py", old_str="import numpy", new_str="x")).text == (
        "not_found: old_str is not in a.py; view the file and copy the text exactly"
    )


@pytest.mark.parametrize(
    ("before", "line", "new", "after"),
    [
        ("a\nb\n", 0, "x", "x\na\nb\n"),
        ("a\nb\n", 1, "x\n", "a\nx\nb\n"),
        ("a\nb\n", 2, "x", "a\nb\nx\n"),
        ("a\nb", 2, "x\n", "a\nb\nx"),
        ("a\r\nb\r\n", 1, "x\ny", "a\r\nx\r\ny\r\nb\r\n"),
        ("\ufeffa\n", 0, "x", "\ufeffx\na\n"),
        ("", 0, "x", "x\n"),
        ("a\n", 1, "", "a\n\n"),
    ],
)
async def test_insert(make_desk: Desk, before: str, line: int, new: str, after: str) -> None:
    desk = make_desk({"a": before})
    result = await desk.call("insert", "a", insert_line=line, new_str=new)
    assert desk.file("a").decode() == after
    assert result.text.startswith("Edited a.\n")


async def test_insert_shows_the_region(make_desk: Desk) -> None:
    desk = make_desk({"a": "1\n2\n3\n4\n5\n6"})
    assert (await desk.call("insert", "a", insert_line=3, new_str="x\ny\n")).text == (
        "Edited a.\n     2\t2\n     3\t3\n     4\tx\n     5\ty\n     6\t4\n     7\t5"
    )
    assert (await desk.call("insert", "a", insert_line=8, new_str="z")).text == (
        "Edited a.\n     7\t5\n     8\t6\n     9\tz"
    )


async def test_undecodable_bytes_survive_an_edit(make_desk: Desk) -> None:
    desk = make_desk({"a": b"caf\xe9\r\nx\r\n"})
    await desk.call("str_replace", "a", old_str="x", new_str="y\nz")
    assert desk.file("a") == b"caf\xe9\r\ny\r\nz\r\n"


async def test_create_and_overwrite(make_desk: Desk) -> None:
    desk = make_desk({"old": "1\n"})
    assert (await desk.call("create", "new/deep/a.txt", file_text="x")).text == "Created new/deep/a.txt."
    assert desk.file("new/deep/a.txt") == b"x"
    assert (await desk.call("create", "old", file_text="2\n")).text == (
        "stale_file: old exists and was not viewed; view it before overwriting it"
    )
    await desk.call("view", "old")
    assert (await desk.call("create", "old", file_text="2\n")).text == "Overwrote old."
    desk.sandbox.files["/workspace/old"] = b"by another hand\n"
    assert (await desk.call("create", "old", file_text="3\n")).text == (
        "stale_file: old changed since it was last seen; view it before overwriting it"
    )
    assert desk.file("old") == b"by another hand\n"


async def test_new_syntax_errors_are_warned_about_last(make_desk: Desk) -> None:
    desk = make_desk({"a.py": "x = 1\n"})
    result = await desk.call("str_replace", "a.py", old_str="1", new_str="(")
    assert result.text == "Edited a.py.\n     1\tx = (\nwarning: SyntaxError at line 1: '(' was never closed"
    assert result.status is Status.OK
    result = await desk.call("str_replace", "a.py", old_str="x", new_str="y")
    assert result.text == "Edited a.py.\n     1\ty = ("
    result = await desk.call("create", "b.json", file_text="{")
    assert result.text.startswith("Created b.json.\nwarning: SyntaxError at line 1: ")


async def test_what_was_seen_belongs_to_one_sandbox(make_desk: Desk) -> None:
    desk = make_desk({"a": "1\n"})
    await desk.call("view", "a")
    other = ToolContext(MemorySandbox({"/workspace/a": b"1\n"}), count_words, 4000)
    result = await desk.editor(other, {"command": "create", "path": "a", "file_text": "2\n"})
    assert result.code == "stale_file"


async def test_writable_folders_of_the_policy_are_inside(make_desk: Desk) -> None:
    sandbox = MemorySandbox(policy=Policy("/workspace", writable=("/data",)))
    context = ToolContext(sandbox, count_words, 4000)
    result = await StrReplaceEditor()(context, {"command": "create", "path": "/data/x", "file_text": "1"})
    assert result.text == "Created /data/x."


async def test_calls_are_fast_enough_to_make_training_data(make_desk: Desk) -> None:
    """Counts bytecode-level calls instead of time, which a busy machine would falsify."""
    desk = make_desk({"a.py": PROGRAM})
    calls = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    started = time.perf_counter()
    sys.setprofile(profile)
    try:
        result = await desk.call("str_replace", "a.py", old_str="a - b", new_str="a + b")
    finally:
        sys.setprofile(None)
    assert result.status is Status.OK
    assert calls < 150, calls
    assert time.perf_counter() - started < 1


async def test_paths_that_no_encoding_holds_are_refused(make_desk: Desk) -> None:
    result = await make_desk({}).call("view", "a\ud800")
    assert result.code == "invalid_arguments"
    result.text.encode()


async def test_an_edit_is_foreseen_and_not_made(make_desk: Desk) -> None:
    desk = make_desk({"a.py": PROGRAM, "bytes": b"\0\xff"})

    async def foresee(planned: dict[str, str], command: str, path: str, **arguments: Any) -> Any:
        args = {"command": command, "path": path, **arguments}
        return await desk.editor.foresee(desk.context, args, planned)

    there, back = {"old_str": "a - b", "new_str": "a + b"}, {"old_str": "a + b", "new_str": "a - b"}
    first = await foresee({}, "str_replace", "a.py", **there)
    assert (first.place, first.before != first.after) == ("/workspace/a.py", True)
    assert await foresee({}, "str_replace", "/workspace/./a.py", **there) == first
    planned: dict[str, str] = {}
    assert await foresee(planned, "str_replace", "a.py", **there) == first
    second = await foresee(planned, "str_replace", "a.py", **back)
    assert (second.before, second.after) == (first.after, first.before)
    assert desk.file("a.py").decode() == PROGRAM, "nothing was done"
    await desk.call("str_replace", "a.py", **there)
    assert await foresee({}, "str_replace", "a.py", **back) == second
    made = await foresee({}, "create", "new.py", file_text="")
    assert made.before != made.after
    inserted = await foresee({}, "insert", "a.py", insert_line=0, new_str="x")
    assert inserted.before == first.after and inserted.after not in (first.before, first.after)
    refused: list[tuple[str, dict[str, Any]]] = [
        ("str_replace", {"old_str": "a", "new_str": "a"}),
        ("str_replace", {"old_str": "nowhere", "new_str": "a"}),
        ("str_replace", {"old_str": "a", "new_str": "b"}),
        ("insert", {"insert_line": 99, "new_str": "b"}),
        ("insert", {}),
    ]
    for command, arguments in refused:
        sight = await foresee({}, command, "a.py", **arguments)
        assert sight.before == sight.after, (command, arguments)
    for nothing in (("view", "a.py"), ("create", "bytes"), ("create", "")):
        assert await foresee({}, *nothing, file_text="") is None
