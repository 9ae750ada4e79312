"""The patch tool over a real cage: patch, files before, and the files after or the code."""

import os
import stat
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from dsv4agent.sandboxes import MemorySandbox
from dsv4agent.tools import Status, ToolContext
from dsv4agent.tools.apply_patch import ApplyPatchTool
from tests.tools.editor_desk import count_words
from tests.tools.real_desk import Content, RealDesk, fifo, folder, hard_link, link, open_desk, with_mode

pytestmark = pytest.mark.anyio

PROGRAM = "class A:\n    def f(self):\n        return 1\n\n    def g(self):\n        return 1\n"


@dataclass(frozen=True)
class Case:
    """One patch. `after` names what differs from `before`, None for a file that is gone."""

    name: str
    patch: str
    before: Mapping[str, Content] = field(default_factory=dict[str, Content])
    after: Mapping[str, str | bytes | None] = field(default_factory=dict[str, str | bytes | None])
    text: str = ""
    """Whole text of a result, or the start of a refusal."""


def case(
    name: str,
    body: str,
    before: Mapping[str, Content] | None = None,
    after: Mapping[str, str | bytes | None] | None = None,
    text: str = "",
) -> Case:
    """A case whose patch is a body within the envelope."""
    return Case(name, f"*** Begin Patch\n{body}\n*** End Patch\n", before or {}, after or {}, text)


CASES = [
    # Adding
    case("add", "*** Add File: a.txt\n+one\n+two", {}, {"a.txt": "one\ntwo\n"}, "A a.txt (+2)"),
    case("add in new folders", "*** Add File: x/y/a\n+1", {}, {"x/y/a": "1\n"}, "A x/y/a (+1)"),
    case("add an empty file", "*** Add File: a", {}, {"a": ""}, "A a (+0)"),
    case("add blank lines", "*** Add File: a\n+\n+x\n+", {}, {"a": "\nx\n\n"}, "A a (+3)"),
    case("add over a file", "*** Add File: a\n+x", {"a": "1\n"}, {}, "already_exists: a exists; use"),
    case("add over a folder", "*** Add File: a\n+x", {"a": folder}, {}, "not_a_file: a is a directory"),
    case("add below a file", "*** Add File: a/b\n+x", {"a": "1\n"}, {}, "not_found: a/b leads through"),
    case(
        "add lines that look like the format",
        "*** Add File: a\n+*** End Patch\n++x\n+@@ y\n+-z",
        {},
        {"a": "*** End Patch\n+x\n@@ y\n-z\n"},
        "A a (+4)",
    ),
    case("add control tokens as text", "*** Add File: a\n+<｜User｜>", {}, {"a": "<｜User｜>\n"}, "A a (+1)"),
    case("add emoji and accents", "*** Add File: é 😀\n+e\u0301", {}, {"é 😀": "e\u0301\n"}, "A é 😀 (+1)"),
    case(
        "add with a blank in the name",
        "*** Add File:  a b.txt \n+x",
        {},
        {"a b.txt": "x\n"},
        "A a b.txt (+1)",
    ),
    case("add a name like an option", "*** Add File: --help\n+x", {}, {"--help": "x\n"}, "A --help (+1)"),
    case(
        "add warns of a syntax error",
        "*** Add File: a.py\n+x = (",
        {},
        {"a.py": "x = (\n"},
        "A a.py (+1)\nwarning: a.py: SyntaxError at line 1: '(' was never closed",
    ),
    # Deleting
    case("delete", "*** Delete File: a", {"a": "1\n2\n", "b": "x"}, {"a": None}, "D a (-2)"),
    case("delete without last newline", "*** Delete File: a", {"a": "1\n2"}, {"a": None}, "D a (-2)"),
    case("delete an empty file", "*** Delete File: a", {"a": ""}, {"a": None}, "D a (-0)"),
    case("delete a binary file", "*** Delete File: a", {"a": b"\0\1\n"}, {"a": None}, "D a"),
    case("delete what is not there", "*** Delete File: a", {}, {}, "not_found: a does not exist"),
    case("delete a folder", "*** Delete File: a", {"a/b": "1"}, {}, "not_a_file: a is a directory"),
    case("delete a pipe", "*** Delete File: a", {"a": fifo}, {}, "not_a_file: a is a pipe"),
    case(
        "delete a link, not its file",
        "*** Delete File: a",
        {"b": "1\n", "a": link("b")},
        {"a": None},
        "D a (-1)",
    ),
    case("delete a dangling link", "*** Delete File: a", {"a": link("b")}, {}, "not_found: a does not exist"),
    case(
        "delete a read-only file",
        "*** Delete File: a",
        {"a": with_mode(0o444, "1\n")},
        {"a": None},
        "D a (-1)",
    ),
    # Updating
    case(
        "update",
        "*** Update File: a.py\n@@\n class A:\n     def f(self):\n-        return 1\n+        return 2",
        {"a.py": PROGRAM},
        {"a.py": PROGRAM.replace("1", "2", 1)},
        "M a.py (+1 -1)",
    ),
    case("update without @@", "*** Update File: a\n-1\n+2", {"a": "1\n"}, {"a": "2\n"}, "M a (+1 -1)"),
    case(
        "the first match counts",
        "*** Update File: a\n@@\n-x\n+y",
        {"a": "x\nx\n"},
        {"a": "y\nx\n"},
        "M a (+1 -1)",
    ),
    case(
        "the search goes on after a change",
        "*** Update File: a\n@@\n-x\n+y\n@@\n-x\n+z",
        {"a": "x\nx\nx\n"},
        {"a": "y\nz\nx\n"},
        "M a (+2 -2)",
    ),
    case(
        "a header narrows the search",
        "*** Update File: a.py\n@@ def g(self):\n-        return 1\n+        return 3",
        {"a.py": PROGRAM},
        {"a.py": PROGRAM.replace("return 1\n", "return 3\n").replace("3", "1", 1)},
        "M a.py (+1 -1; change 1 matched ignoring leading and trailing blanks)",
    ),
    case(
        "nested headers",
        "*** Update File: a\n@@ B\n@@ f\n-1\n+2",
        {"a": "A\nf\n1\nB\nf\n1\n"},
        {"a": "A\nf\n1\nB\nf\n2\n"},
        "M a (+1 -1)",
    ),
    case(
        "a header repeated as context",
        "*** Update File: a\n@@ f\n f\n-1\n+2",
        {"a": "f\n1\nf\n1\n"},
        {"a": "f\n2\nf\n1\n"},
        "M a (+1 -1)",
    ),
    case(
        "a header of a unified diff",
        "*** Update File: a\n@@ -1,2 +1,2 @@\n-1\n+2\n@@ -9 +9 @@ f\n-1\n+3",
        {"a": "1\nf\n1\n"},
        {"a": "2\nf\n3\n"},
        "M a (+2 -2)",
    ),
    case(
        "a header that is missing",
        "*** Update File: a\n@@ nowhere\n-1\n+2",
        {"a": "1\n"},
        {},
        "not_found: change 1 of a (line 3 of the patch): the header 'nowhere' is not there; nothing",
    ),
    case(
        "changes in the wrong order",
        "*** Update File: a\n@@\n-2\n+x\n@@\n-1\n+y",
        {"a": "1\n2\n"},
        {},
        "not_found: change 2 of a (line 6 of the patch): the old lines are not there after line 2; "
        "nothing was written; found at line 1: give changes in the order of the file",
    ),
    case(
        "lines that are not there, with the nearest ones",
        "*** Update File: a.py\n@@\n-    def f(this):\n-        return 2\n+x",
        {"a.py": PROGRAM},
        {},
        "not_found: change 1 of a.py (line 3 of the patch): the old lines are not there; "
        "nothing was written; the nearest text is at lines 2-3:\n     2\t    def f(self):\n"
        "     3\t        return 1",
    ),
    case(
        "lines that are nowhere near",
        "*** Update File: a\n-import numpy\n+x",
        {"a": "1\n"},
        {},
        "not_found: change 1 of a (line 3 of the patch): the old lines are not there; nothing was written; "
        "view the file",
    ),
    case(
        "end of file anchors",
        "*** Update File: a\n@@\n-x\n+y\n*** End of File",
        {"a": "x\nx\n"},
        {"a": "x\ny\n"},
        "M a (+1 -1)",
    ),
    case(
        "end of file refuses what stands before",
        "*** Update File: a\n@@\n-x\n+y\n*** End of File",
        {"a": "x\nz\n"},
        {},
        "not_found: change 1 of a (line 3 of the patch): the old lines are not there at the end of the file",
    ),
    case("add at the end", "*** Update File: a\n@@\n+2", {"a": "1\n"}, {"a": "1\n2\n"}, "M a (+1 -0)"),
    case(
        "add below a header",
        "*** Update File: a\n@@ f\n+1",
        {"a": "f\n2\n"},
        {"a": "f\n1\n2\n"},
        "M a (+1 -0)",
    ),
    case(
        "add at the end despite a header",
        "*** Update File: a\n@@ f\n+1\n*** End of File",
        {"a": "f\n2\n"},
        {"a": "f\n2\n1\n"},
        "M a (+1 -0)",
    ),
    case("add to an empty file", "*** Update File: a\n+1", {"a": ""}, {"a": "1\n"}, "M a (+1 -0)"),
    case(
        "insert before a line",
        "*** Update File: a\n@@\n+0\n 1",
        {"a": "1\n2\n"},
        {"a": "0\n1\n2\n"},
        "M a (+1 -0)",
    ),
    case("remove all lines", "*** Update File: a\n-1\n-2", {"a": "1\n2\n"}, {"a": ""}, "M a (+0 -2)"),
    case(
        "a bare blank line is context",
        "*** Update File: a\n@@\n 1\n\n-2\n+3",
        {"a": "1\n\n2\n"},
        {"a": "1\n\n3\n"},
        "M a (+1 -1)",
    ),
    case(
        "blank lines between sections are layout",
        "*** Update File: a\n@@\n-1\n+2\n\n@@\n-3\n+4\n\n*** Delete File: b\n\n*** Add File: c\n+5\n",
        {"a": "1\n3\n", "b": ""},
        {"a": "2\n4\n", "b": None, "c": "5\n"},
        "M a (+2 -2)\nD b (-0)\nA c (+1)",
    ),
    case("nothing changes", "*** Update File: a\n-1\n+1", {"a": "1\n"}, {}, "no_change: the patch leaves a"),
    case("update what is not there", "*** Update File: a\n-1\n+2", {}, {}, "not_found: a does not exist"),
    case("update a binary file", "*** Update File: a\n-1\n+2", {"a": b"1\n\0"}, {}, "binary_file: a is"),
    case(
        "update a large file",
        "*** Update File: a\n-1\n+2",
        {"a": b"1\n" * (5 << 20)},
        {},
        f"too_large: a has {10 << 20} bytes",
    ),
    case(
        "a warning comes last",
        "*** Update File: a.json\n-{}\n+{",
        {"a.json": "{}\n"},
        {"a.json": "{\n"},
        "M a.json (+1 -1)\nwarning: a.json: SyntaxError at line 2: ",
    ),
    # Looser matches
    case(
        "trailing blanks",
        "*** Update File: a\n x\n-1\n+2",
        {"a": "x  \n1\t\n"},
        {"a": "x  \n2\n"},
        "M a (+1 -1; change 1 matched ignoring trailing blanks)",
    ),
    case(
        "leading blanks: context keeps its own",
        "*** Update File: a\n x\n-1\n+  2",
        {"a": "\tx\n\t1\n"},
        {"a": "\tx\n  2\n"},
        "M a (+1 -1; change 1 matched ignoring leading and trailing blanks)",
    ),
    case(
        "typographic punctuation: context keeps its own",
        '*** Update File: a\n it\'s "so" - yes\n-1\n+2',
        {"a": "it\u2019s \u201cso\u201d\u00a0\u2013 yes\n1\n"},
        {"a": "it\u2019s \u201cso\u201d\u00a0\u2013 yes\n2\n"},
        "M a (+1 -1; change 1 matched ignoring blanks and typographic punctuation)",
    ),
    case(
        "an exact match further down wins",
        "*** Update File: a\n-1\n+2",
        {"a": " 1\n1\n"},
        {"a": " 1\n2\n"},
        "M a (+1 -1)",
    ),
    case(
        "composed and decomposed letters differ",
        "*** Update File: a\n-\u00e9\n+2",
        {"a": "e\u0301\n"},
        {},
        "not_found: change 1 of a",
    ),
    # What stays as it was
    case(
        "CRLF",
        "*** Update File: a\n@@\n 1\n-2\n+x\n+y",
        {"a": "1\r\n2\r\n3\r\n"},
        {"a": "1\r\nx\r\ny\r\n3\r\n"},
        "M a (+2 -1)",
    ),
    case(
        "mixed line endings stay line by line",
        "*** Update File: a\n@@\n 1\n-2\n+x\n 3\n+y",
        {"a": "1\n2\n3\r\n4\n"},
        {"a": "1\nx\n3\r\ny\r\n4\n"},
        "M a (+2 -1)",
    ),
    case(
        "a lone carriage return is part of a line",
        "*** Update File: a\n@@\n-b\n+c",
        {"a": "a\rz\nb\n"},
        {"a": "a\rz\nc\n"},
        "M a (+1 -1)",
    ),
    case(
        "byte order mark",
        "*** Update File: a\n@@\n-1\n+2",
        {"a": "\ufeff1\n"},
        {"a": "\ufeff2\n"},
        "M a (+1 -1)",
    ),
    case(
        "missing last newline, last line replaced",
        "*** Update File: a\n-2\n+3",
        {"a": "1\n2"},
        {"a": "1\n3"},
        "M a (+1 -1)",
    ),
    case(
        "missing last newline, line added",
        "*** Update File: a\n@@\n 2\n+3",
        {"a": "1\r\n2"},
        {"a": "1\r\n2\r\n3"},
        "M a (+1 -0)",
    ),
    case(
        "missing last newline, last line removed",
        "*** Update File: a\n@@\n 1\n-2",
        {"a": "1\n2"},
        {"a": "1"},
        "M a (+0 -1)",
    ),
    case(
        "undecodable bytes",
        "*** Update File: a\n-1\n+2",
        {"a": b"caf\xe9\n1\n"},
        {"a": b"caf\xe9\n2\n"},
        "M a (+1 -1)",
    ),
    case(
        "other line separators of Unicode are text",
        "*** Update File: a\n-x\u2028y\x0b\x0c\x85z\n+2",
        {"a": "x\u2028y\x0b\x0c\x85z\n"},
        {"a": "2\n"},
        "M a (+1 -1)",
    ),
    case(
        "a link inside is followed",
        "*** Update File: a\n-1\n+2",
        {"b": "1\n", "a": link("b")},
        {"b": "2\n"},
        "M a (+1 -1)",
    ),
    # Moving
    case(
        "move and change",
        "*** Update File: a\n*** Move to: d/b\n@@\n-1\n+2",
        {"a": "1\n"},
        {"a": None, "d/b": "2\n"},
        "R a -> d/b (+1 -1)",
    ),
    case(
        "move alone",
        "*** Update File: a\n*** Move to: b",
        {"a": b"\0"},
        {"a": None, "b": b"\0"},
        "R a -> b (+0 -0)",
    ),
    case(
        "move onto a file",
        "*** Update File: a\n*** Move to: b\n-1\n+2",
        {"a": "1\n", "b": ""},
        {},
        "already_exists: b exists",
    ),
    case(
        "move onto itself is an update",
        "*** Update File: a\n*** Move to: ./a\n-1\n+2",
        {"a": "1\n"},
        {"a": "2\n"},
        "M a (+1 -1)",
    ),
    case(
        "swap two files",
        "*** Update File: a\n*** Move to: t\n*** Update File: b\n*** Move to: a\n"
        "*** Update File: t\n*** Move to: b",
        {"a": "1\n", "b": "2\n"},
        {"a": "2\n", "b": "1\n"},
        "R a -> t (+0 -0)\nR b -> a (+0 -0)\nR t -> b (+0 -0)",
    ),
    # Several sections, one file
    case(
        "two sections for one file",
        "*** Update File: a\n-1\n+2\n*** Update File: a\n-2\n+3",
        {"a": "1\n"},
        {"a": "3\n"},
        "M a (+1 -1)\nM a (+1 -1)",
    ),
    case(
        "delete and add replaces",
        "*** Delete File: a\n*** Add File: a\n+2",
        {"a": "1\n"},
        {"a": "2\n"},
        "D a (-1)\nA a (+1)",
    ),
    case(
        "update after delete",
        "*** Delete File: a\n*** Update File: a\n-1\n+2",
        {"a": "1\n"},
        {},
        "not_found: a does not exist",
    ),
    case(
        "a late failure changes nothing",
        "*** Add File: n\n+1\n*** Delete File: b\n*** Update File: a\n-9\n+2",
        {"a": "1\n", "b": ""},
        {},
        "not_found: change 1 of a",
    ),
    case(
        "a late refusal of the kernel is undone",
        "*** Add File: n\n+1\n*** Update File: a\n-1\n+2\n*** Add File: out/x\n+1",
        {"a": "1\n", "out": link("/etc")},
        {},
        "permission_denied: out/x may not be accessed; work with other files; no file was changed",
    ),
    case(
        "one file under two names",
        "*** Update File: a\n-1\n+2\n*** Update File: l\n-1\n+3",
        {"a": "1\n", "l": link("a")},
        {},
        "stale_file: l changed while the patch was applied; view it again; no file was changed",
    ),
    # Paths
    case("up and back inside", "*** Add File: x/../b\n+1", {}, {"b": "1\n"}, "A x/../b (+1)"),
    case(
        "up and out", "*** Add File: ../outside/b\n+1", {}, {}, "outside_workspace: ../outside/b is not below"
    ),
    case("absolute outside", "*** Delete File: /etc/hosts", {}, {}, "outside_workspace: /etc/hosts is not"),
    case("a neighbour with the same start", "*** Add File: ../workspace2\n+1", {}, {}, "outside_workspace: "),
    case("the workspace itself", "*** Delete File: .", {}, {}, "outside_workspace: . is not below"),
    case("move out", "*** Update File: a\n*** Move to: ../a", {"a": "1\n"}, {}, "outside_workspace: ../a"),
    case("a last slash", "*** Add File: a/\n+1", {}, {}, "not_a_file: a/ is the path of a folder"),
    case(
        "a NUL in a path", "*** Add File: a\0b\n+1", {}, {}, "invalid_arguments: path is empty or holds a NUL"
    ),
    # The envelope
    Case("no envelope", "+x", {}, {}, "invalid_patch: line 1: a patch starts with '*** Begin Patch'"),
    Case("empty", "", {}, {}, "invalid_patch: line 1: a patch starts with"),
    Case("a unified diff", "--- a/x\n+++ b/x\n", {}, {}, "invalid_patch: line 1: a patch starts with"),
    Case(
        "cut off",
        "*** Begin Patch\n*** Delete File: a\n",
        {"a": ""},
        {},
        "invalid_patch: line 3: '*** End Patch' is missing; send the whole patch again",
    ),
    case("no sections", "", {}, {}, "invalid_patch: line 3: the patch changes no file"),
    case(
        "an unknown marker",
        "*** Rename File: a",
        {},
        {},
        "invalid_patch: line 2: expected '*** Add File: PATH'",
    ),
    case("no path", "*** Delete File: ", {}, {}, "invalid_patch: line 2: '*** Delete File:' needs a path"),
    case(
        "an update without changes",
        "*** Update File: a",
        {},
        {},
        "invalid_patch: line 2: the update of a has no",
    ),
    case(
        "a new file without +",
        "*** Add File: a\n+1\n2",
        {},
        {},
        "invalid_patch: line 4: each line of a new file",
    ),
    case(
        "a line without a sign",
        "*** Update File: a\n@@\n-1\nx",
        {},
        {},
        "invalid_patch: line 5: each line of a",
    ),
    case(
        "context alone",
        "*** Update File: a\n@@\n 1",
        {},
        {},
        "invalid_patch: line 3: a change needs at least",
    ),
    case(
        "a misplaced marker",
        "*** Update File: a\n@@\n-1\n*** Move to: b",
        {},
        {},
        "invalid_patch: line 5: '*** Move to: b' is not a line of the format here",
    ),
    case(
        "lines after the end of the file",
        "*** Update File: a\n-1\n*** End of File\n-2",
        {},
        {},
        "invalid_patch: line 5: a further change in the file begins with @@",
    ),
    Case(
        "text after the end",
        "*** Begin Patch\n*** Add File: a\n+1\n*** End Patch\n\nDone!",
        {},
        {},
        "invalid_patch: line 6: text follows '*** End Patch'",
    ),
    case(
        "a lone surrogate",
        "*** Add File: a\n+\udcff",
        {},
        {},
        "invalid_arguments: patch holds a lone surrogate",
    ),
    Case(
        "no last newline, blank lines around",
        "\n\n*** Begin Patch\n*** Add File: a\n+1\n*** End Patch",
        {},
        {"a": "1\n"},
        "A a (+1)",
    ),
    Case(
        "CRLF in the patch",
        "*** Begin Patch\r\n*** Update File: a\r\n@@\r\n 1\r\n\r\n-2\r\n+3\r\n*** Add File: b\r\n+1\r\n"
        "*** End Patch\r\n",
        {"a": "1\n\n2\n"},
        {"a": "1\n\n3\n", "b": "1\n"},
        "M a (+1 -1)\nA b (+1)",
    ),
    Case(
        "CRLF in the changed lines alone",
        "*** Begin Patch\n*** Update File: a\n 1\r\n\r\n-2\r\n+3\r\n*** Add File: b\n+1\r\n*** End Patch\n",
        {"a": "1\r\n\r\n2\r\n"},
        {"a": "1\r\n\r\n3\r\n", "b": "1\r\n"},
        "M a (+1 -1)\nA b (+1)",
    ),
    Case(
        "a heredoc with a command",
        "apply_patch <<'EOF'\n*** Begin Patch\n*** Add File: a\n+1\n*** End Patch\nEOF\n",
        {},
        {"a": "1\n"},
        "A a (+1)",
    ),
    Case(
        "a bare heredoc, its errors counted from the text's first line",
        '\n<<"PATCH"\n*** Begin Patch\n*** Oops\n*** End Patch\nPATCH',
        {},
        {},
        "invalid_patch: line 4: expected",
    ),
]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealDesk]:
    async with open_desk(tmp_path_factory.mktemp("patch")) as desk:
        yield desk


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_patch(desk: RealDesk, case: Case) -> None:
    desk.fill(case.before)
    expected = desk.contents()
    for name, content in case.after.items():
        if content is None:
            del expected[name]
        else:
            expected[name] = content.encode() if isinstance(content, str) else content
    result = await desk.call(ApplyPatchTool(), patch=case.patch)
    assert desk.contents() == expected
    assert result.text.startswith(case.text)
    if case.after:
        assert (result.status, result.code) == (Status.OK, None)
        assert result.text == case.text or case.text.endswith(": ")
    else:
        code = case.text.partition(":")[0]
        denied = code in {"outside_workspace", "permission_denied"}
        assert (result.status, result.code) == (Status.DENIED if denied else Status.ERROR, code)


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 70


async def test_modes_stay_also_when_a_file_moves(desk: RealDesk) -> None:
    desk.fill({"a.sh": with_mode(0o751, "1\n"), "b.sh": with_mode(0o440, "1\n")})
    body = "*** Update File: a.sh\n-1\n+2\n*** Update File: b.sh\n*** Move to: c.sh\n-1\n+2"
    result = await desk.call(ApplyPatchTool(), patch=f"*** Begin Patch\n{body}\n*** End Patch")
    assert result.status is Status.OK
    modes = {name: stat.S_IMODE(os.stat(desk.workspace / name).st_mode) for name in ("a.sh", "c.sh")}
    assert modes == {"a.sh": 0o751, "c.sh": 0o440}


async def test_what_is_put_back_has_its_mode_and_new_files_go(desk: RealDesk) -> None:
    desk.fill({"a.sh": with_mode(0o751, "1\n"), "out": link("/etc")})
    body = "*** Update File: a.sh\n-1\n+2\n*** Add File: new\n+1\n*** Add File: out/x\n+1"
    result = await desk.call(ApplyPatchTool(), patch=f"*** Begin Patch\n{body}\n*** End Patch")
    assert result.code == "permission_denied"
    assert stat.S_IMODE(os.stat(desk.workspace / "a.sh").st_mode) == 0o751
    assert not (desk.workspace / "new").exists()


async def test_a_hard_link_keeps_the_old_text(desk: RealDesk) -> None:
    """A file is replaced, not written into: the other name of it is another file from then on."""
    desk.fill({"a": "1\n", "b": hard_link("a")})
    await desk.call(ApplyPatchTool(), patch="*** Begin Patch\n*** Update File: a\n-1\n+2\n*** End Patch")
    assert desk.contents() == {"a": b"2\n", "b": b"1\n"}


async def test_absolute_paths_inside(desk: RealDesk) -> None:
    desk.fill({})
    path = desk.workspace / "a"
    result = await desk.call(
        ApplyPatchTool(), patch=f"*** Begin Patch\n*** Add File: {path}\n+1\n*** End Patch"
    )
    assert result.text == f"A {path} (+1)"
    assert path.read_text() == "1\n"


async def test_a_cancelled_call_ends_with_all_or_nothing(desk: RealDesk) -> None:
    names = [f"f{number}" for number in range(20)]
    body = "\n".join(f"*** Update File: {name}\n-1\n+2" for name in names)
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02):
        desk.fill(dict.fromkeys(names, "1\n"))
        with anyio.move_on_after(delay):
            await desk.call(ApplyPatchTool(), patch=f"*** Begin Patch\n{body}\n*** End Patch")
        assert len(set(desk.contents().values())) == 1


async def test_long_results_are_cut(desk: RealDesk) -> None:
    desk.fill({})
    body = "\n".join(f"*** Add File: f{number}\n+1" for number in range(100))
    result = await desk.call(ApplyPatchTool(), 300, patch=f"*** Begin Patch\n{body}\n*** End Patch")
    assert count_words(result.text) <= 300
    shown = result.text.count("\nA ") + 1
    assert result.text.endswith(f"\n[... {100 - shown} lines not shown; all was applied]")
    assert len(desk.contents()) == 100


async def test_works_on_files_in_memory(tmp_path: Path) -> None:
    sandbox = MemorySandbox({"/workspace/a": b"1\n", "/workspace/b": b"2\n"})
    body = "*** Update File: a\n*** Move to: c\n-1\n+3\n*** Delete File: b"
    context = ToolContext(sandbox, count_words, 4000)
    result = await ApplyPatchTool()(context, {"patch": f"*** Begin Patch\n{body}\n*** End Patch"})
    assert result.text == "R a -> c (+1 -1)\nD b (-1)"
    assert sandbox.files == {"/workspace/c": b"3\n"}
