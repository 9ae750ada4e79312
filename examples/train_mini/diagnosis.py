"""What an assistant says before an edit: the smallest change it is about to make, in words.

Said first, it is the decision, and the copy follows it; a line copied without one often comes out unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


def diagnosis(old: str, new: str) -> str:
    """Return e.g. "Change `x < limit` to `x <= limit`.": what differs, with one word or sign on each side."""
    return change(*smallest_change(old, new))


def change(old: str, new: str) -> str:
    """Return the sentence that announces a change of `old` into `new`."""
    return f"Change `{old}` to `{new}`."


def smallest_change(old: str, new: str) -> tuple[str, str]:
    """Return the parts of two texts that differ, with one word or sign on each side."""
    before, after = _TOKEN.findall(old), _TOKEN.findall(new)
    start = _common(before, after)
    end = _common(before[start:][::-1], after[start:][::-1])
    first = _step(before, start, -1)
    a = "".join(before[first : _step(before, len(before) - end, 1)])
    b = "".join(after[first : _step(after, len(after) - end, 1)])
    return a.strip(), b.strip()


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Return how many leading tokens are equal."""
    count = 0
    while count < min(len(a), len(b)) and a[count] == b[count]:
        count += 1
    return count


def _step(tokens: Sequence[str], place: int, direction: int) -> int:
    """Move a border outwards over spaces and one more token, but not over the end of a line."""
    while True:
        index = place - 1 if direction < 0 else place
        if not 0 <= index < len(tokens) or "\n" in tokens[index]:
            return place
        place += direction
        if not tokens[index].isspace():
            return place
