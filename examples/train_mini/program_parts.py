"""Parts of random programs: names, typed expressions and conditions, each with the words that describe it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from examples.train_mini.kinds import INT, INTS, TEXT, WORD, between, dict_of, list_of, tuple_of
from examples.train_mini.vocabulary import ADJECTIVES, NOUNS

Phrase = tuple[str, str]
"""Code and the words for it."""

_POOLS = {
    "int": (
        "n x a b value target limit low high factor k delta base bound amount size start step offset level"
    ),
    "ints": (
        "xs items values nums data numbers arr entries readings scores points samples amounts sizes ages "
        "prices"
    ),
    "str": "text s string line word name source phrase body title label",
    "words": "words names tokens labels tags parts keys titles terms fields users cities",
    "table": "d mapping table counts prices stock scores lookup ages totals",
    "rows": "rows matrix grid lists groups cells board",
    "pairs": "pairs items entries links edges points orders",
    "item": "x v e item value num n entry current element",
    "index": "i j k idx pos index",
    "total": "total result count acc best score answer res amount",
    "list": "result out res kept parts rest found picked",
    "dict": "counts groups table result seen_by index by_key",
    "set": "seen known used visited",
    "letter": "ch c letter char sign",
    "word": "w word name token part term item label",
    "key": "key name k word",
    "flag": "found ok done active ready",
    "last": "prev last before previous",
}
_DRAWS: dict[str, Callable[[Random], Any]] = {
    "int": INT.value,
    "count": between(0, 15).value,
    "ints": INTS.value,
    "str": TEXT.value,
    "words": list_of(WORD, 0, 5).value,
    "table": dict_of(WORD, between(-3, 12), 0, 4).value,
    "rows": list_of(list_of(between(-4, 9), 0, 4), 0, 4).value,
    "pairs": list_of(tuple_of(between(0, 9), between(-3, 12)), 0, 4).value,
    "named": list_of(tuple_of(WORD, between(0, 12)), 0, 4).value,
}
_HINTS = {
    "int": "int",
    "count": "int",
    "ints": "list[int]",
    "str": "str",
    "words": "list[str]",
    "table": "dict[str, int]",
    "rows": "list[list[int]]",
    "pairs": "list[tuple[int, int]]",
    "named": "list[tuple[str, int]]",
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a random function."""

    name: str
    kind: str

    @property
    def hint(self) -> str:
        """Its type hint."""
        return _HINTS[self.kind]

    def draw(self, rng: Random) -> Any:
        """Draw a value for a test."""
        return _DRAWS[self.kind](rng)


class Builder:
    """Collects one function: its parameters, lines and description."""

    def __init__(self, rng: Random, helper: tuple[str, Sequence[Parameter]] | None = None) -> None:
        self.rng = rng
        self.helper = helper if helper is not None and [p.kind for p in helper[1]][:1] == ["int"] else None
        self.parameters: list[Parameter] = []
        self.lines: list[str] = []
        self.words: list[str] = []
        self._taken: set[str] = set()
        self._level = 1

    # Names and lines

    def name(self, pool: str) -> str:
        """Draw an unused variable name."""
        rng = self.rng
        for _ in range(20):
            kind = rng.random()
            if kind < 0.8:
                name = rng.choice(_POOLS[pool].split())
            elif kind < 0.92:
                name = rng.choice(NOUNS)
            else:
                name = f"{rng.choice(ADJECTIVES)}_{rng.choice(NOUNS)}"
            if name not in self._taken:
                break
        else:
            name = f"{pool}{len(self._taken)}"
        self._taken.add(name)
        return name

    def parameter(self, kind: str) -> str:
        """Add a parameter and return its name."""
        pool = {"count": "int", "named": "pairs"}.get(kind, kind)
        name = self.name(pool)
        self.parameters.append(Parameter(name, kind))
        return name

    def number_parameter(self) -> str:
        """Return an int parameter, a new one unless there is one to use again."""
        known = [p.name for p in self.parameters if p.kind in ("int", "count")]
        if known and (len(self.parameters) > 2 or self.rng.random() < 0.5):
            return self.rng.choice(known)
        return self.parameter("int")

    def add(self, line: str, deeper: int = 0) -> None:
        """Add a line at the current level; `deeper` moves the level of the lines after it."""
        self.lines.append("    " * self._level + line)
        self._level += deeper

    def out(self, levels: int = 1) -> None:
        """Close blocks."""
        self._level -= levels

    def say(self, words: str) -> None:
        """Add to the description."""
        self.words.append(words)

    def sentence(self) -> str:
        """Return the description as one sentence of limited length."""
        text = ", ".join(self.words)
        text = text[0].upper() + text[1:]
        return (text if len(text) <= 120 else text[:117].rsplit(" ", 1)[0] + " ...") + "."

    # Numbers

    def number(self, low: int = 0, high: int = 12) -> int:
        """Draw a constant."""
        return self.rng.randint(low, high)

    def bound(self, *, parameters: bool = True) -> Phrase:
        """Return something to compare with: mostly a constant, sometimes a parameter."""
        if parameters and self.rng.random() < 0.35 and len(self.parameters) < 3:
            name = self.number_parameter()
            return name, f"`{name}`"
        value = str(self.number(-2, 14))
        return value, value

    def scaled(self, x: str, words: str) -> Phrase:
        """Return an expression of one number."""
        rng, k = self.rng, self.number(2, 9)
        options: list[Phrase] = [
            (x, words),
            (x, words),
            (f"{x} * {k}", f"{words} times {k}"),
            (f"{x} + {k}", f"{words} plus {k}"),
            (f"{x} - {k}", f"{words} minus {k}"),
            (f"{x} * {x}", f"{words} squared"),
            (f"{x} // {k}", f"{words} divided by {k}"),
            (f"{x} % {k}", f"{words} modulo {k}"),
            (f"abs({x})", f"the size of {words}"),
            (f"{k} - {x}", f"{k} minus {words}"),
            (f"max({x}, {k})", f"{words} but at least {k}"),
            (f"min({x}, {k})", f"{words} but at most {k}"),
            (f"{x} * 2 + 1", f"twice {words} plus 1"),
            (f"-{x}", f"{words} negated"),
            (f"({x} + {k}) // 2", f"the middle of {words} and {k}"),
        ]
        if self.helper is not None and rng.random() < 0.7:
            name, parameters = self.helper
            others = [str(self.number(1, 9)) for _ in parameters[1:]]
            arguments = ", ".join([x, *others])
            self.helper = None if rng.random() < 0.7 else self.helper
            return f"{name}({arguments})", f"`{name}` of {words}"
        return rng.choice(options)

    def test(self, x: str, words: str = "it") -> Phrase:
        """Return a condition on one number."""
        rng = self.rng
        k, m = self.number(2, 6), self.number(0, 2)
        low = self.number(-4, 6)
        high = low + self.number(2, 9)
        if rng.random() < 0.42:
            bound, said = self.bound()
            operator, relation = rng.choice(
                (
                    (">", "above"),
                    ("<", "below"),
                    (">=", "at least"),
                    ("<=", "at most"),
                    ("!=", "other than"),
                    ("==", "equal to"),
                )
            )
            if rng.random() < 0.12:
                return f"{x} * {k} {operator} {bound}", f"{relation} {said} when taken {k} times"
            return f"{x} {operator} {bound}", f"{relation} {said}"
        options: list[Phrase] = [
            (f"{x} % {k} == {m % k}", f"{m % k} modulo {k}" if m % k else f"divisible by {k}"),
            (f"{x} % {k} != 0", f"not divisible by {k}"),
            (f"{low} <= {x} <= {high}", f"from {low} to {high}"),
            (f"{low} < {x} < {high}", f"between {low} and {high}"),
            (f"{x} < {low} or {x} > {high}", f"outside {low} to {high}"),
            (f"{x} > {low} and {x} % 2 == 0", f"even and above {low}"),
            (f"{x} % 2 == 1 or {x} > {high}", f"odd or above {high}"),
            (f"{x} % {k} == 0 and {x} != {low}", f"divisible by {k} but not {low}"),
            (f"not {x} % {k}", f"divisible by {k}"),
            (f"abs({x}) > {k}", f"farther than {k} from zero"),
        ]
        return rng.choice(options)

    # Words

    def word_test(self, w: str) -> Phrase:
        """Return a condition on one word."""
        k, c = self.number(2, 5), self.rng.choice("aeiorst")
        options: list[Phrase] = [
            (f"len({w}) > {k}", f"longer than {k}"),
            (f"len({w}) <= {k}", f"of at most {k} letters"),
            (f"len({w}) % 2 == 0", "of even length"),
            (f'{w}.startswith("{c}")', f"starting with {c}"),
            (f'{w}.endswith("{c}")', f"ending with {c}"),
            (f'"{c}" in {w}', f"with the letter {c}"),
            (f'"{c}" not in {w}', f"without the letter {c}"),
            (f'{w}.count("{c}") == 1', f"with exactly one {c}"),
            (f"{w} == {w}[::-1]", "that read the same backwards"),
            (f"{w}[0] == {w}[-1]", "with equal first and last letters"),
            (f'{w} and {w}[0] in "aeiou"', "that start with a vowel"),
            (f'{w} < "{self.rng.choice("ghmnp")}"', "from the first part of the alphabet"),
        ]
        return self.rng.choice(options)

    def word_form(self, w: str) -> Phrase:
        """Return an expression of one word that is text."""
        k, c = self.number(1, 4), self.rng.choice("-_*!+")
        options: list[Phrase] = [
            (w, "as they are"),
            (f"{w}.upper()", "in capitals"),
            (f"{w}.title()", "with a capital"),
            (f"{w}[::-1]", "reversed"),
            (f"{w}[:{k}]", f"cut to {k} letters"),
            (f"{w}[{k}:]", f"without the first {k} letters"),
            (f"{w}[-{k}:]", f"reduced to the last {k} letters"),
            (f'{w} + "{c}"', f"with {c} appended"),
            (f'"{c}" + {w}', f"with {c} in front"),
            (f"{w} * 2", "twice"),
            (f"{w}[0] + {w}[-1]", "as first and last letter"),
            (f'{w}.replace("{self.rng.choice("aeio")}", "{c}")', f"with a vowel as {c}"),
            (f'{w}.strip("{self.rng.choice("aest")}")', "stripped"),
        ]
        return self.rng.choice(options)

    def word_number(self, w: str) -> Phrase:
        """Return a number computed from one word."""
        c = self.rng.choice("aeiorst")
        options: list[Phrase] = [
            (f"len({w})", "length"),
            (f'{w}.count("{c}")', f"number of {c}"),
            (f"len(set({w}))", "number of different letters"),
            (f"ord({w}[0]) - 97", "place of the first letter"),
            (f"len({w}) * {self.number(2, 5)}", "scaled length"),
            (f'sum(1 for ch in {w} if ch in "aeiou")', "number of vowels"),
        ]
        return self.rng.choice(options)

    def letter_test(self, c: str) -> Phrase:
        """Return a condition on one character."""
        k = self.rng.choice("aeiorst")
        options: list[Phrase] = [
            (f'{c} in "aeiou"', "vowels"),
            (f'{c} not in "aeiou"', "signs that are no vowels"),
            (f"{c}.isdigit()", "digits"),
            (f"{c}.isalpha()", "letters"),
            (f"{c}.isupper()", "capitals"),
            (f"{c}.isspace()", "blanks"),
            (f'{c} != "{k}"', f"signs other than {k}"),
            (f'{c} == "{k}"', f"signs {k}"),
            (f'{c} > "{k}"', f"signs after {k}"),
            (f'{c}.islower() or {c} == " "', "small letters and blanks"),
            (f"not {c}.isalnum()", "signs that are neither letters nor digits"),
        ]
        return self.rng.choice(options)
