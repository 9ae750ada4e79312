"""The shapes of random programs over numbers, and the table of all shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from examples.train_mini import program_shapes_text as text
from examples.train_mini.program_parts import Builder


@dataclass(frozen=True)
class Shape:
    """A way to build a function; `of_number` if its only input is one number, so that it can be a helper."""

    name: str
    build: Callable[[Builder], None]
    weight: float = 1.0
    of_number: bool = False


def _updates(b: Builder, total: str, x: str, words: str) -> tuple[str, str, str]:
    """Return (initial value, update line, words) of an accumulator."""
    value, said = b.scaled(x, words)
    choices = [
        ("0", f"{total} += {value}", f"sum of {said}"),
        ("0", f"{total} += {value}", f"sum of {said}"),
        ("0", f"{total} += 1", "count"),
        ("1", f"{total} *= {value}", f"product of {said}"),
        ("0", f"{total} = max({total}, {value})", f"largest {said}, at least 0,"),
        ("0", f"{total} -= {value}", f"negative sum of {said}"),
        ("0", f"{total} = {value} - {total}", f"alternating sum of {said}"),
        (str(b.number(0, 9)), f"{total} += {value}", f"start value plus {said}"),
    ]
    return b.rng.choice(choices)


def accumulate(b: Builder) -> None:
    """Loop over numbers with filters and one accumulator."""
    xs, x, total = b.parameter("ints"), b.name("item"), b.name("total")
    initial, update, said = _updates(b, total, x, "each item")
    b.add(f"{total} = {initial}")
    b.add(f"for {x} in {xs}:", 1)
    test, words = b.test(x)
    kind = b.rng.random()
    if kind < 0.4:
        b.add(f"if {test}:", 1)
        b.add(update, -1)
        b.say(f"{said} of those in `{xs}` that are {words}")
    elif kind < 0.6:
        b.add(f"if {test}:", 1)
        b.add("continue", -1)
        b.add(update)
        b.say(f"{said} of those in `{xs}`, skipping the ones {words}")
    elif kind < 0.75:
        b.add(f"if {test}:", 1)
        b.add("break", -1)
        b.add(update)
        b.say(f"{said} of those in `{xs}` before the first that is {words}")
    elif kind < 0.9:
        other, other_said = b.scaled(x, "it")
        b.add(f"if {test}:", 1)
        b.add(update, -1)
        b.add("else:", 1)
        b.add(f"{total} += {other}", -1)
        b.say(f"{said} of those in `{xs}` that are {words}, others add {other_said}")
    else:
        b.add(update)
        b.say(f"{said} of those in `{xs}`")
    b.out()
    if b.rng.random() < 0.2:
        value, after = b.scaled(total, "the result")
        b.add(f"return {value}")
        b.say(f"then {after}")
    else:
        b.add(f"return {total}")


def transform(b: Builder) -> None:
    """Build a list from a list of numbers."""
    xs, x = b.parameter("ints"), b.name("item")
    value, said = b.scaled(x, "each")
    test, words = b.test(x)
    kind = b.rng.random()
    b.say(f"{said} of `{xs}` for those that are {words}")
    if kind < 0.3:
        b.add(f"return [{value} for {x} in {xs} if {test}]")
    elif kind < 0.4:
        other, other_said = b.scaled(x, "itself")
        b.add(f"return [{value} if {test} else {other} for {x} in {xs}]")
        b.say(f"and {other_said} for the others")
    elif kind < 0.7:
        out = b.name("list")
        b.add(f"{out} = []")
        b.add(f"for {x} in {xs}:", 1)
        b.add(f"if {test}:", 1)
        b.add(f"{out}.append({value})", -2)
        b.add(f"return {out}")
    elif kind < 0.85:
        out, i = b.name("list"), b.name("index")
        b.add(f"{out} = []")
        b.add(f"for {i}, {x} in enumerate({xs}):", 1)
        b.add(f"if {i} % 2 == {b.number(0, 1)} and {test}:", 1)
        b.add(f"{out}.append({value})", -2)
        b.add(f"return {out}")
        b.say("at every second place")
    else:
        wrap = b.rng.choice(["sum", "sorted", "len", "max"])
        inner = f"[{value} for {x} in {xs} if {test}]"
        if wrap == "max":
            b.add(f"return max({inner}, default={b.number(0, 3)})")
        elif wrap == "sorted":
            b.add(f"return sorted({inner}, reverse={b.rng.choice(['True', 'False'])})")
        else:
            b.add(f"return {wrap}({inner})")
        b.say(f"as {wrap}")


def branches(b: Builder) -> None:
    """Answer by comparing a number with rising limits."""
    known = [p.name for p in b.parameters]
    x = known[0] if known else b.parameter("count")
    limits = sorted(b.rng.sample(range(1, 30), b.rng.choice([2, 2, 3])))
    operator = b.rng.choice(["<", "<=", "<"])
    values = [
        str(b.number(0, 20)) if b.rng.random() < 0.5 else b.scaled(x, "it")[0] for _ in range(len(limits) + 1)
    ]
    words: list[str] = []
    chained = b.rng.random() < 0.5
    for limit, value in zip(limits, values, strict=False):
        keyword = "if" if not words or not chained else "elif"
        b.add(f"{keyword} {x} {operator} {limit}:", 1)
        b.add(f"return {value}", -1)
        words.append(f"{value} {'below' if operator == '<' else 'up to'} {limit}")
    b.add(f"return {values[-1]}")
    b.say(f"{', '.join(words)}, else {values[-1]}")


def digits(b: Builder) -> None:
    """Take a number apart with a while loop."""
    known = [p.name for p in b.parameters]
    x = known[0] if known else b.parameter("count")
    total, base = b.name("total"), b.rng.choice([2, 3, 4, 5, 8, 10])
    value, said = b.scaled(f"{x} % {base}" if b.rng.random() < 0.2 else x, "the rest")
    b.add(f"{total} = {b.number(0, 1)}")
    b.add(f"{x} = abs({x})")
    b.add(f"while {x} > {b.number(0, 1)}:", 1)
    kind = b.rng.random()
    if kind < 0.4:
        b.add(f"{total} += {x} % {base}")
        b.say(f"sum of the digits of `{x}` in base {base}")
    elif kind < 0.7:
        b.add(f"if {x} % {base} == {b.number(0, base - 1)}:", 1)
        b.add(f"{total} += 1", -1)
        b.say(f"count some digits of `{x}` in base {base}")
    else:
        b.add(f"{total} += {value}")
        b.say(f"add {said} while dividing `{x}` by {base}")
    b.add(f"{x} //= {base}", -1)
    b.add(f"return {total}")


def arithmetic(b: Builder) -> None:
    """A few assignments and a result."""
    known = [p.name for p in b.parameters]
    x = known[0] if known else b.parameter("int")
    y = b.number_parameter() if not known else str(b.number(1, 9))
    first, said = b.scaled(x, f"`{x}`")
    middle = b.name("total")
    b.add(f"{middle} = {first}")
    operator, word = b.rng.choice([("+", "plus"), ("-", "minus"), ("*", "times")])
    result = f"{middle} {operator} {y}"
    test, words = b.test(middle, "the result")
    if b.rng.random() < 0.6:
        other, other_said = b.scaled(x, f"`{x}`")
        b.add(f"if {test}:", 1)
        b.add(f"return {other}", -1)
        b.say(f"{said} {word} {y}, but {other_said} when the former is {words}")
    else:
        b.say(f"{said} {word} {y}")
    b.add(f"return {result}")


def search(b: Builder) -> None:
    """Return the first or last item, or its place."""
    xs, x = b.parameter("ints"), b.name("item")
    test, words = b.test(x)
    kind = b.rng.random()
    missing = b.rng.choice(["None", "-1", "0"])
    if kind < 0.35:
        value, said = b.scaled(x, "the value")
        b.add(f"for {x} in {xs}:", 1)
        b.add(f"if {test}:", 1)
        b.add(f"return {value}", -2)
        b.add(f"return {missing}")
        b.say(f"{said} of the first item of `{xs}` that is {words}, or {missing}")
    elif kind < 0.65:
        i = b.name("index")
        b.add(f"for {i} in range(len({xs})):", 1)
        test, words = b.test(f"{xs}[{i}]")
        b.add(f"if {test}:", 1)
        b.add(f"return {i}", -2)
        b.add(f"return {missing}")
        b.say(f"place of the first item of `{xs}` that is {words}, or {missing}")
    else:
        last = b.name("last")
        i = b.name("index")
        b.add(f"{last} = {missing}")
        b.add(f"for {i}, {x} in enumerate({xs}):", 1)
        b.add(f"if {test}:", 1)
        b.add(f"{last} = {b.rng.choice([i, x])}", -2)
        b.add(f"return {last}")
        b.say(f"last match in `{xs}` that is {words}, or {missing}")


def checks(b: Builder) -> None:
    """Tell whether any or all items pass."""
    xs, x = b.parameter("ints"), b.name("item")
    test, words = b.test(x)
    word = b.rng.choice(["any", "all"])
    if b.rng.random() < 0.4:
        b.add(f"return {word}({test} for {x} in {xs})")
    else:
        b.add(f"for {x} in {xs}:", 1)
        b.add(f"if {test}:" if word == "any" else f"if not ({test}):", 1)
        b.add(f"return {word == 'any'}", -2)
        b.add(f"return {word == 'all'}")
    b.say(f"tell whether {word} of `{xs}` are {words}")


def neighbours(b: Builder) -> None:
    """Compare or combine items that stand side by side."""
    xs, out = b.parameter("ints"), b.name("list")
    step = b.rng.choice([1, 1, 1, 2])
    kind = b.rng.random()
    operator, word = b.rng.choice([("-", "difference"), ("+", "sum"), ("*", "product")])
    if kind < 0.35:
        i = b.name("index")
        b.add(f"{out} = []")
        b.add(f"for {i} in range(len({xs}) - {step}):", 1)
        b.add(f"{out}.append({xs}[{i} + {step}] {operator} {xs}[{i}])", -1)
        b.add(f"return {out}")
        b.say(f"{word} of items of `{xs}` that are {step} apart")
    elif kind < 0.6:
        a, c = b.name("item"), b.name("item")
        comparison = b.rng.choice(["<", ">", "<=", "==", "!="])
        b.add(f"return sum(1 for {a}, {c} in zip({xs}, {xs}[{step}:]) if {a} {comparison} {c})")
        b.say(f"count pairs {step} apart in `{xs}` where the first {comparison} the second")
    elif kind < 0.8:
        last, x, total = b.name("last"), b.name("item"), b.name("total")
        b.add(f"{total} = 0")
        b.add(f"{last} = {b.rng.choice(['None', '0'])}")
        b.add(f"for {x} in {xs}:", 1)
        b.add(
            f"if {last} is not None and {x} > {last}:"
            if b.lines[-2].endswith("None")
            else f"if {x} > {last}:",
            1,
        )
        b.add(f"{total} += {b.rng.choice(['1', f'{x} - {last}', x])}", -1)
        b.add(f"{last} = {x}", -1)
        b.add(f"return {total}")
        b.say(f"follow the rises of `{xs}`")
    else:
        i, width = b.name("index"), b.number(2, 3)
        reduce = b.rng.choice(["sum", "max", "min"])
        b.add(f"return [{reduce}({xs}[{i} : {i} + {width}]) for {i} in range(len({xs}) - {width - 1})]")
        b.say(f"{reduce} of each {width} neighbours in `{xs}`")


def two_lists(b: Builder) -> None:
    """Combine two lists."""
    xs, ys = b.parameter("ints"), b.parameter("ints")
    x, y = b.name("item"), b.name("item")
    kind = b.rng.random()
    operator = b.rng.choice(["+", "-", "*"])
    if kind < 0.3:
        b.add(f"return [{x} {operator} {y} for {x}, {y} in zip({xs}, {ys})]")
        b.say(f"combine `{xs}` and `{ys}` place by place with {operator}")
    elif kind < 0.55:
        total = b.name("total")
        test, words = b.test(x)
        b.add(f"{total} = 0")
        b.add(f"for {x}, {y} in zip({xs}, {ys}):", 1)
        b.add(f"if {test}:", 1)
        b.add(f"{total} += {x} {operator} {y}", -2)
        b.add(f"return {total}")
        b.say(f"add {operator} of `{xs}` and `{ys}` where the first is {words}")
    elif kind < 0.8:
        word, negation = b.rng.choice([("in", ""), ("not in", "not ")])
        b.add(f"return [{x} for {x} in {xs} if {x} {word} {ys}]")
        b.say(f"items of `{xs}` that are {negation}in `{ys}`")
    else:
        test, words = b.test(x)
        b.add(f"return [({x}, {y}) for {x} in {xs} for {y} in {ys} if {x} < {y} and {test}]")
        b.say(f"rising pairs from `{xs}` and `{ys}` whose first is {words}")


def split_two(b: Builder) -> None:
    """Split items into two lists."""
    xs, x = b.parameter("ints"), b.name("item")
    first, second = b.name("list"), b.name("list")
    test, words = b.test(x)
    value, said = b.scaled(x, "each")
    b.add(f"{first}, {second} = [], []")
    b.add(f"for {x} in {xs}:", 1)
    b.add(f"if {test}:", 1)
    b.add(f"{first}.append({value})", -1)
    b.add("else:", 1)
    b.add(f"{second}.append({x})", -2)
    b.add(f"return {first}, {second}")
    b.say(f"{said} of `{xs}` that are {words}, and the others")


def nested_rows(b: Builder) -> None:
    """Loop over rows of numbers."""
    rows, row, x = b.parameter("rows"), b.name("item"), b.name("item")
    kind = b.rng.random()
    test, words = b.test(x)
    if kind < 0.35:
        total = b.name("total")
        initial, update, said = _updates(b, total, x, "each")
        b.add(f"{total} = {initial}")
        b.add(f"for {row} in {rows}:", 1)
        b.add(f"for {x} in {row}:", 1)
        b.add(f"if {test}:", 1)
        b.add(update, -3)
        b.add(f"return {total}")
        b.say(f"{said} in all `{rows}` that is {words}")
    elif kind < 0.65:
        reduce = b.rng.choice(["sum", "len", "sorted"])
        limit = b.number(0, 2)
        b.add(f"return [{reduce}({row}) for {row} in {rows} if len({row}) > {limit}]")
        b.say(f"{reduce} of each of `{rows}` longer than {limit}")
    else:
        b.add(f"return [{x} for {row} in {rows} for {x} in {row} if {test}]")
        b.say(f"all numbers in `{rows}` that are {words}")


def ranges(b: Builder) -> None:
    """Loop over a range of numbers."""
    known = [p.name for p in b.parameters]
    n = known[0] if known else b.parameter("count")
    i, total = b.name("index"), b.name("total")
    start = b.number(0, 2)
    end = b.rng.choice([n, f"{n} + 1", f"{n} - 1", f"{n} * 2"])
    test, words = b.test(i)
    kind = b.rng.random()
    if kind < 0.5 or known:
        value, said = b.scaled(i, "each")
        b.add(f"{total} = 0")
        b.add(f"for {i} in range({start}, {end}):", 1)
        b.add(f"if {test}:", 1)
        b.add(f"{total} += {value}", -2)
        b.add(f"return {total}")
        b.say(f"sum of {said} from {start} to {end} (not included) that is {words}")
    else:
        value, said = b.scaled(i, "each")
        b.add(f"return [{value} for {i} in range({start}, {end}) if {test}]")
        b.say(f"{said} from {start} to {end} (not included) that is {words}")


def pairs(b: Builder) -> None:
    """Loop over pairs of numbers."""
    items, x, y = b.parameter("pairs"), b.name("item"), b.name("item")
    kind = b.rng.random()
    test, words = b.test(b.rng.choice([x, y]))
    operator = b.rng.choice(["+", "-", "*"])
    if kind < 0.4:
        total = b.name("total")
        b.add(f"{total} = 0")
        b.add(f"for {x}, {y} in {items}:", 1)
        b.add(f"if {test}:", 1)
        b.add(f"{total} += {x} {operator} {y}", -2)
        b.add(f"return {total}")
        b.say(f"sum of first {operator} second of `{items}` where one is {words}")
    elif kind < 0.7:
        b.add(f"return [{x} {operator} {y} for {x}, {y} in {items} if {test}]")
        b.say(f"first {operator} second of `{items}` where one is {words}")
    else:
        a = b.name("item")
        backwards = b.rng.choice(["True", "False"])
        b.add(f"return sorted({items}, key=lambda {a}: {a}[{b.number(0, 1)}], reverse={backwards})")
        b.say(f"`{items}` sorted by one side")


SHAPES = (
    Shape("accumulate", accumulate, 2.0),
    Shape("transform", transform, 1.8),
    Shape("branches", branches, 0.8, of_number=True),
    Shape("digits", digits, 0.5, of_number=True),
    Shape("arithmetic", arithmetic, 0.8, of_number=True),
    Shape("ranges", ranges, 0.8, of_number=True),
    Shape("search", search, 1.0),
    Shape("checks", checks, 0.8),
    Shape("neighbours", neighbours, 1.0),
    Shape("two_lists", two_lists, 1.0),
    Shape("split_two", split_two, 0.6),
    Shape("nested_rows", nested_rows, 0.9),
    Shape("pairs", pairs, 0.9),
    Shape("words_to_list", text.words_to_list, 1.3),
    Shape("words_to_number", text.words_to_number, 1.0),
    Shape("letters", text.letters, 1.2),
    Shape("spell", text.spell, 1.0),
    Shape("grouping", text.grouping, 1.2),
    Shape("table", text.table, 1.3),
    Shape("named", text.named, 1.0),
    Shape("machine", text.machine, 0.7),
    Shape("join_words", text.join_words, 0.8),
)
