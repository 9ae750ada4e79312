"""Finds inputs for functions about which only the source is known."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from random import Random
from typing import Any

from examples.train_mini.harvest import Candidate
from examples.train_mini.kinds import INT, INTS, TEXT, WORD, Draw, between, choice, dict_of, list_of, tuple_of
from examples.train_mini.subjects import MAX_EXPRESSION, evaluate, literal
from examples.train_mini.time_limit import TimeLimitExceeded, time_limit

_SPECIAL_TEXT = choice(
    "a-b-c", "key=value", "1.2.3", "v2.0", "10", "-3", "3.5", "0x1f", "http://example.org/a?b=1#c",
    "/usr/lib/file.tar.gz", "a/b/../c",
    "Content-Type: text/html; charset=utf-8", "&lt;b&gt;", "<b>x</b>", "a\\nb", "2024-02-29", "10:20:30",
    "%20a%41", "a,b;c", "x[0]", "f(x)",
    "*.py", "[a-z]+", "user@host", "'quoted'", '"dq"', "CamelCase", "snake_case", "  lead", "trail  ",
    "a=1&b=2", "{name}", "#comment", "É",
    "true", "None", "UTF-8", "en_US", "12kb", "1,234", "0b101", "path/to", "A B C", "x", "",
)  # fmt: skip
_DRAWS: dict[str, Draw] = {
    "int": INT,
    "small": between(0, 6),
    "big": between(0, 3000),
    "float": Draw(lambda rng: rng.choice((0.5, 1.0, 2.5, -1.5, rng.randint(-40, 80) / 4))),
    "bool": choice(True, False),
    "none": choice(None),
    "str": TEXT,
    "special": _SPECIAL_TEXT,
    "char": choice(*"abxz-_ ,.:/09A"),
    "bytes": Draw(
        lambda rng: rng.choice((b"", b"abc", b"a=b", b"\x00\x01", b"hello world", b"12", b"\xff\xfe"))
    ),
    "ints": INTS,
    "floats": list_of(Draw(lambda rng: rng.randint(-20, 40) / 4), 0, 5),
    "words": list_of(WORD, 0, 5),
    "texts": list_of(_SPECIAL_TEXT, 0, 4),
    "lists": list_of(list_of(between(0, 9), 0, 3), 0, 4),
    "pairs": list_of(tuple_of(WORD, between(0, 9)), 0, 4),
    "intpairs": list_of(tuple_of(between(0, 9), between(0, 9)), 0, 4),
    "tuple": Draw(lambda rng: tuple(rng.randint(0, 9) for _ in range(rng.randint(1, 4)))),
    "dict": dict_of(WORD, between(0, 9), 0, 4),
    "intdict": dict_of(between(0, 9), between(0, 9), 0, 4),
    "graph": Draw(
        lambda rng: {
            i: [rng.randint(0, 4) for _ in range(rng.randint(0, 3))] for i in range(rng.randint(1, 5))
        }
    ),
    "set": Draw(lambda rng: {rng.randint(0, 9) for _ in range(rng.randint(1, 4))}),
}
_BY_NAME: Sequence[tuple[str, tuple[str, ...]]] = (
    (
        r"^(s|str|string|text|line|word|name|msg|message|label|title|key|prefix|suffix|source|src|"
        r"value_str|doc|header|body)\w*$",
        ("str", "special"),
    ),
    (
        r"(name|text|str|string|line|path|url|uri|filename|pattern|prefix|suffix|label|title|msg|fmt|"
        r"format|host|mode|spec|expr)$",
        ("special", "str"),
    ),
    (r"^(ch|c|char|sep|delim|delimiter|sign|fill|fillchar|quote|pad)$", ("char",)),
    (
        r"^(n|k|i|j|m|num|count|size|width|length|depth|level|index|idx|pos|start|end|stop|step|"
        r"digits|precision|indent|lineno|base|order|dim|axis)$",
        ("small", "int", "big"),
    ),
    (
        r"(_n|_size|_count|_len|_length|_width|num|_dim|_index|_idx|_id|_bits|size|count)$|^(num|n)_",
        ("small", "int", "big"),
    ),
    (
        r"^(x|y|z|a|b|p|q|r|value|val|v|number|amount|lower|upper|low|high|lo|hi|left|right)$",
        ("int", "float", "small", "str", "ints"),
    ),
    (
        r"^(seconds|secs|minutes|year|month|day|days|hour|hours|date|time|ms|bytes|nbytes)$",
        ("small", "big", "int"),
    ),
    (
        r"(list|seq|items|iterable|values|args|elements|array|arr|data|lst|xs|ys|nums|numbers|"
        r"sequence|vector|vec|row|rows|shape|dims|sizes)$",
        ("ints", "words", "tuple", "lists", "floats"),
    ),
    (r"(names|words|lines|strings|parts|tokens|keys|columns|labels|fields|paths)$", ("words", "texts")),
    (
        r"(dict|mapping|map|options|kwargs|params|config|attrs|headers|table|counts|env)$|^d$",
        ("dict", "intdict"),
    ),
    (r"(graph|adj|edges|tree|nodes|matrix|mat|grid|m|rows)$", ("graph", "lists", "intpairs")),
    (r"(pairs|items|ranges|intervals|spans|edges)$", ("pairs", "intpairs")),
    (
        r"^(flag|strict|reverse|ignore\w*|use_\w+|is_\w+|has_\w+|allow\w*|keep\w*|include\w*|with\w*|"
        r"verbose|inplace)$",
        ("bool",),
    ),
)  # fmt: skip
_TEXT_METHODS = frozenset(
    (
        "split rsplit lower upper startswith endswith replace strip lstrip rstrip encode find rfind "
        "join isdigit isalpha format title partition rpartition splitlines count isupper islower "
        "expandtabs capitalize ljust rjust center zfill translate casefold"
    ).split()
)
_LIST_METHODS = frozenset("append extend sort reverse insert".split())
_DICT_METHODS = frozenset("items keys values get setdefault update".split())
CALLS_KEPT = 20
_OF_CONSTANT = {"int": ("int", "small"), "str": ("str", "char"), "float": ("float",)}


def find_calls(candidate: Candidate, rng: Random) -> list[str] | None:
    """Return call expressions with values that show what the function does, or None if too few are found.

    Kept are functions with at least three different results that can be written down.
    """
    names: dict[str, Any] = {"__name__": "harvested"}
    try:
        with time_limit(0.5):
            exec(compile("\n".join([*candidate.imports, candidate.source]), "<harvested>", "exec"), names)
    except (Exception, TimeLimitExceeded):
        return None
    node = next(
        n
        for n in ast.parse(candidate.source).body
        if isinstance(n, ast.FunctionDef) and n.name == candidate.name
    )
    kinds = _kinds_of(candidate, node)
    if kinds is None:
        return None
    draws = {**_DRAWS, **_draws_of_constants(candidate)}
    for i, options in enumerate(kinds):
        extra = [kind for kind in ("own_text", "own_number") if kind in draws and (i == 0 or len(kinds) < 4)]
        kinds[i] = (*options, *extra)
    generator = any(isinstance(child, (ast.Yield, ast.YieldFrom)) for child in ast.walk(node))
    good: dict[tuple[str, ...], int] = {}
    calls: dict[str, str] = {}
    errors: list[str] = []
    spent = 0.0
    required = len(node.args.args) - len(node.args.defaults)
    for attempt in range(220):
        if attempt == 90 and not good:
            return None
        if good and rng.random() < 0.75:
            chosen = rng.choice(list(good))
        else:
            used = (
                rng.randint(required, len(kinds)) if rng.random() < 0.5 else max(required, min(1, len(kinds)))
            )
            chosen = tuple(rng.choice(options) for options in kinds[:used])
        values = [literal(draws[kind].value(rng)) for kind in chosen]
        expression = f"{candidate.name}({', '.join(values)})"
        if generator:
            expression = f"list({expression})"
        if len(expression) > MAX_EXPRESSION or expression in calls:
            continue
        case = evaluate(names, (), expression)
        if case is None:
            spent += 1
            if spent > 25:
                return None
            continue
        if case.expected is None:
            if (
                case.error in ("ValueError", "KeyError", "IndexError", "ZeroDivisionError")
                and len(errors) < 3
            ):
                errors.append(expression)
            continue
        good[chosen] = good.get(chosen, 0) + 1
        calls[expression] = case.expected
        if len(calls) >= 3 * CALLS_KEPT:
            break
    return _choose(calls, errors, rng)


def _draws_of_constants(candidate: Candidate) -> dict[str, Draw]:
    """Return draws of what the function compares with: its own texts and numbers, and their neighbours."""
    constants = [n.value for n in ast.walk(ast.parse(candidate.source)) if isinstance(n, ast.Constant)]
    texts = sorted({c for c in constants if isinstance(c, str) and 0 < len(c) <= 16 and c.isprintable()})
    numbers = sorted(
        {c for c in constants if isinstance(c, int) and not isinstance(c, bool) and abs(c) < 10**6}
    )
    draws: dict[str, Draw] = {}

    def own_text(rng: Random) -> str:
        text = rng.choice(texts)
        shape = rng.random()
        if shape < 0.4:
            return text
        if shape < 0.6:
            return text + rng.choice(texts)
        word = WORD.value(rng)
        return rng.choice((text + word, word + text, word + text + WORD.value(rng), f"{word} {text}"))

    if texts:
        draws["own_text"] = Draw(own_text)
    if numbers:
        draws["own_number"] = Draw(lambda rng: rng.choice(numbers) + rng.choice((-1, 0, 0, 1)))
    return draws


def _choose(calls: dict[str, str], errors: Sequence[str], rng: Random) -> list[str] | None:
    results: dict[str, list[str]] = {}
    for expression, result in calls.items():
        results.setdefault(result, []).append(expression)
    informative = [r for r in results if r not in ("None", "[]", "''", '""', "{}", "()")]
    if len(results) < 3 or len(informative) < 2:
        if not (set(results) >= {"True", "False"} and min(map(len, results.values())) >= 2):
            return None
    kept: list[str] = []
    groups = list(results.values())
    while groups and len(kept) < CALLS_KEPT:
        for group in list(groups):
            kept.append(group.pop(rng.randrange(len(group))))
            if not group or (len(groups) > 6 and kept.count(group[0]) > 2):
                groups.remove(group)
    return kept[:CALLS_KEPT] + list(errors[:2])


def _kinds_of(candidate: Candidate, node: ast.FunctionDef) -> list[tuple[str, ...]] | None:
    """Guess kinds for each positional parameter."""
    if node.args.vararg is not None and not node.args.args:
        return None
    if any(default is None for default in node.args.kw_defaults):
        return None
    written = next((n for n in ast.parse(candidate.original).body if isinstance(n, ast.FunctionDef)), node)
    annotations = {a.arg: ast.unparse(a.annotation) for a in written.args.args if a.annotation is not None}
    defaults = dict(zip([a.arg for a in node.args.args[::-1]], node.args.defaults[::-1], strict=False))
    return [
        _kinds_of_parameter(a.arg, annotations.get(a.arg), defaults.get(a.arg), node) for a in node.args.args
    ]


def _kinds_of_parameter(
    name: str, annotation: str | None, default: ast.expr | None, node: ast.FunctionDef
) -> tuple[str, ...]:
    found: list[str] = []
    if annotation is not None:
        found += _by_annotation(annotation)
    if isinstance(default, ast.Constant):
        kind: dict[str, tuple[str, ...]] = {
            "bool": ("bool",),
            "int": ("small", "int"),
            "str": ("char", "str"),
            "float": ("float", "small"),
            "bytes": ("bytes",),
        }
        found += kind.get(type(default.value).__name__, ())
        if default.value is None:
            found.append("none")
    elif isinstance(default, (ast.Tuple, ast.List)):
        found += ["tuple", "ints"]
    found += _by_use(name, node)
    for pattern, kinds in _BY_NAME:
        if re.search(pattern, name):
            found += kinds
            break
    if not found:
        found = [
            "str",
            "int",
            "ints",
            "special",
            "words",
            "dict",
            "lists",
            "tuple",
            "float",
            "bytes",
            "pairs",
        ]
    return tuple(found)


def _by_annotation(text: str) -> list[str]:
    lowered = text.lower()
    table = (
        ("list[str]", ["words", "texts"]), ("sequence[str]", ["words"]), ("iterable[str]", ["words"]),
        ("list[int]", ["ints"]),
        ("sequence[int]", ["ints", "tuple"]), ("tuple[int", ["tuple"]), ("list[list", ["lists"]),
        ("dict", ["dict"]), ("mapping", ["dict"]),
        ("bytes", ["bytes"]), ("str", ["str", "special"]), ("int", ["small", "int", "big"]),
        ("float", ["float", "int"]), ("bool", ["bool"]),
        ("list", ["ints", "words"]), ("sequence", ["ints", "words"]), ("iterable", ["ints", "words"]),
        ("tuple", ["tuple"]), ("set", ["set"]),
    )  # fmt: skip
    for key, kinds in table:
        if key in lowered:
            return kinds
    return []


def _by_use(name: str, node: ast.FunctionDef) -> list[str]:
    """Read kinds off the attributes, operators and loops that touch a parameter."""
    found: list[str] = []
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name) and child.value.id == name:
            if child.attr in _TEXT_METHODS:
                found += ["str", "special"]
            elif child.attr in _LIST_METHODS:
                found += ["ints", "words"]
            elif child.attr in _DICT_METHODS:
                found += ["dict", "intdict"]
            elif child.attr == "decode":
                found += ["bytes"]
        elif isinstance(child, ast.BinOp):
            for side, other in ((child.left, child.right), (child.right, child.left)):
                if isinstance(side, ast.Name) and side.id == name:
                    if (
                        isinstance(child.op, ast.Mod)
                        and side is child.left
                        and not isinstance(other, ast.Constant)
                    ):
                        continue
                    if isinstance(other, ast.Constant) and isinstance(other.value, str):
                        found += ["str"]
                    elif not isinstance(child.op, ast.Add) or isinstance(other, ast.Constant):
                        found += ["int", "small", "float"]
        elif isinstance(child, ast.Call) and isinstance(child.func, ast.Name):
            if any(isinstance(a, ast.Name) and a.id == name for a in child.args):
                used = child.func.id
                if used == "range":
                    found += ["small"]
                elif used in (
                    "len",
                    "sorted",
                    "enumerate",
                    "zip",
                    "sum",
                    "max",
                    "min",
                    "list",
                    "tuple",
                    "set",
                ):
                    found += ["ints", "words", "str"]
                elif used in ("int", "ord"):
                    found += ["char", "special"]
                elif used in ("abs", "round", "divmod", "float", "hex"):
                    found += ["int", "float"]
        elif (
            isinstance(child, (ast.For, ast.comprehension))
            and isinstance(child.iter, ast.Name)
            and child.iter.id == name
        ):
            found += ["ints", "words", "str", "pairs"]
        elif isinstance(child, ast.Compare) and isinstance(child.left, ast.Name) and child.left.id == name:
            other = child.comparators[0]
            if isinstance(other, ast.Constant):
                found += _OF_CONSTANT.get(type(other.value).__name__, ())
    return found[:12]
