"""Kinds of inputs: type aliases whose metadata draws random values, to annotate templates with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, cast

from examples.train_mini.vocabulary import COMMON_WORDS, FIRST_NAMES, WORD_SHAPES


@dataclass(frozen=True)
class Draw:
    """Draws one random value of a kind."""

    value: Callable[[Random], Any]


def choice(*values: object) -> Draw:
    """Draw one of the given values."""
    return Draw(lambda rng: rng.choice(values))


def between(low: int, high: int) -> Draw:
    """Draw an integer from `low` to `high`, more often a small or extreme one."""

    def draw(rng: Random) -> int:
        if rng.random() < 0.2:
            return rng.choice((low, high, min(high, low + 1)))
        return rng.randint(low, high)

    return Draw(draw)


def list_of(item: Draw, low: int = 0, high: int = 6) -> Draw:
    """Draw a list of drawn items."""
    return Draw(lambda rng: [item.value(rng) for _ in range(rng.randint(low, high))])


def tuple_of(*items: Draw) -> Draw:
    """Draw a tuple, one item from each."""
    return Draw(lambda rng: tuple(item.value(rng) for item in items))


def dict_of(key: Draw, value: Draw, low: int = 0, high: int = 4) -> Draw:
    """Draw a dictionary."""
    return Draw(lambda rng: {key.value(rng): value.value(rng) for _ in range(rng.randint(low, high))})


def _word(rng: Random) -> str:
    return rng.choice(COMMON_WORDS)


def _int(rng: Random) -> int:
    low, high = rng.choice(((-9, 20), (0, 9), (0, 9), (-40, 60), (0, 100)))
    return rng.randint(low, high)


def _ints(rng: Random) -> list[int]:
    low, high = rng.choice(((-5, 9), (0, 5), (0, 20), (-20, 20), (1, 3), (1, 9)))
    return [rng.randint(low, high) for _ in range(rng.choice((0, 1, 2, 3, 3, 4, 4, 5, 6)))]


def _text(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return _word(rng)
    if kind < 0.6:
        return " ".join(_word(rng) for _ in range(rng.randint(1, 4)))
    if kind < 0.7:
        return " ".join(_word(rng).capitalize() for _ in range(rng.randint(1, 3)))
    if kind < 0.78:
        return "".join(rng.choice("aabc") for _ in range(rng.randint(1, 7)))
    if kind < 0.84:
        return _word(rng) + rng.choice(("!", ", ", "-", "_", "  ", "1", "42")) + _word(rng)
    if kind < 0.9:
        return rng.choice(WORD_SHAPES)
    return "" if kind < 0.95 else _word(rng).upper()


def _rows(rng: Random) -> list[list[int]]:
    width = rng.randint(1, 3)
    return [[rng.randint(-4, 9) for _ in range(width)] for _ in range(rng.randint(1, 3))]


def _square(rng: Random) -> list[list[int]]:
    size = rng.randint(1, 3)
    return [[rng.randint(0, 9) for _ in range(size)] for _ in range(size)]


WORD = Draw(_word)
INT = Draw(_int)
TEXT = Draw(_text)
INTS = Draw(_ints)

Int = Annotated[int, INT]
Digit = Annotated[int, between(0, 9)]
Count = Annotated[int, between(0, 12)]
Positive = Annotated[int, between(1, 30)]
Big = Annotated[int, between(0, 5000)]
Year = Annotated[int, between(1890, 2040)]
Month = Annotated[int, between(1, 12)]
Percent = Annotated[int, between(0, 100)]
Ints = Annotated[list[int], INTS]
SomeInts = Annotated[list[int], Draw(lambda rng: _ints(rng) or [rng.randint(0, 9)])]
Naturals = Annotated[list[int], list_of(between(0, 12))]
SortedInts = Annotated[list[int], Draw(lambda rng: sorted(_ints(rng)))]
Amounts = Annotated[list[float], list_of(Draw(lambda rng: rng.randint(0, 80) / 4), 1, 5)]
Amount = Annotated[float, Draw(lambda rng: rng.randint(0, 400) / 4)]
Words = Annotated[list[str], list_of(WORD, 0, 5)]
SomeWords = Annotated[list[str], list_of(WORD, 1, 5)]
Names = Annotated[list[str], list_of(Draw(lambda rng: rng.choice(FIRST_NAMES)), 1, 5)]
Name = Annotated[str, Draw(lambda rng: rng.choice(FIRST_NAMES))]
Word = Annotated[str, WORD]
Text = Annotated[str, TEXT]
Sentence = Annotated[str, Draw(lambda rng: " ".join(_word(rng) for _ in range(rng.randint(2, 6))))]
Lines = Annotated[str, Draw(lambda rng: "\n".join(_text(rng) for _ in range(rng.randint(1, 4))))]
Char = Annotated[str, choice(*"abceiorstx")]
Sign = Annotated[str, choice("-", "_", ",", " ", ".", "/", ":", "*", "#")]
Bits = Annotated[str, Draw(lambda rng: "".join(rng.choice("01") for _ in range(rng.randint(1, 8))))]
Table = Annotated[dict[str, int], dict_of(WORD, between(-3, 12), 0, 4)]
Rows = Annotated[list[list[int]], Draw(_rows)]
Groups = Annotated[list[list[int]], list_of(list_of(between(-4, 9), 0, 4), 0, 4)]
Square = Annotated[list[list[int]], Draw(_square)]
Pairs = Annotated[list[tuple[int, int]], list_of(tuple_of(between(0, 9), between(0, 9)), 0, 4)]
Items = Annotated[list[tuple[str, int]], list_of(tuple_of(WORD, between(0, 9)), 0, 4)]
Flag = Annotated[bool, choice(True, False)]
Maybe = Annotated[int | None, Draw(lambda rng: None if rng.random() < 0.4 else rng.randint(-3, 9))]
Flags = Annotated[list[bool], list_of(choice(True, False), 0, 5)]


def related(value: object, earlier: list[object], rng: Random) -> object:
    """Replace a drawn value by one that has to do with the arguments before it, so that tests see hits, too.

    A number becomes an item of a list, a word an item of a list or a key, a letter a sign of a text; or a
    number near an earlier one.
    """
    if not earlier or isinstance(value, bool) or rng.random() < 0.5:
        return value
    other = rng.choice(earlier)
    members: list[object] = list(cast("Iterable[object]", other)) if isinstance(other, (list, dict)) else []
    if isinstance(value, int):
        if members and all(type(member) is int for member in members):
            return rng.choice(members)
        if isinstance(other, int) and not isinstance(other, bool):
            return other + rng.choice((-1, 0, 1, 2, 5))
    elif isinstance(value, str):
        if members and all(isinstance(member, str) for member in members):
            return rng.choice(members)
        if isinstance(other, str) and other and len(value) == 1:
            return rng.choice(other)
    return value
