"""Which constants a slip may turn a constant into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def numbers_near(value: int) -> list[str]:
    """Return plausible slips of one integer that is not negative."""
    near = [value + 1, value - 1] if value > 0 else [value + 1]
    if value > 9:
        near += [value * 10, value // 10, value + 10, value - 10]
    elif value in (2, 3, 4, 5):
        near.append(0 if value == 2 else 2)
    return [str(number) for number in near if number >= 0]


_SIGNS: Mapping[str, Sequence[str]] = {
    "": [" ", ","],
    " ": ["", ",", "_", "-"],
    ",": [";", " ", ", "],
    ", ": [",", " ", "; "],
    "-": ["_", " ", ""],
    "_": ["-", " ", ""],
    ":": ["=", ";", " "],
    "=": [":", " "],
    "\n": [" ", ""],
    "/": ["-", "."],
    ".": [",", ""],
    "(": [")"],
    ")": ["("],
}


def strings_near(value: str) -> list[str]:
    """Return plausible slips of one string constant."""
    if value in _SIGNS:
        return list(_SIGNS[value])
    near = [value[:-1], value + value[-1]] if value.isalpha() else [value[1:], value[:-1]]
    if value.isupper():
        near.append(value.lower())
    elif value.islower():
        near.append(value.upper())
    if len(value) == 1:
        near = [text for text in near if text] + ["x" if value != "x" else "y"]
    return near
