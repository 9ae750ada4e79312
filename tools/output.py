"""From a command's raw bytes to the text the model reads: hygiene, exit line, truncation in tokens."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dsv4agent.tools.base import Truncation

HEAD_SHARE = 0.4
"""Share of the budget kept from the start; the rest is kept from the end, where errors stand."""

PATH_TOKENS = 64
"""Allowance for the path of a full output."""

_SEQUENCE = (
    r"\x1b(?:"
    r"\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|\][^\x07\x1b\n]*(?:\x07|\x1b\\)"  # OSC: titles, hyperlinks
    r"|[PX^_][^\x1b\n]*\x1b\\"  # DCS, SOS, PM, APC
    r"|[ -/]+[0-~]|[0-OQ-WYZ\\`-~]"  # escapes of two and more characters
    r")"
)
_COMPLETE_SEQUENCE = re.compile(_SEQUENCE)
# Of an unfinished sequence the introducer goes, and of an unfinished title all of its line.
_ESCAPE_SEQUENCE = re.compile(_SEQUENCE + r"|\x1b(?:[\]PX^_][^\x1b\n]*|\[[0-?]*[ -/]*)?")
_MISSED_INPUT = re.compile(
    rb"EOFError: EOF when reading a line|(?:input|stdin|standard input)[^\n]{0,20} is not a (?:tty|terminal)"
    rb"|a terminal is required|no tty present|Inappropriate ioctl for device"
    rb"|could not read (?:Username|Password)",
    re.IGNORECASE,
)
_LAST_WORDS = 1000
_UNFINISHED_LENGTH = 256
_NEAR = 0.98
_GUESSES = 8


def clean_output(raw: bytes) -> str:
    """Return output bytes as readable text.

    Invalid UTF-8 becomes U+FFFD, escape sequences and NUL go away, and of a line redrawn with carriage
    returns (a progress bar) only the last state stays.
    """
    return _clean(raw.decode("utf-8", "replace"))


def render_output(raw: bytes, exit_code: int | None = 0, *, note: str | None = None) -> str:
    """Return the text of a finished command: its output, then what the model must know besides.

    Args:
        raw: Output bytes, stdout and stderr merged.
        exit_code: Shown as a last line `[exit code: N]` unless it is 0 or unknown (None).
        note: One line in brackets before the exit code, without the brackets.
    """
    body = clean_output(raw).rstrip("\n")
    return join_trailer(body, trailer(exit_code, note))


def trailer(exit_code: int | None, note: str | None = None) -> str:
    """Return the lines below a command's output, or an empty string."""
    lines = [f"[{note}]"] if note else []
    if exit_code:
        lines.append(f"[exit code: {exit_code}]")
    return "\n".join(lines)


def join_trailer(body: str, lines: str) -> str:
    """Return body and trailer as one text; `(no output)` if both are empty."""
    if body and lines:
        return f"{body}\n{lines}"
    return body or lines or "(no output)"


def fits(text: str, budget: int, count_tokens: Callable[[str], int]) -> bool:
    """Tell whether a text has at most `budget` tokens, without counting if it is short."""
    return _surely_fits(text, budget) or count_tokens(text) <= budget


@dataclass(frozen=True)
class Captured:
    """Output as collected: all of it, or the start and the end of a stream too long to hold.

    Attributes:
        head: The whole output, or its first bytes if `omitted` is not 0.
        tail: The last bytes if `omitted` is not 0.
        omitted: Number of bytes between `head` and `tail` that are not held.
    """

    head: bytes
    tail: bytes = b""
    omitted: int = 0


def empty_input_hint(captured: Captured) -> str | None:
    """Return what to do if a failed program's last words say that it found nothing to read or no terminal."""
    end = (captured.tail or captured.head)[-_LAST_WORDS:]
    if _MISSED_INPUT.search(end) is None:
        return None
    return "standard input is empty and no terminal: give input with a pipe, < FILE or an option"


def truncate_output(
    captured: Captured,
    *,
    budget: int,
    count_tokens: Callable[[str], int],
    save: Callable[[], Path | None],
) -> tuple[str, Truncation | None]:
    """Clean an output and cut its middle out if it exceeds a token budget.

    The first 40 % and the last 60 % of the budget stay, at line boundaries where lines are short enough,
    with one marker line between them.

    Args:
        captured: The collected output.
        budget: Tokens that the returned text may have, marker included.
        count_tokens: Exact token count of a text.
        save: Called once if anything is cut; keeps the full output in a file and returns its path.

    Returns:
        The text without trailing newlines, and what was cut.
    """
    head = clean_output(captured.head)
    total = 0
    if not captured.omitted:
        head = head.rstrip("\n")
        if _surely_fits(head, budget) or (total := count_tokens(head)) <= budget:
            return head, None
    path = save()
    if captured.omitted:
        tail = clean_output(captured.tail).rstrip("\n")
        held = count_tokens(head) + count_tokens(tail)
        total = held + held * captured.omitted // (len(captured.head) + len(captured.tail))
        about = "about "
    else:
        tail, about = head, ""
    # The marker's own cost: its numbers are never wider than the total. A path has a fixed allowance, so that
    # the cut does not depend on where the session lies.
    allowance = min(PATH_TOKENS, budget // 4) if path else 0
    room = max(budget - count_tokens(_marker(about, total, total, None)) - allowance - 2, 0)
    first = keep_start(head, int(room * HEAD_SHARE), count_tokens)
    last = keep_end(tail, room - int(room * HEAD_SHARE), count_tokens)
    shown = count_tokens(first) + count_tokens(last)
    marker = _marker(about, max(total - shown, 0), total, path)
    pieces = (piece for piece in (first.rstrip("\n"), marker, last) if piece)
    return "\n".join(pieces), Truncation(shown_tokens=shown, total_tokens=total, path=path)


def fit_output(
    captured: Captured,
    *,
    exit_code: int | None = 0,
    note: str | None = None,
    opening: str = "",
    budget: int,
    count_tokens: Callable[[str], int],
    save: Callable[[], Path | None],
) -> tuple[str, Truncation | None]:
    """Return the whole text of a command within a token budget: opening line or trailer, and the output.

    Args:
        captured: The collected output.
        exit_code: As for `render_output`.
        note: As for `render_output`.
        opening: A line before the output, which then takes the place of the trailer (a timeout).
        budget: Tokens that the text may have.
        count_tokens: Exact token count of a text.
        save: As for `truncate_output`.
    """
    lines = trailer(exit_code, note)
    # The lines around the output are part of the budget; 2 covers the newlines that join them.
    frame = sum(count_tokens(part) for part in (opening, lines) if part)
    body, truncation = truncate_output(
        captured, budget=max(budget - frame - 2 * bool(frame), 1), count_tokens=count_tokens, save=save
    )
    if opening:
        return "\n".join(part for part in (opening, body) if part), truncation
    return join_trailer(body, lines), truncation


def keep_start(text: str, budget: int, count_tokens: Callable[[str], int]) -> str:
    """Return the longest start of a text within a token budget, cut after a line if that keeps half of it."""
    size = _longest(len(text), budget, lambda n: count_tokens(text[:n]))
    if size < len(text):
        line_end = text.rfind("\n", 0, size) + 1
        if line_end * 2 >= size:
            size = line_end
    return text[:size]


def keep_end(text: str, budget: int, count_tokens: Callable[[str], int]) -> str:
    """Return the longest end of a text within a token budget, cut before a line if that keeps half of it."""
    length = len(text)
    size = _longest(length, budget, lambda n: count_tokens(text[length - n :]))
    if size < length:
        line_start = text.find("\n", length - size) + 1
        if 0 < line_start and (length - line_start) * 2 >= size:
            size = length - line_start
    return text[length - size :]


class LiveText:
    """Turns output chunks into displayable text, never half a character or half an escape sequence."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, chunk: bytes) -> str:
        """Return what can be shown after this chunk."""
        text = self._held + self._decoder.decode(chunk)
        self._held = ""
        start = text.rfind("\x1b")
        if start >= 0 and self._is_unfinished(text, start):
            self._held = text[start:]
            text = text[:start]
        return _ESCAPE_SEQUENCE.sub("", text).replace("\0", "")

    def _is_unfinished(self, text: str, start: int) -> bool:
        short = len(text) - start < _UNFINISHED_LENGTH and "\n" not in text[start:]
        return short and not _COMPLETE_SEQUENCE.match(text, start)


def save_output(folder: Path, name: str, data: bytes) -> Path:
    """Write an output to `folder/name-N.txt`, N being the first free number, and return the path."""
    path, descriptor = new_output_file(folder, name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return path


def new_output_file(folder: Path, name: str) -> tuple[Path, int]:
    """Create `folder/name-N.txt` (mode 0600, first free number N); return its path and descriptor."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = 1
    while True:
        path = folder / f"{name}-{number}.txt"
        try:
            return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            number += 1


def _surely_fits(text: str, budget: int) -> bool:
    """Use that a byte-level tokenizer makes at most one token per byte."""
    return (len(text) if text.isascii() else 4 * len(text)) <= budget


def _clean(text: str) -> str:
    if "\x1b" in text:
        text = _ESCAPE_SEQUENCE.sub("", text)
    if "\r" in text:
        # Not by an expression: one that looks for the last of many carriage returns takes quadratic time.
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return text.replace("\0", "")


def _marker(about: str, omitted: int, total: int, path: Path | None) -> str:
    where = f"; full output: {path}" if path else ""
    return f"[... {about}{omitted} of {total} tokens omitted{where}]"


def _longest(length: int, budget: int, cost: Callable[[int], int]) -> int:
    """Return a size in 0..length that costs at most the budget and, unless it is `length`, nearly all of it.

    Counting tokens is what costs time here, so guesses follow the last count's tokens per character.
    """
    if budget <= 0:
        return 0
    low, high = 0, length + 1
    guess = min(length, 4 * budget)
    for step in range(64):
        spent = cost(guess)
        if spent <= budget:
            low = guess
            if guess == length or spent >= _NEAR * budget:
                break
        else:
            high = guess
        if high - low <= 1:
            break
        wanted = guess * budget // max(spent, 1) if step < _GUESSES else (low + high) // 2
        guess = min(max(wanted, low + 1), high - 1)
    return low
