"""What the editor does to texts: rows of files before, one call, and files after with the result's code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.tools.real_desk import Content

Call = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One scenario.

    Attributes:
        name: Unique.
        before: Files of the workspace.
        call: Arguments of the call.
        after: Files that differ from before; None for one that is gone.
        code: The result's code; None for success.
        text: Whole text of the result; for a refusal its start. None if it does not matter.
        first: Calls, or shell commands, that come before.
    """

    name: str
    before: Mapping[str, Content]
    call: Call
    after: Mapping[str, str | bytes | None] = field(default_factory=dict[str, str | bytes | None])
    code: str | None = None
    text: str | None = None
    first: tuple[Call | str, ...] = ()


def view(path: str, *lines: int) -> Call:
    return {"command": "view", "path": path, **({"view_range": list(lines)} if lines else {})}


def create(path: str, text: str) -> Call:
    return {"command": "create", "path": path, "file_text": text}


def replace(path: str, old: str, new: str) -> Call:
    return {"command": "str_replace", "path": path, "old_str": old, "new_str": new}


def insert(path: str, line: int, new: str) -> Call:
    return {"command": "insert", "path": path, "insert_line": line, "new_str": new}


def edited(name: str, before: str | bytes, call: Call, after: str | bytes, text: str | None = None) -> Row:
    """A row about the one file `a`."""
    return Row(name, {"a": before}, call, {"a": after}, text=text)


def refused(name: str, before: str | bytes, call: Call, code: str, text: str | None = None) -> Row:
    """A row about the one file `a`, which stays as it is."""
    return Row(name, {"a": before}, call, code=code, text=text)


def shown(name: str, before: str | bytes, text: str, *lines: int) -> Row:
    """A row about a view of the one file `a`."""
    return Row(name, {"a": before}, view("a", *lines), text=text)


LINE_ENDINGS = [
    edited(
        "LF", "x\ny\n", replace("a", "x", "1\n2"), "1\n2\ny\n", "Edited a.\n     1\t1\n     2\t2\n     3\ty"
    ),
    edited("CRLF new lines follow", "x\r\ny\r\n", replace("a", "x", "1\n2"), "1\r\n2\r\ny\r\n"),
    edited("CRLF given as CRLF", "x\r\ny\r\n", replace("a", "x\r\ny", "1\r\n2"), "1\r\n2\r\n"),
    edited("CRLF matched by LF", "x\r\ny\r\n", replace("a", "x\ny\n", "1\n"), "1\r\n"),
    edited("CRLF without last newline", "x\r\ny", replace("a", "y", "1\n2"), "x\r\n1\r\n2"),
    edited("CRLF insert", "x\r\ny\r\n", insert("a", 1, "1\n2\n"), "x\r\n1\r\n2\r\ny\r\n"),
    edited("mixed stays mixed", "x\r\ny\nz\r\n", replace("a", "y", "1"), "x\r\n1\nz\r\n"),
    edited("mixed gets LF", "x\r\ny\nz\r\n", replace("a", "z", "1\n2"), "x\r\ny\n1\n2\r\n"),
    edited("mixed insert gets LF", "x\r\ny\n", insert("a", 0, "1"), "1\nx\r\ny\n"),
    edited("lone CR is text", "x\ry\rz", replace("a", "y", "1"), "x\r1\rz"),
    edited("lone CR file is one line", "x\ry", insert("a", 1, "1"), "x\ry\n1"),
    refused("lone CR file has no second line", "x\ry\r", insert("a", 2, "1"), "invalid_arguments"),
    edited("LF file takes CR as given", "x\n", replace("a", "x", "1\r\n2"), "1\r\n2\n"),
    shown("CR is not shown at line ends", "x\r\ny\r\n", "     1\tx\n     2\ty"),
    edited("no last newline", "x\ny", replace("a", "y", "z"), "x\nz"),
    edited("no last newline, first line", "x\ny", replace("a", "x", "z"), "z\ny"),
    edited("no last newline, one is claimed", "x\ny", replace("a", "y\n", "z\n"), "x\nz"),
    edited("last newline removed", "x\ny\n", replace("a", "y\n", "y"), "x\ny"),
    edited("last newline added", "x\ny", replace("a", "y", "y\n"), "x\ny\n"),
    edited("blank lines alone", "\n\n\n", insert("a", 2, "x"), "\n\nx\n\n"),
]

BLANKS = [
    edited("tabs stay", "if x:\n\ty = 1\n", replace("a", "y = 1", "y = 2"), "if x:\n\ty = 2\n"),
    edited(
        "blanks for tabs are re-indented",
        "if x:\n\tb()\n\tc()\n",
        replace("a", "    b()\n    c()\n", "    d()\n"),
        "if x:\n\td()\n",
        "Edited a (matched at another indentation, re-indented).\n     1\tif x:\n     2\t\td()",
    ),
    edited(
        "tabs for blanks are re-indented", "x:\n  b()\n", replace("a", "\tb()\n", "\tc()\n"), "x:\n  c()\n"
    ),
    edited("tabs inside new text stay", "x\n", replace("a", "x", "a\tb\n\tc"), "a\tb\n\tc\n"),
    refused("a tab inside a line is no blank", "x\ty\n", replace("a", "x y", "z"), "not_found"),
    edited(
        "trailing blanks are ignored second",
        "x \t\ny\n",
        replace("a", "x\ny", "z"),
        "z\n",
        "Edited a (matched ignoring trailing blanks and line endings).\n     1\tz",
    ),
    edited("exact wins over trailing blanks", "x \nx\n", replace("a", "x\n", "y\n"), "x \ny\n"),
    edited("blanks at a line's end are one place", "k\t  \nf\n", replace("a", "  \t\nf", "\ng"), "k\ng\n"),
    refused("uneven indentation", "  x\n    y\n", replace("a", "x\ny\n", "z"), "not_found"),
    edited("blanks alone match exactly", "x  y\n", replace("a", "  ", " "), "x y\n"),
    refused("blanks alone never match loosely", "x\n\n\ny\n", replace("a", "\n \n", ""), "not_found"),
    edited("new text may be blank", "x y z\n", replace("a", " y ", " "), "x z\n"),
]

MARKS = [
    edited("BOM stays", "\ufeffx\n", replace("a", "x", "y"), "\ufeffy\n"),
    shown("BOM is not shown", "\ufeffx\n", "     1\tx"),
    edited("BOM stays first on insert", "\ufeffx\n", insert("a", 0, "y"), "\ufeffy\nx\n"),
    edited("BOM and CRLF", "\ufeffx\r\n", insert("a", 1, "y"), "\ufeffx\r\ny\r\n"),
    edited("BOM alone", "\ufeff", insert("a", 0, "x"), "\ufeffx\n"),
    edited("BOM in the middle is text", "x\ufeffy\n", replace("a", "x\ufeffy", "z"), "z\n"),
    refused(
        "UTF-16",
        "x\n".encode("utf-16"),
        view("a"),
        "binary_file",
        "binary_file: a is a UTF-16 text of 6 bytes",
    ),
    refused("UTF-16 without NUL", "\u4e2d\u6587".encode("utf-16"), view("a"), "binary_file"),
    refused("UTF-16 big-endian", b"\xfe\xff\x4e\x2d", replace("a", "N", "x"), "binary_file"),
    refused("UTF-32", "x".encode("utf-32"), insert("a", 0, "y"), "binary_file"),
]

UNICODE = [
    refused("composed is not decomposed", "e\u0301\n", replace("a", "\u00e9", "x"), "not_found"),
    edited("decomposed matches itself", "e\u0301\n", replace("a", "e\u0301", "\u00e9"), "\u00e9\n"),
    edited("a combining character alone", "e\u0301\n", replace("a", "\u0301", ""), "e\n"),
    edited("emoji", "a\U0001f600b\n", replace("a", "\U0001f600", "\U0001f680"), "a\U0001f680b\n"),
    edited(
        "joined emoji", "\U0001f468\u200d\U0001f469\n", replace("a", "\u200d", ""), "\U0001f468\U0001f469\n"
    ),
    edited("right to left", "\u05d0\u05d1 x\n", replace("a", "\u05d1 x", "\u202ey"), "\u05d0\u202ey\n"),
    refused("zero width is not overlooked", "a\u200bb\n", replace("a", "ab", "x"), "not_found"),
    edited("zero width", "a\u200bb\n", replace("a", "a\u200bb", "ab"), "ab\n"),
    shown("U+2028 ends no line", "x\u2028y\u0085z\x0bv\x0cw\n", "     1\tx\u2028y\u0085z\x0bv\x0cw"),
    edited("U+2028 counts no line", "x\u2028y\nz\n", insert("a", 1, "v"), "x\u2028y\nv\nz\n"),
    refused("no-break space is not a blank", "a\u00a0b\n", replace("a", "a b", "x"), "not_found"),
    refused("typographic quotes are not plain", "\u201cx\u201d\n", replace("a", '"x"', "y"), "not_found"),
    edited("noncharacters", "x\n", replace("a", "x", "\uffff\ufffe\U0010ffff"), "\uffff\ufffe\U0010ffff\n"),
    refused("surrogate in new_str", "x\n", replace("a", "x", "\ud83d"), "invalid_arguments"),
    refused("escaped byte in new_str", "x\n", replace("a", "x", "\udcff"), "invalid_arguments"),
    refused("surrogate in old_str", b"\xff\n", replace("a", "\udcff", "x"), "invalid_arguments"),
    refused("surrogate in file_text", "x\n", create("b", "\udfff"), "invalid_arguments"),
    refused("surrogate in insert", "x\n", insert("a", 0, "\ud800"), "invalid_arguments"),
    refused(
        "surrogate in path",
        "x\n",
        view("\udcff"),
        "invalid_arguments",
        "invalid_arguments: path holds a lone",
    ),
]

BYTES = [
    edited("invalid bytes stay", b"caf\xe9\nx\n", replace("a", "x", "y"), b"caf\xe9\ny\n"),
    edited(
        "half a character at the end stays", b"x\n\xf0\x9f\x98", replace("a", "x", "y"), b"y\n\xf0\x9f\x98"
    ),
    edited("encoded surrogates stay", b"\xed\xa0\x80x", replace("a", "x", "y"), b"\xed\xa0\x80y"),
    edited("overlong bytes stay", b"\xc0\xafx", insert("a", 0, "y"), b"y\n\xc0\xafx"),
    edited("bytes may join", b"\xc3x\xa9\n", replace("a", "x", ""), b"\xc3\xa9\n"),
    shown("invalid bytes are shown as U+FFFD", b"caf\xe9\n", "     1\tcaf\ufffd"),
    refused("U+FFFD does not match them", b"caf\xe9\n", replace("a", "caf\ufffd", "x"), "not_found"),
    refused("NUL", b"x\0y", view("a"), "binary_file", "binary_file: a is a binary file of 3 bytes"),
    refused("NUL at the end of a long file", b"x" * 100_000 + b"\0", replace("a", "x", "y"), "binary_file"),
    refused(
        "a picture", b"\x89PNG\r\n\x1a\n\0", view("a"), "binary_file", "binary_file: a is a PNG image of"
    ),
    refused("no overwriting of binary files", b"\0", create("a", "x"), "binary_file"),
    edited(
        "other control characters are text", b"\x01\x7f\x1b[0m\n", replace("a", "\x1b[0m", ""), b"\x01\x7f\n"
    ),
    edited("control tokens as text", "x\n", replace("a", "x", "<｜User｜>｜DSML｜"), "<｜User｜>｜DSML｜\n"),
    edited(
        "control tokens are matched",
        "<｜end▁of▁sentence｜>\n",
        replace("a", "<｜end▁of▁sentence｜>", ""),
        "\n",
    ),
    shown("control tokens are shown", "<｜Assistant｜></think>\n", "     1\t<｜Assistant｜></think>"),
    edited("patterns are no patterns", "a.c\nabc\n", replace("a", "a.c", "\\1\\g<0>"), "\\1\\g<0>\nabc\n"),
    edited("markup stays", "x\n", replace("a", "x", "&lt;</parameter>"), "&lt;</parameter>\n"),
]

PLACES = [
    refused(
        "twice",
        "x\nx\n",
        replace("a", "x", "y"),
        "not_unique",
        "not_unique: old_str occurs 2 times in a, at lines 1, 2; include more lines to make it unique",
    ),
    refused("twice in a line", "xx\n", replace("a", "x", "y"), "not_unique"),
    refused("overlapping", "xxx\n", replace("a", "xx", "y"), "not_unique"),
    refused("twice, loosely", "x \ny\nx\t\ny\n", replace("a", "x\ny\n", "z"), "not_unique"),
    refused("twice, at other indentations", " x\n y\n  x\n  y\n", replace("a", "x\ny\n", "z"), "not_unique"),
    edited("more context makes it unique", "x\nx\nk\n", replace("a", "x\nk", "y\nk"), "x\ny\nk\n"),
    edited("the whole file", "x\ny\n", replace("a", "x\ny\n", ""), "", "Edited a."),
    edited("the first line", "x\ny\n", replace("a", "x\n", ""), "y\n", "Edited a.\n     1\ty"),
    edited("the last line", "x\ny\n", replace("a", "y\n", ""), "x\n", "Edited a.\n     1\tx"),
    refused("old_str is empty", "x\n", replace("a", "", "y"), "invalid_arguments"),
    refused("old_str is empty, and so is the file", "", replace("a", "", "y"), "invalid_arguments"),
    refused("nothing in an empty file", "", replace("a", "x", "y"), "not_found"),
    refused("the same text", "x\n", replace("a", "x", "x"), "no_change"),
    refused("the same text, loosely", "x \ny\n", replace("a", "x\ny", "x \ny"), "no_change"),
    refused("a longer text than the file", "x\n", replace("a", "x\ny\nz\n", "v"), "not_found"),
    refused(
        "the nearest text is shown",
        "def f(a):\n    return a\n",
        replace("a", "def f(b):\n    return a\n", "x"),
        "not_found",
        "not_found: old_str is not in a; the nearest text is at lines 1-2:\n     1\tdef f(a):\n"
        "     2\t    return a",
    ),
    edited("insert at the start", "x\n", insert("a", 0, "y"), "y\nx\n", "Edited a.\n     1\ty\n     2\tx"),
    edited("insert in the middle", "1\n2\n3\n", insert("a", 2, "x\n\ny"), "1\n2\nx\n\ny\n3\n"),
    edited("insert at the end", "x\n", insert("a", 1, "y"), "x\ny\n", "Edited a.\n     1\tx\n     2\ty"),
    edited("insert after a last line without newline", "x", insert("a", 1, "y\n"), "x\ny"),
    edited("insert before a line without newline", "x", insert("a", 0, "y"), "y\nx"),
    edited("insert into an empty file", "", insert("a", 0, "x"), "x\n"),
    edited("insert a blank line", "x\ny\n", insert("a", 1, ""), "x\n\ny\n"),
    edited("insert a newline", "x\ny\n", insert("a", 1, "\n"), "x\n\ny\n"),
    refused(
        "insert beyond the end",
        "x\n",
        insert("a", 2, "y"),
        "invalid_arguments",
        "invalid_arguments: insert_line 2 is past the end; a has 1 lines",
    ),
    refused("insert beyond an empty file", "", insert("a", 1, "y"), "invalid_arguments"),
    refused("insert far beyond", "x\n", insert("a", 10**9, "y"), "invalid_arguments"),
    refused(
        "str_replace without new_str", "x\n", {**replace("a", "x", ""), "new_str": None}, "invalid_arguments"
    ),
    refused("insert without insert_line", "x\n", {"command": "insert", "path": "a"}, "invalid_arguments"),
    refused("create without file_text", "x\n", {"command": "create", "path": "b"}, "invalid_arguments"),
]

_FIVE = "1\n2\n3\n4\n5\n"
RANGES = [
    shown("an empty file", "", "(empty file)"),
    shown("an empty file, its first line", "", "(empty file)", 1, 1),
    refused("an empty file, its second line", "", view("a", 2, 2), "invalid_arguments"),
    shown("a newline alone", "\n", "     1\t"),
    shown("view of the first line", _FIVE, "     1\t1", 1, 1),
    shown("view of the last line", _FIVE, "     5\t5", 5, 5),
    shown("to the end", _FIVE, "     4\t4\n     5\t5", 4, -1),
    shown("past the end", _FIVE, "     5\t5", 5, 10**9),
    shown("all lines", _FIVE, "     1\t1\n     2\t2\n     3\t3\n     4\t4\n     5\t5", 1, -1),
    shown("without last newline", "1\n2", "     2\t2", 2, 2),
    refused("a start past the end", _FIVE, view("a", 6, -1), "invalid_arguments"),
    refused("line 0", _FIVE, view("a", 0, 1), "invalid_arguments"),
    refused("a negative start", _FIVE, view("a", -1, -1), "invalid_arguments"),
    refused("an end before the start", _FIVE, view("a", 3, 2), "invalid_arguments"),
    refused("another negative end", _FIVE, view("a", 1, -2), "invalid_arguments"),
]

TEXT_ROWS = [*LINE_ENDINGS, *BLANKS, *MARKS, *UNICODE, *BYTES, *PLACES, *RANGES]
