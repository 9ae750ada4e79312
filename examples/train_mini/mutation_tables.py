"""Which operator, method or builtin a slip may turn into which: symmetric tables."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise


def _symmetric(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for first, second in pairs:
        for old, new in ((first, second), (second, first)):
            options = table.setdefault(old, [])
            if new not in options:
                options.append(new)
    return table


def _grouped(groups: Iterable[str]) -> dict[str, list[str]]:
    """Every word of a group may become every other one; a group starting with `~` joins neighbours only."""
    pairs: list[tuple[str, str]] = []
    for group in groups:
        words = group.split()
        if words[0] == "~":
            pairs += pairwise(words[1:])
        else:
            pairs += [(a, b) for i, a in enumerate(words) for b in words[i + 1 :]]
    return _symmetric(pairs)


COMPARISON_TEXT: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
}
COMPARISON: Mapping[str, Sequence[str]] = _symmetric(
    [
        ("<", "<="),
        (">", ">="),
        ("<", ">"),
        ("<=", ">="),
        ("<", ">="),
        (">", "<="),
        ("==", "!="),
        ("==", "<="),
        ("==", ">="),
    ]
)
MEMBERSHIP: Mapping[str, Sequence[str]] = _symmetric([("in", "not in"), ("is", "is not")])

ARITHMETIC_TEXT: Mapping[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
    ast.Div: "/",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
ARITHMETIC: Mapping[str, Sequence[str]] = _symmetric(
    [
        ("+", "-"),
        ("+", "*"),
        ("-", "*"),
        ("*", "//"),
        ("*", "/"),
        ("//", "%"),
        ("//", "/"),
        ("*", "%"),
        ("*", "**"),
        ("&", "|"),
        ("|", "^"),
        ("&", "^"),
        ("<<", ">>"),
    ]
)

METHODS: Mapping[str, Sequence[str]] = _grouped(
    [
        "lower upper title capitalize casefold swapcase",
        "startswith endswith",
        "keys values items",
        "strip lstrip rstrip split",
        "split rsplit splitlines partition rpartition",
        "find rfind index rindex",
        "find count index",
        "isdigit isalpha isalnum isspace isupper islower isdecimal",
        "append extend insert",
        "~ append appendleft",
        "~ pop popleft",
        "add discard remove",
        "~ append remove",
        "union intersection difference symmetric_difference",
        "issubset issuperset isdisjoint",
        "ljust rjust center zfill",
        "removeprefix removesuffix",
        "get pop setdefault",
        "~ update setdefault",
        "match search fullmatch",
        "findall search finditer",
        "group groups",
        "encode decode",
        "sort reverse",
        "floor ceil trunc",
        "sqrt log exp",
        "sin cos tan",
        "bisect_left bisect_right",
        "heappush heappop",
        "most_common elements",
        "year month day",
        "~ join split",
        "replace strip",
        "gcd lcm",
        "copy clear",
        "push pop peek",
        "deposit withdraw",
    ]
)

NAMES_OF_CALLS: Mapping[str, Sequence[str]] = _grouped(
    [
        "min max",
        "sum len max",
        "any all",
        "sorted list reversed set tuple",
        "abs int round float",
        "~ ord chr",
        "~ zip enumerate",
        "~ str repr len",
        "~ dict list",
        "~ str int",
        "~ map filter",
        "~ range len",
        "hex bin oct",
        "~ isinstance issubclass",
        "~ ValueError TypeError KeyError IndexError",
        "ceil floor",
        "bisect_left bisect_right",
        "Counter set",
    ]
)
