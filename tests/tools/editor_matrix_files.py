"""What the editor does with paths, links, modes, sizes and changes by others: rows as for texts."""

import unicodedata

from tests.tools.editor_matrix import Row, create, edited, insert, refused, replace, shown, view
from tests.tools.real_desk import fifo, folder, hard_link, link, with_mode

NFC = unicodedata.normalize("NFC", "é")
NFD = unicodedata.normalize("NFD", "é")
X = replace("a", "x", "y")


def named(name: str, path: str) -> Row:
    """A row about a file of an unusual name, which is created."""
    return Row(f"a name: {name}", {}, create(path, "x"), {path: "x"}, text=f"Created {path}.")


def found(name: str, path: str) -> Row:
    """A row about a way to write the path of `d/a`."""
    return Row(f"a path: {name}", {"d/a": "x\n"}, replace(path, "x", "y"), {"d/a": "y\n"})


PATHS = [
    found("relative", "d/a"),
    found("with a dot", "./d/./a"),
    found("with two slashes", "d//a"),
    found("up and down", "d/../d/a"),
    named("blanks", "a  b .txt "),
    named("a newline", "a\nb"),
    named("a tab and a return", "a\tb\r"),
    named("an option", "--help"),
    named("a short option", "-rf"),
    named("a shell's characters", "$(x) `y` ;'\"*?~"),
    named("a tilde", "~"),
    named("a percent sign", "%s%n"),
    named("a hidden file", ".x"),
    named("emoji", "\U0001f600"),
    named("right to left", "\u202etxt.a"),
    named("new folders", "p/q/r/s"),
    named("a backslash", "p\\q"),
    Row("composed name, decomposed file", {NFD: "x\n"}, view(NFC), code="not_found"),
    Row("both names", {NFD: "x\n", NFC: "x\n"}, replace(NFC, "x", "y"), {NFC: "y\n"}),
    Row("a name too long", {}, create("n" * 300, "x"), code="io_error"),
    Row("no name", {}, view(""), code="invalid_arguments"),
    Row("a NUL in a name", {}, create("a\0b", "x"), code="invalid_arguments"),
    Row(
        "a missing file",
        {},
        replace("a", "x", "y"),
        code="not_found",
        text="not_found: a does not exist; view",
    ),
    Row("insert into a missing file", {}, insert("a", 0, "x"), code="not_found"),
    Row("through a file", {"a": "x\n"}, view("a/b"), code="not_found"),
    Row("create below a file", {"a": "x\n"}, create("a/b", "x"), code="not_found"),
    Row("a slash behind a file", {"a": "x\n"}, replace("a/", "x", "y"), code="not_found"),
    Row("a slash behind a new file", {}, create("b/", "x"), code="not_a_file"),
    Row("create the workspace", {}, create(".", "x"), code="not_a_file"),
    Row("create above", {}, create("../" * 20 + "usr/dsv4agent-x", "x"), code="outside_workspace"),
    Row("create absolute outside", {}, create("/etc/dsv4agent-x", "x"), code="outside_workspace"),
    Row("edit outside", {}, insert("/etc/hosts", 0, "x"), code="outside_workspace"),
    Row(
        "up behind a link is the kernel's",
        {"d/e/k": "", "d/a": "x\n", "l": link("d/e")},
        replace("l/../a", "x", "y"),
        {"d/a": "y\n"},
    ),
]

KINDS = [
    Row("a folder", {"d/b": "", "d/.h": "", "d/e/f/g": ""}, view("d"), text="b\ne/\ne/f/"),
    Row("a folder with a slash", {"d/b": ""}, view("d/"), text="b"),
    Row("an empty folder", {"d": folder}, view("d"), text="(empty directory)"),
    Row("a folder has no lines", {"d": folder}, view("d", 1, 2), code="invalid_arguments"),
    Row(
        "names in a folder stay in a line", {"d/a\nb": "", "d/\x1b[0m": ""}, view("d"), text="\\x1b[0m\na\\nb"
    ),
    Row("links and pipes in a folder", {"d/l": link("/"), "d/p": fifo}, view("d"), text="l\np"),
    Row("edit a folder", {"d": folder}, replace("d", "x", "y"), code="not_a_file"),
    Row("insert into a folder", {"d": folder}, insert("d", 0, "x"), code="not_a_file"),
    Row("create over a folder", {"d": folder}, create("d", "x"), code="not_a_file"),
    Row("view a pipe", {"p": fifo}, view("p"), code="not_a_file"),
    Row("edit a pipe", {"p": fifo}, replace("p", "x", "y"), code="not_a_file"),
    Row("create over a pipe", {"p": fifo}, create("p", "x"), code="not_a_file"),
    Row("view a device", {}, view("/dev/zero"), code="not_a_file"),
    Row("create over a device", {}, create("/dev/null", "x"), code="not_a_file"),
    Row("a link", {"b": "x\n", "a": link("b")}, X, {"b": "y\n"}),
    Row("a link to a link", {"c": "x\n", "b": link("c"), "a": link("b")}, X, {"c": "y\n"}),
    Row("a link up and down", {"b": "x\n", "a": link("../workspace/b")}, X, {"b": "y\n"}),
    Row("a link to a folder", {"d/a": "x\n", "l": link("d")}, replace("l/a", "x", "y"), {"d/a": "y\n"}),
    Row("view a link to a folder", {"d/a": "", "l": link("d")}, view("l"), text="a"),
    Row("create through a dangling link", {"a": link("b")}, create("a", "x"), {"b": "x"}),
    Row("view a dangling link", {"a": link("b")}, view("a"), code="not_found"),
    Row("a link to itself", {"a": link("a")}, view("a"), code="not_found"),
    Row("create over a link to itself", {"a": link("a")}, create("a", "x"), code="not_found"),
    Row("links in a ring", {"a": link("b"), "b": link("a")}, X, code="not_found"),
    Row(
        "edit through a link that leads out",
        {"a": link("/etc/hosts")},
        insert("a", 0, "x"),
        code="permission_denied",
    ),
    Row(
        "create through a link that leads out",
        {"l": link("/etc")},
        create("l/b", "x"),
        code="permission_denied",
    ),
    Row(
        "create through a dangling link out",
        {"a": link("/etc/dsv4agent-x")},
        create("a", "x"),
        code="permission_denied",
    ),
    Row("a link to a device", {"a": link("/dev/null")}, insert("a", 0, "x"), code="not_a_file"),
    Row("a hard link keeps the old text", {"a": "x\n", "b": hard_link("a")}, X, {"a": "y\n"}),
    Row("a read-only file", {"a": with_mode(0o444, "x\n")}, X, {"a": "y\n"}),
    Row("an executable file", {"a": with_mode(0o755, "x\n")}, X, {"a": "y\n"}),
]

_VIEW = view("a")
_OTHER = "echo z > a"
CHANGES = [
    Row(
        "create over a file not seen",
        {"a": "x\n"},
        create("a", "y"),
        code="stale_file",
        text="stale_file: a exists and was not viewed; view it",
    ),
    Row(
        "create after a view", {"a": "x\n"}, create("a", "y"), {"a": "y"}, text="Overwrote a.", first=(_VIEW,)
    ),
    Row(
        "create after a view of a part",
        {"a": "x\nz\n"},
        create("a", "y"),
        {"a": "y"},
        first=(view("a", 1, 1),),
    ),
    Row("create after an edit", {"a": "x\n"}, create("a", "z"), {"a": "z"}, first=(X,)),
    Row("create after create", {}, create("a", "z"), {"a": "z"}, first=(create("a", "x"),)),
    Row(
        "create after a failed edit",
        {"a": "x\n"},
        create("a", "z"),
        code="stale_file",
        first=(replace("a", "q", "r"),),
    ),
    Row(
        "create after a change by another",
        {"a": "x\n"},
        create("a", "y"),
        {"a": "z\n"},
        "stale_file",
        "stale_file: a changed since it was last seen; view it",
        (_VIEW, _OTHER),
    ),
    Row(
        "create after a failed edit of a changed file",
        {"a": "x\n"},
        create("a", "y"),
        {"a": "z\n"},
        "stale_file",
        first=(_VIEW, _OTHER, replace("a", "q", "r")),
    ),
    Row(
        "create after a change and a view",
        {"a": "x\n"},
        create("a", "y"),
        {"a": "y"},
        first=(_VIEW, _OTHER, _VIEW),
    ),
    Row("create after a touch", {"a": "x\n"}, create("a", "y"), {"a": "y"}, first=(_VIEW, "touch a")),
    Row(
        "create after a change and back",
        {"a": "x\n"},
        create("a", "y"),
        {"a": "y"},
        first=(_VIEW, _OTHER, "echo x > a"),
    ),
    Row(
        "create after removal",
        {"a": "x\n"},
        create("a", "y"),
        {"a": "y"},
        text="Created a.",
        first=(_VIEW, "rm a"),
    ),
    Row(
        "create where another made a file", {}, create("a", "y"), {"a": "z\n"}, "stale_file", first=(_OTHER,)
    ),
    Row(
        "seen by another way to write the path",
        {"d/a": "x\n"},
        create("./d//a", "y"),
        {"d/a": "y"},
        first=(view("d/a"),),
    ),
    Row("str_replace needs no view", {"a": "x\n"}, X, {"a": "y\n"}),
    Row(
        "str_replace takes the file as it is now",
        {"a": "x\n"},
        replace("a", "z", "y"),
        {"a": "y\n"},
        first=(_VIEW, _OTHER),
    ),
    Row(
        "str_replace of a text that is gone",
        {"a": "x\n"},
        X,
        {"a": "z\n"},
        "not_found",
        first=(_VIEW, _OTHER),
    ),
    Row("insert needs no view", {"a": "x\n"}, insert("a", 1, "y"), {"a": "x\ny\n"}),
    Row(
        "insert after a change by another",
        {"a": "x\n"},
        insert("a", 1, "y"),
        {"a": "z\n"},
        "stale_file",
        "stale_file: a changed since it was last seen; view it for its line numbers",
        (_VIEW, _OTHER),
    ),
    Row(
        "insert after a change and a view",
        {"a": "x\n"},
        insert("a", 1, "y"),
        {"a": "z\ny\n"},
        first=(_VIEW, _OTHER, _VIEW),
    ),
    Row("insert after an own edit", {"a": "x\n"}, insert("a", 1, "z"), {"a": "y\nz\n"}, first=(_VIEW, X)),
    Row(
        "a file that became a folder",
        {"a": "x\n"},
        X,
        {"a": None},
        "not_a_file",
        first=(_VIEW, "rm a; mkdir a"),
    ),
    Row(
        "a file that became a link",
        {"a": "x\n", "b": "x\n"},
        X,
        {"a": b"link to b", "b": "y\n"},
        first=(_VIEW, "ln -sf b a"),
    ),
    Row(
        "a file that became binary",
        {"a": "x\n"},
        X,
        {"a": b"x\0"},
        "binary_file",
        first=(_VIEW, "printf 'x\\0' > a"),
    ),
    Row("create binary and text", {"a": b"\0"}, create("a", "y"), {"a": "y"}, first=("rm a",)),
]

_MANY = "x\n" * (3 << 20)
_LONG = "k" * (5 << 20)
SIZES = [
    refused("10 MB", b"x" * 10_000_000, view("a"), "too_large", "too_large: a has 10000000 bytes; use bash"),
    refused("10 MB, edit", b"x" * 10_000_000, X, "too_large"),
    refused("10 MB, overwrite", b"x" * 10_000_000, create("a", "x"), "too_large"),
    edited("8 MiB", "x" + "k" * ((8 << 20) - 1), X, "y" + "k" * ((8 << 20) - 1)),
    refused("a byte more", "x" + "k" * (8 << 20), X, "too_large"),
    refused(
        "millions of matches",
        _MANY,
        X,
        "not_unique",
        "not_unique: old_str occurs at least 100 times in a, at lines 1, 2, 3, 4, ",
    ),
    refused("millions of lines without a match", _MANY, replace("a", "y\n", "z"), "not_found"),
    refused(
        "millions of nearly matching places", "x" * (6 << 20), replace("a", "x" * 1000, "y"), "not_unique"
    ),
    refused("a long run of blanks", " " * (4 << 20), replace("a", "\ny", "z"), "not_found"),
    refused("a long run of blanks and lines", " \n" * (1 << 20), replace("a", "\n\n\ny", "z"), "not_found"),
    refused("a long old_str", _LONG[: 1 << 20] + "\n", replace("a", "kj" * 100_000, "x"), "not_found"),
    edited("a very long line", f"{_LONG}x{_LONG[: 1 << 20]}\n", X, f"{_LONG}y{_LONG[: 1 << 20]}\n"),
    edited("an insert of a long line", "x\n", insert("a", 1, _LONG), f"x\n{_LONG}\n"),
    edited("an edit far down", _MANY + "end\n", replace("a", "end", "fin"), _MANY + "fin\n"),
    shown("a view far down", _MANY + "end\n", "3145729\tend", 3145729, -1),
]

FILE_ROWS = [*PATHS, *KINDS, *CHANGES, *SIZES]
