"""Patches that add, delete and update files: files before, and the files after or the code."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.tools.real_desk import Content, fifo, folder, link, with_mode

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


CHANGES = [
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
    case(
        "a blank line in an empty file",
        "*** Update File: a\n@@\n \n+x",
        {"a": ""},
        {},
        "not_found: change 1 of a",
    ),
    case(
        "many lines that nearly match",
        "*** Update File: a\n@@\n" + " x\n" * 5000 + "-y\n+z",
        {"a": "x\n" * 300_000},
        {},
        "not_found: change 1 of a",
    ),
    case(
        "a change far down",
        "*** Update File: a\n@@\n" + " x\n" * 5000 + "-y\n+z",
        {"a": "x\n" * 300_000 + "y\n"},
        {"a": "x\n" * 300_000 + "z\n"},
        "M a (+1 -1)",
    ),
]
