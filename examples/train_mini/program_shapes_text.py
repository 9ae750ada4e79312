"""The shapes of random programs over words, letters, tables and states."""

from __future__ import annotations

from examples.train_mini.program_parts import Builder


def words_to_list(b: Builder) -> None:
    """Filter and change words."""
    ws, w = b.parameter("words"), b.name("word")
    test, words = b.word_test(w)
    value, said = b.word_form(w)
    kind = b.rng.random()
    b.say(f"the words of `{ws}` {words}, {said}")
    if kind < 0.4:
        b.add(f"return [{value} for {w} in {ws} if {test}]")
    elif kind < 0.8:
        out = b.name("list")
        b.add(f"{out} = []")
        b.add(f"for {w} in {ws}:", 1)
        if b.rng.random() < 0.5:
            b.add(f"if {test}:", 1)
            b.add(f"{out}.append({value})", -2)
        else:
            b.add(f"if not ({test}):", 1)
            b.add("continue", -1)
            b.add(f"{out}.append({value})", -1)
        b.add(f"return {out}")
    else:
        number, number_said = b.word_number(w)
        b.add(f"return sorted(({value} for {w} in {ws} if {test}), key=len)")
        b.say("shortest first")
        del number, number_said


def words_to_number(b: Builder) -> None:
    """Reduce words to one number or word."""
    ws, w = b.parameter("words"), b.name("word")
    test, words = b.word_test(w)
    number, said = b.word_number(w)
    kind = b.rng.random()
    if kind < 0.4:
        total = b.name("total")
        b.add(f"{total} = 0")
        b.add(f"for {w} in {ws}:", 1)
        b.add(f"if {test}:", 1)
        b.add(f"{total} += {b.rng.choice(['1', number, number])}", -2)
        b.add(f"return {total}")
        b.say(f"add up the {said} of the words of `{ws}` {words}")
    elif kind < 0.6:
        b.add(f"return sum({number} for {w} in {ws} if {test})")
        b.say(f"add up the {said} of the words of `{ws}` {words}")
    else:
        best, order = b.name("total"), b.rng.choice([">", ">=", "<"])
        b.add(f"{best} = None")
        b.add(f"for {w} in {ws}:", 1)
        b.add(f"if {best} is None or len({w}) {order} len({best}):", 1)
        b.add(f"{best} = {w}", -2)
        b.add(f"return {best}")
        b.say(
            f"the {'shortest' if order == '<' else 'longest'} of `{ws}`, "
            f"the {'last' if order == '>=' else 'first'} of several, or None"
        )


def letters(b: Builder) -> None:
    """Loop over the characters of a text."""
    text, c = b.parameter("str"), b.name("letter")
    test, words = b.letter_test(c)
    kind = b.rng.random()
    if kind < 0.25:
        total = b.name("total")
        b.add(f"{total} = 0")
        b.add(f"for {c} in {text}:", 1)
        b.add(f"if {test}:", 1)
        b.add(f"{total} += 1", -2)
        b.add(f"return {total}")
        b.say(f"count the {words} in `{text}`")
    elif kind < 0.45:
        b.add(f'return "".join({c} for {c} in {text} if {test})')
        b.say(f"keep only the {words} of `{text}`")
    elif kind < 0.7:
        out = b.name("total")
        form, said = b.rng.choice(
            [(f"{c}.upper()", "capitals"), (f"{c} * 2", "doubled"), ('"_"', "underscores"), ('"*"', "stars")]
        )
        b.add(f'{out} = ""')
        b.add(f"for {c} in {text}:", 1)
        b.add(f"if {test}:", 1)
        b.add(f"{out} += {form}", -1)
        b.add("else:", 1)
        b.add(f"{out} += {c}", -2)
        b.add(f"return {out}")
        b.say(f"`{text}` with {words} as {said}")
    else:
        i = b.name("index")
        b.add(f"return [{i} for {i}, {c} in enumerate({text}) if {test}]")
        b.say(f"places of {words} in `{text}`")


def spell(b: Builder) -> None:
    """Split a text into words and put it together again."""
    text, w = b.parameter("str"), b.name("word")
    value, said = b.word_form(w)
    test, words = b.word_test(w)
    joint = b.rng.choice([" ", "-", "_", ", ", "/", ""])
    kind = b.rng.random()
    if kind < 0.5:
        b.add(f'return "{joint}".join({value} for {w} in {text}.split() if {test})')
    else:
        parts = b.name("list")
        b.add(f"{parts} = []")
        b.add(f"for {w} in {text}.split():", 1)
        b.add(f"if {test}:", 1)
        b.add(f"{parts}.append({value})", -2)
        b.add(f'return "{joint}".join({parts})')
    b.say(f"the words of `{text}` {words}, {said}, joined by '{joint}'")


def grouping(b: Builder) -> None:
    """Count or group by a computed key."""
    kind = b.rng.random()
    if kind < 0.5:
        ws, w, table = b.parameter("words"), b.name("word"), b.name("dict")
        key, said = b.word_number(w) if b.rng.random() < 0.6 else (f"{w}[0]", "first letter")
    else:
        ws, w, table = b.parameter("ints"), b.name("item"), b.name("dict")
        k = b.number(2, 5)
        key, said = b.rng.choice(
            [(f"{w} % {k}", f"rest by {k}"), (f"{w} // {k}", f"quotient by {k}"), (f"abs({w})", "size")]
        )
    what = b.rng.random()
    k_name = b.name("key")
    if what < 0.35:
        b.add(f"{table} = {{}}")
        b.add(f"for {w} in {ws}:", 1)
        b.add(f"{k_name} = {key}")
        b.add(f"{table}[{k_name}] = {table}.get({k_name}, 0) + 1", -1)
        b.add(f"return {table}")
        b.say(f"count `{ws}` by {said}")
    elif what < 0.7:
        b.add(f"{table} = {{}}")
        b.add(f"for {w} in {ws}:", 1)
        b.add(f"{table}.setdefault({key}, []).append({w})", -1)
        b.add(f"return {table}")
        b.say(f"group `{ws}` by {said}")
    elif what < 0.85:
        b.add(f"{table} = {{}}")
        b.add(f"for {w} in {ws}:", 1)
        b.add(f"{k_name} = {key}")
        b.add(f"if {k_name} not in {table}:", 1)
        b.add(f"{table}[{k_name}] = {w}", -2)
        b.add(f"return {table}")
        b.say(f"the first of `{ws}` for each {said}")
    else:
        b.add(f"return {{{w}: {key} for {w} in {ws}}}")
        b.say(f"map each of `{ws}` to its {said}")


def table(b: Builder) -> None:
    """Read a table of numbers by name."""
    d, key, value = b.parameter("table"), b.name("key"), b.name("item")
    test, words = b.test(value)
    kind = b.rng.random()
    if kind < 0.25:
        b.add(f"return sorted({key} for {key}, {value} in {d}.items() if {test})")
        b.say(f"sorted keys of `{d}` whose values are {words}")
    elif kind < 0.5:
        number, said = b.scaled(value, "each value")
        b.add(f"return {{{key}: {number} for {key}, {value} in {d}.items() if {test}}}")
        b.say(f"{said} of `{d}`, only where it is {words}")
    elif kind < 0.75:
        total = b.name("total")
        number, said = b.scaled(value, "each value")
        b.add(f"{total} = 0")
        b.add(f"for {key}, {value} in {d}.items():", 1)
        word_test, word_words = b.word_test(key)
        b.add(
            f"if {test} {b.rng.choice(['and', 'or'])} {word_test}:"
            if b.rng.random() < 0.3
            else f"if {test}:",
            1,
        )
        b.add(f"{total} += {number}", -2)
        b.add(f"return {total}")
        b.say(f"sum of {said} of `{d}` that is {words}")
        del word_words
    else:
        best = b.name("total")
        order = b.rng.choice(["<", ">"])
        b.add(f"{best} = None")
        b.add(f"for {key} in sorted({d}):", 1)
        b.add(f"if {best} is None or {d}[{key}] {order} {d}[{best}]:", 1)
        b.add(f"{best} = {key}", -2)
        b.add(f"return {best}")
        b.say(f"the key of `{d}` with the {'smallest' if order == '<' else 'largest'} value, or None")


def named(b: Builder) -> None:
    """Loop over named numbers."""
    items, name, value = b.parameter("named"), b.name("word"), b.name("item")
    kind = b.rng.random()
    test, words = b.test(value)
    if kind < 0.3:
        joint = b.rng.choice([": ", "=", " x", " - ", " "])
        b.add(f'return [f"{{{name}}}{joint}{{{value}}}" for {name}, {value} in {items} if {test}]')
        b.say(f"lines for those of `{items}` that are {words}")
    elif kind < 0.65:
        out = b.name("dict")
        b.add(f"{out} = {{}}")
        b.add(f"for {name}, {value} in {items}:", 1)
        b.add(f"if {test}:", 1)
        if b.rng.random() < 0.5:
            b.add(f"{out}[{name}] = {out}.get({name}, 0) + {value}", -2)
        else:
            b.add(f"{out}[{name}] = max({value}, {out}.get({name}, {value}))", -2)
        b.add(f"return {out}")
        b.say(f"collect `{items}` by name, only values that are {words}")
    else:
        b.add(f"return [{name} for {name}, {value} in {items} if {test}]")
        b.say(f"names in `{items}` whose values are {words}")


def machine(b: Builder) -> None:
    """Follow a state through a text or a list."""
    kind = b.rng.random()
    if kind < 0.5:
        text, c, depth, best = b.parameter("str"), b.name("letter"), b.name("total"), b.name("total")
        up, down = b.rng.choice([("a", "e"), ("(", ")"), ("o", "r"), ("e", "t"), ("l", "a")])
        b.add(f"{depth} = 0")
        b.add(f"{best} = 0")
        b.add(f"for {c} in {text}:", 1)
        b.add(f'if {c} == "{up}":', 1)
        b.add(f"{depth} += {b.number(1, 2)}")
        b.add(f"{best} = max({best}, {depth})", -1)
        b.add(f'elif {c} == "{down}"' + b.rng.choice([":", f" and {depth} > 0:"]), 1)
        b.add(f"{depth} -= 1", -2)
        b.add(f"return {b.rng.choice([best, f'{best} - {depth}', depth])}")
        b.say(f"level after each {up} and {down} of `{text}`")
    else:
        xs, x, run, best = b.parameter("ints"), b.name("item"), b.name("total"), b.name("total")
        test, words = b.test(x)
        b.add(f"{run} = 0")
        b.add(f"{best} = 0")
        b.add(f"for {x} in {xs}:", 1)
        b.add(f"if {test}:", 1)
        b.add(f"{run} += {b.rng.choice(['1', x])}")
        b.add(f"{best} = max({best}, {run})" if b.rng.random() < 0.6 else f"if {run} > {best}:", 0)
        if b.lines[-1].endswith(":"):
            b.add(f"    {best} = {run}")
        b.out()
        b.add("else:", 1)
        b.add(f"{run} = 0", -2)
        b.add(f"return {best}")
        b.say(f"best run in `{xs}` of items that are {words}")


def join_words(b: Builder) -> None:
    """Build one text from words with a separator and numbering."""
    ws, w, i, out = b.parameter("words"), b.name("word"), b.name("index"), b.name("list")
    start, joint = b.number(0, 1), b.rng.choice([", ", "; ", " ", "-", "/"])
    value, said = b.word_form(w)
    test, words = b.word_test(w)
    kind = b.rng.random()
    if kind < 0.5:
        b.add(f"{out} = []")
        b.add(f"for {i}, {w} in enumerate({ws}" + (", 1" if start else "") + "):", 1)
        b.add(f"if {test}:", 1)
        b.add(f'{out}.append(str({i}) + "{b.rng.choice([":", ".", " ", "="])}" + {value})', -2)
        b.add(f'return "{joint}".join({out})')
        b.say(f"numbered words of `{ws}` {words}, {said}")
    else:
        text = b.name("total")
        b.add(f'{text} = ""')
        b.add(f"for {w} in {ws}:", 1)
        b.add(f"if {text}:", 1)
        b.add(f'{text} += "{joint}"', -1)
        b.add(f"{text} += {value}", -1)
        b.add(f"return {text}")
        b.say(f"`{ws}` {said}, joined by '{joint}'")
