"""How files and folders look to the model: numbered lines, two levels of names, cut to the token budget."""

from __future__ import annotations

import posixpath
import re

from dsv4agent.tools.base import ToolContext
from dsv4agent.tools.output import fits, keep_start

FOLDER_LEVELS = 2
_CLOSED_FOLDERS = frozenset({"__pycache__", "node_modules"})
_UNDECODED = re.compile("[\ud800-\udfff]")
_UNSHOWN = re.compile("[\\x00-\\x1f\\x7f\u2028\u2029\\ud800-\\udfff]")

_MAGIC = (
    (b"\x7fELF", "an ELF binary"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\xff\xfe", "a UTF-16 text"),
    (b"\xfe\xff", "a UTF-16 text"),
)


def decode_text(data: bytes) -> str:
    """Decode a file so that encoding with `surrogateescape` gives the same bytes again."""
    return data.decode("utf-8", "surrogateescape")


def displayed_lines(text: str) -> list[str]:
    r"""Return a file's lines for display: without line endings and BOM, undecodable bytes as U+FFFD.

    Only `\n` ends a line, so that numbers agree with `sed`, `grep -n` and compilers.
    """
    text = text.removeprefix("\ufeff")
    if not text.isascii():
        text = _UNDECODED.sub("\ufffd", text)
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if "\r" in text:
        lines = [line.removesuffix("\r") for line in lines]
    return lines


def displayed_name(name: str) -> str:
    r"""Return a file's name in one line: `\n` and the like as escapes, undecodable bytes as U+FFFD."""
    return _UNSHOWN.sub(lambda match: _visible(match[0]), name)


def numbered(lines: list[str], first: int, last: int) -> list[str]:
    """Return lines `first` to `last` (1-based, inclusive) with their numbers."""
    return [f"{number:6d}\t{lines[number - 1]}" for number in range(first, min(last, len(lines)) + 1)]


def cut_start(ctx: ToolContext, text: str) -> str:
    """Return the text itself if it fits the budget, else its first whole lines that do."""
    reserve = 64  # for the line that says what is missing
    if fits(text, ctx.max_output_tokens - reserve, ctx.count_tokens):
        return text
    return keep_start(text, max(ctx.max_output_tokens - reserve, 1), ctx.count_tokens).removesuffix("\n")


def binary_kind(data: bytes) -> str:
    """Name the kind of a binary file by its first bytes."""
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "a binary file")


async def list_folder(ctx: ToolContext, path: str) -> str:
    """List a folder two levels deep, sorted, hidden names left out, folders with a trailing slash.

    Raises:
        OSError: The folder cannot be read.
    """
    names = await _names(ctx, path, "", FOLDER_LEVELS)
    if not names:
        return "(empty directory)"
    whole = "\n".join(names)
    shown = cut_start(ctx, whole)
    if shown is whole:
        return whole
    count = shown.count("\n") + 1
    return f"{shown}\n[... {len(names) - count} of {len(names)} entries not shown; view a folder below]"


def _visible(character: str) -> str:
    return "\ufffd" if character >= "\ud800" else character.encode("unicode_escape").decode()


async def _names(ctx: ToolContext, path: str, prefix: str, levels: int) -> list[str]:
    names: list[str] = []
    for name, stat in await ctx.sandbox.list_dir(path):
        if name.startswith("."):
            continue
        shown = displayed_name(name)
        if stat.kind != "dir":
            names.append(prefix + shown)
            continue
        names.append(f"{prefix}{shown}/")
        if levels > 1 and name not in _CLOSED_FOLDERS:
            try:
                names += await _names(ctx, posixpath.join(path, name), f"{prefix}{shown}/", levels - 1)
            except OSError:
                pass  # A folder that cannot be read still shows its name.
    return names
