"""From a browser's answer to the text the model reads: what happened, then the snapshot, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from dsv4agent.tools.base import Truncation
from dsv4agent.tools.output import PATH_TOKENS, clean_output, fits, keep_end, keep_start, save_output

LONG_LINE = 1000
"""Characters of one line that are shown at least when a snapshot is too long to show whole."""
LONG_ADDRESS = 200
"""Characters of a link's address that are always enough."""
_SHOWN_EVENTS = 20


@dataclass(frozen=True)
class SnapshotLine:
    """One line of the page's accessibility tree; see `_browser_refs.Line`."""

    depth: int
    text: str
    ref: str | None
    in_view: bool


def read_lines(answer: Mapping[str, Any]) -> list[SnapshotLine]:
    """Return the lines of an answer, cleaned of what does not belong into a text."""
    return [
        SnapshotLine(depth, _one_line(_short_address(text)), ref, in_view)
        for depth, text, ref, in_view in answer["lines"]
    ]


def subtree(lines: Sequence[SnapshotLine], ref: str) -> list[SnapshotLine]:
    """Return the line of a ref with all below it, as a tree of its own; empty if it is not there."""
    for start, top in enumerate(lines):
        if top.ref == ref:
            end = start + 1
            while end < len(lines) and lines[end].depth > top.depth:
                end += 1
            return [
                SnapshotLine(line.depth - top.depth, line.text, line.ref, True) for line in lines[start:end]
            ]
    return []


def describe(answer: Mapping[str, Any], notes: Sequence[str]) -> str:
    """Return where the browser is and what happened, a line each."""
    numbers = [number for number, _, _ in answer["tabs"]]
    lines = [f"url: {_one_line(answer['url'])}"]
    if answer["title"]:
        lines.append(f"title: {_one_line(answer['title'])}")
    if len(numbers) > 1:
        lines.append(f"tab: {answer['tab']} of tabs {', '.join(map(str, numbers))}")
    part: list[int] | None = answer["part"]
    if part is not None and part[2] > part[1]:
        lines.append(f"view: {part[0]}-{part[0] + part[1]} of {part[2]} px")
    if (answer["status"] or 0) >= 400:
        lines.append(f"status: HTTP {answer['status']}")
    events = _counted([*notes, *map(_one_line, answer["events"])])
    if len(events) > _SHOWN_EVENTS:
        events[_SHOWN_EVENTS:] = [f"{len(events) - _SHOWN_EVENTS} more such events"]
    if answer["errors"]:
        events.append(f"errors on the page: {answer['errors']}; see console")
    if answer["dialog"]:
        events.append(f"open dialog: {_one_line(answer['dialog'])}; answer it with accept or dismiss")
    return "\n".join([*lines, *(f"* {event}" for event in events)])


def fit_view(
    opening: str,
    lines: Sequence[SnapshotLine],
    *,
    budget: int,
    count_tokens: Callable[[str], int],
    spill_dir: Path | None,
) -> tuple[str, Truncation | None]:
    """Return opening and snapshot within a token budget.

    What is in view stays first, then what follows it, then what comes before; each gap says how long it is
    and of which ref a snapshot would show it. The whole goes to a file.

    Args:
        opening: Text above the snapshot.
        lines: The snapshot.
        budget: Tokens that the text may have.
        count_tokens: Exact token count of a text.
        spill_dir: Folder for what is too long; None for no file.
    """
    whole = _join(opening, _rendered(lines))
    if fits(whole, budget, count_tokens):
        return whole, None
    path = save_output(spill_dir, "browser", whole.encode("utf-8", "replace")) if spill_dir else None
    opening = keep_start(opening, budget // 2, count_tokens)
    # A path has a fixed allowance, so that the cut does not depend on where the session lies.
    allowance = min(PATH_TOKENS, budget // 4) if path else 0
    total = len(lines)
    room = budget - count_tokens(opening) - count_tokens(_hint(total, total, "")) - allowance - 2
    # The least important come last.
    order = [i for i, line in enumerate(lines) if line.in_view]
    last = order[-1] if order else -1
    order += range(last + 1, len(lines))
    order += [i for i in range(last, -1, -1) if not lines[i].in_view]
    longest = max(room, LONG_LINE)
    shown = _most(len(order), lambda n: count_tokens(_with_gaps(lines, order[:n], longest)) <= room)
    body = _with_gaps(lines, order[: max(shown, 1)], longest)
    if not shown:
        body = keep_start(body, max(room, 0), count_tokens)
    text = _join(opening, f"{body}\n{_hint(total - shown, total, path or '')}".lstrip("\n"))
    if not fits(text, budget, count_tokens):
        text = keep_start(text, budget, count_tokens)
    return text, Truncation(shown_tokens=count_tokens(text), total_tokens=count_tokens(whole), path=path)


def fit_text(opening: str, body: str, *, budget: int, count_tokens: Callable[[str], int]) -> str:
    """Return opening and the end of a body (console messages) within a token budget."""
    whole = _join(opening, body)
    if fits(whole, budget, count_tokens):
        return whole
    opening = keep_start(opening, budget // 2, count_tokens)
    marker = "[... earlier lines left out]"
    room = max(budget - count_tokens(opening) - count_tokens(marker) - 2, 0)
    return _join(opening, f"{marker}\n{keep_end(body, room, count_tokens)}")


def clean_lines(lines: Sequence[str]) -> str:
    """Return a page's messages, each on one line."""
    return "\n".join(map(_one_line, lines))


def _counted(events: Sequence[str]) -> list[str]:
    """Return events with those that repeat the one before counted."""
    groups = [(event, sum(1 for _ in group)) for event, group in groupby(events)]
    return [event if count == 1 else f"{event} ({count} times)" for event, count in groups]


def _rendered(lines: Sequence[SnapshotLine]) -> str:
    return "\n".join(f"{'  ' * line.depth}- {line.text}" for line in lines)


def _hint(missing: int, total: int, path: Path | str) -> str:
    where = f", or read {path}" if path else ""
    what = f"{missing} of {total} lines left out" if missing else "long lines cut"
    return f"[{what}: scroll, take a snapshot of a ref{where}]"


def _with_gaps(lines: Sequence[SnapshotLine], chosen: Sequence[int], longest: int) -> str:
    """Return the chosen lines under those that enclose them, with a mark for each gap.

    Lines of more than `longest` characters are cut.
    """
    kept = set(chosen)
    parents = _parents(lines)
    for index in chosen:
        above = parents[index]
        while above >= 0 and above not in kept:
            kept.add(above)
            above = parents[above]
    parts: list[str] = []
    gap = 0
    for index, line in enumerate(lines):
        if index not in kept:
            gap += 1
            continue
        if gap:
            parts.append(_gap(lines, parents, index - gap, gap))
            gap = 0
        text = line.text
        if len(text) > longest:
            text = f"{text[:longest]} [... {len(text) - longest} more characters]"
        parts.append(f"{'  ' * line.depth}- {text}")
    if gap:
        parts.append(_gap(lines, parents, len(lines) - gap, gap))
    return "\n".join(parts)


def _gap(lines: Sequence[SnapshotLine], parents: Sequence[int], first: int, count: int) -> str:
    """Return a mark that names the element in which all of a gap lies."""
    top = min(range(first, first + count), key=lambda index: lines[index].depth)
    above = parents[top]
    while above >= 0 and lines[above].ref is None:
        above = parents[above]
    inside = f" in {lines[above].ref}" if above >= 0 else ""
    return f"{'  ' * lines[top].depth}[... {count} line{'s' if count > 1 else ''}{inside}]"


def _parents(lines: Sequence[SnapshotLine]) -> list[int]:
    parents: list[int] = []
    path: list[int] = []
    for index, line in enumerate(lines):
        while path and lines[path[-1]].depth >= line.depth:
            path.pop()
        parents.append(path[-1] if path else -1)
        path.append(index)
    return parents


def _most(length: int, affordable: Callable[[int], bool]) -> int:
    """Return the largest number in 0..length that is affordable, trying small ones first."""
    low, high = 0, min(16, length)
    while high < length and affordable(high):
        low, high = high, min(2 * high, length)
    if high == length and affordable(length):
        return length
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if affordable(middle) else (low, middle)
    return low


def _short_address(text: str) -> str:
    if text.startswith("/url: ") and len(text) > LONG_ADDRESS:
        return text[:LONG_ADDRESS] + "..."
    return text


def _one_line(text: str) -> str:
    return " ".join(clean_output(text.encode("utf-8", "replace")).split("\n"))


def _join(opening: str, body: str) -> str:
    return "\n".join(part for part in (opening, body) if part)
