"""Gives variables, parameters and functions of a source new names, without changing anything else."""

from __future__ import annotations

import ast
import keyword
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from random import Random

from examples.train_mini.vocabulary import ADJECTIVES, NOUNS, VERBS

_LISTS = (
    "xs items values nums data seq numbers arr lst entries readings scores points samples row series "
    "elements amounts sizes ages prices marks"
)
_WORDS = (
    "words names tokens labels tags parts keys strings titles terms lines fields users cities pieces texts"
)
_TEXTS = "text s string line word name source msg phrase content body raw label title sentence chunk value"
_NUMBERS = "n x a b value target limit low high factor num y k delta base bound amount size number"
_COUNTS = "n count size width k m amount step total number length limit times steps"
_INDICES = "i j k idx pos index at here where p"
_ITEMS = "x v e item value el num n y it entry current element one"
_TOTALS = "total result count acc best s current out n tmp value res amount score answer"
_RESULTS = "result out res kept ret acc parts buf rest collected output found picked answer"
_TABLES = "d mapping table counts prices stock scores lookup ages totals groups by_name index registry"
_ROWS = "rows matrix grid table lists nested m groups cells board lines"
_SETS = "seen known used visited found done"
_LETTERS = "ch c letter char sign symbol glyph"

_ROLES: Mapping[str, str] = {
    **dict.fromkeys("xs ys values numbers items data nums".split(), _LISTS),
    **dict.fromkeys("words names parts tokens lines labels".split(), _WORDS),
    **dict.fromkeys("text s string line word name sentence first second".split(), _TEXTS),
    **dict.fromkeys("n x y a b value limit low high target factor".split(), _NUMBERS),
    **dict.fromkeys("count size width k step times".split(), _COUNTS),
    **dict.fromkeys(
        "i j index position start end left right".split(), _INDICES + " start end left right lo hi begin stop"
    ),
    **dict.fromkeys("item element v".split(), _ITEMS),
    **dict.fromkeys("total best current".split(), _TOTALS),
    **dict.fromkeys("result out kept".split(), _RESULTS),
    **dict.fromkeys("table counts groups d stock".split(), _TABLES),
    **dict.fromkeys("rows matrix grid row".split(), _ROWS),
    **dict.fromkeys("seen found visited".split(), _SETS),
    **dict.fromkeys("ch letter c".split(), _LETTERS),
}
_SYNONYMS: Mapping[str, str] = {
    "count": "count num how_many number_of tally",
    "sum": "sum total add_up",
    "total": "total sum overall",
    "find": "find locate search_for lookup get",
    "get": "get fetch read",
    "is": "is check_is looks",
    "has": "has contains check_has",
    "remove": "remove drop strip_out without",
    "list": "list all",
    "make": "make build create",
    "merge": "merge combine join",
    "largest": "largest biggest highest max",
    "smallest": "smallest lowest min",
    "average": "average mean avg",
    "split": "split break_up divide",
    "words": "words tokens terms",
    "index": "index position pos",
    "format": "format render show",
    "to": "to as into",
}


def local_bindings(tree: ast.AST) -> list[str]:
    """Return parameters and assigned local names of all functions in `tree`, in order of appearance."""
    names: dict[str, None] = {}
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.Lambda)):
            for node in ast.walk(function):
                if isinstance(node, ast.arg):
                    names.setdefault(node.arg)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.setdefault(node.id)
                elif isinstance(node, ast.ExceptHandler) and node.name:
                    names.setdefault(node.name)
    return [name for name in names if name not in ("self", "cls", "_")]


def rename(source: str, names: Mapping[str, str]) -> str:
    """Replace names everywhere they stand as plain names (and as `name` in docstrings).

    A name stays if the same word also occurs where it is not a plain name (a keyword argument, a string, an
    attribute of the same spelling is no obstacle), because a textual replacement could then change the
    meaning.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    docstrings = _docstrings(source, tree)
    counts: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            counts[node.id] += 1
        elif isinstance(node, ast.arg):
            counts[node.arg] += 1
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            counts[node.name] += 1
        elif isinstance(node, ast.ExceptHandler) and node.name:
            counts[node.name] += 1
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            counts.update(node.names)
    code = _without(source, docstrings)
    free = set(re.findall(r"\b[A-Za-z_]\w*", code))
    chosen: dict[str, str] = {}
    for old, new in names.items():
        if old == new or new in free or new in chosen.values() or keyword.iskeyword(new):
            continue
        if len(re.findall(rf"(?<![\w.]){re.escape(old)}\b", code)) == counts[old]:
            chosen[old] = new
    if not chosen:
        return source
    pattern = re.compile(r"(?<![\w.])(" + "|".join(map(re.escape, chosen)) + r")\b")
    in_docstring = re.compile(r"`(" + "|".join(map(re.escape, chosen)) + r")\b")
    out: list[str] = []
    at = 0
    for start, end in docstrings:
        out.append(pattern.sub(lambda m: chosen[m[1]], source[at:start]))
        out.append(in_docstring.sub(lambda m: "`" + chosen[m[1]], source[start:end]))
        at = end
    out.append(pattern.sub(lambda m: chosen[m[1]], source[at:]))
    return "".join(out)


def draw_names(names: Iterable[str], rng: Random, strength: float = 0.8) -> dict[str, str]:
    """Draw new names for local variables, mostly of the same role as the old ones, and all different."""
    strange = rng.random() < 0.12
    taken: set[str] = set()
    drawn: dict[str, str] = {}
    for old in names:
        pool = _ROLES.get(old.rstrip("s_0123456789") if old not in _ROLES else old)
        new = old
        for _ in range(20):
            if strange:
                new = rng.choice("abcdefghijklmnopqrstuvwxyz") if rng.random() < 0.5 else rng.choice(NOUNS)
            elif rng.random() > strength or (pool is None and rng.random() < 0.5):
                new = old
            elif pool is None or rng.random() < 0.15:
                new = rng.choice(NOUNS)
                if rng.random() < 0.3:
                    new = f"{rng.choice(ADJECTIVES)}_{new}"
            else:
                new = rng.choice(pool.split())
                if rng.random() < 0.05:
                    new += rng.choice(("1", "2", "_a", "_b"))
            if new not in taken:
                break
        if new in taken:
            new = old if old not in taken else f"{old}_{len(taken)}"
        taken.add(new)
        drawn[old] = new
    return drawn


def draw_function_name(name: str, rng: Random) -> str:
    """Draw another name for a function that does what `name` says."""
    kind = rng.random()
    if kind < 0.3:
        return name
    if kind < 0.42:
        return random_function_name(rng)
    parts = [
        rng.choice(_SYNONYMS[part].split()) if part in _SYNONYMS and rng.random() < 0.5 else part
        for part in name.split("_")
    ]
    new = "_".join(parts)
    if kind < 0.62:
        new += rng.choice(
            ("_v2", "_fast", "_safe", "_impl", "_of", "_for", "_all", "_new", "_from", "_value", "_in", "_2")
        )
    elif kind < 0.78:
        new = rng.choice(("get_", "compute_", "do_", "my_", "calc_", "make_", "run_", "try_")) + new
    return new


def random_function_name(rng: Random) -> str:
    """Draw a name such as `merge_first_order`."""
    kind = rng.random()
    if kind < 0.35:
        return f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}"
    if kind < 0.65:
        return f"{rng.choice(VERBS)}_{rng.choice(ADJECTIVES)}_{rng.choice(NOUNS)}"
    if kind < 0.85:
        return f"{rng.choice(ADJECTIVES)}_{rng.choice(NOUNS)}"
    return rng.choice(VERBS) + rng.choice(("", "_it", "_one", "_all", "_them", str(rng.randint(2, 9))))


def random_class_name(rng: Random) -> str:
    """Draw a name such as `PriceTable`."""
    words = [rng.choice(NOUNS)] if rng.random() < 0.4 else [rng.choice(ADJECTIVES + NOUNS), rng.choice(NOUNS)]
    return "".join(word.capitalize() for word in words)


def _docstrings(source: str, tree: ast.Module) -> list[tuple[int, int]]:
    """Return the character spans of docstrings, in order."""
    starts = [0]
    for line in source.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    lines = source.split("\n")

    def offset(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    spans: list[tuple[int, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                assert first.end_lineno is not None and first.end_col_offset is not None
                spans.append(
                    (offset(first.lineno, first.col_offset), offset(first.end_lineno, first.end_col_offset))
                )
    return sorted(spans)


def _without(source: str, spans: list[tuple[int, int]]) -> str:
    out: list[str] = []
    at = 0
    for start, end in spans:
        out.append(source[at:start])
        at = end
    return "".join(out) + source[at:]
