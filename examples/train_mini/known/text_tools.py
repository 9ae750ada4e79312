"""Texts: tokens, padding, masking, small notations, casing, brackets, templates and counts."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated

from examples.train_mini.kinds import (
    Char,
    Count,
    Digit,
    Draw,
    Flag,
    Lines,
    Name,
    Names,
    Sentence,
    Sign,
    SomeWords,
    Table,
    Text,
    Word,
    Words,
    between,
    choice,
)

Formula = Annotated[str, choice("1+2", "12-3+4", "7", "2-2-2", "10+0-5", "-3+4", "8-10", "30+12")]
Nested = Annotated[str, choice("(a(b)c)", "()", "((x))", "a", "(a)(b)", "((a)b(c(d)))", "(", "x)(")]
Mixed = Annotated[str, choice("a1b22", "x", "42", "7up", "r2d2", "", "page 10 of 25", "v3", "0-0-9")]
Colour = Annotated[str, choice("RRGB", "B", "", "GGGG", "RGRGB", "BBR")]
Abc = Annotated[str, Draw(lambda rng: "".join(rng.choice("aabbcd") for _ in range(rng.randint(0, 8))))]
Title = Annotated[str, choice("the lord of the rings", "of mice and men", "a tale", "up and in", "gone")]


def tokens(text: Mixed) -> list[str]:
    """Split a text into runs of digits and runs of letters; other signs only separate."""
    found: list[str] = []
    current = ""
    for char in text:
        if current and char.isdigit() != current[-1].isdigit():
            found.append(current)
            current = ""
        if char.isalnum():
            current += char
        elif current:
            found.append(current)
            current = ""
    if current:
        found.append(current)
    return found


def sum_of_numbers(text: Mixed) -> int:
    """Add up the whole numbers that stand in a text."""
    total = number = 0
    for char in text:
        if char.isdigit():
            number = number * 10 + int(char)
        else:
            total += number
            number = 0
    return total + number


def evaluate_sum(formula: Formula) -> int:
    """Evaluate numbers joined by plus and minus, read from the left."""
    total, sign, number = 0, 1, 0
    for char in formula + "+":
        if char in "+-":
            total += sign * number
            sign = 1 if char == "+" else -1
            number = 0
        else:
            number = number * 10 + int(char)
    return total


def deepest_level(text: Nested) -> int:
    """Return how deep round brackets are nested, -1 if one closes too early or stays open."""
    depth = deepest = 0
    for char in text:
        if char == "(":
            depth += 1
            deepest = max(deepest, depth)
        elif char == ")":
            depth -= 1
            if depth < 0:
                return -1
    return deepest if depth == 0 else -1


def outside_brackets(
    text: Annotated[str, choice("a(b)c", "x)y", "(q)w(e)", "m(n(o)p)r", "k(l", "ab", "((u)v)z")],
) -> str:
    """Remove round brackets with everything in them."""
    kept: list[str] = []
    depth = 0
    for char in text:
        if char == "(":
            depth += 1
        elif char == ")":
            depth = max(0, depth - 1)
        elif depth == 0:
            kept.append(char)
    return "".join(kept)


def repairs_needed(
    text: Annotated[str, Draw(lambda rng: "".join(rng.choice("()") for _ in range(rng.randint(0, 7))))],
) -> int:
    """Count the brackets to add so that every bracket has a partner."""
    unopened = unclosed = 0
    for char in text:
        if char == "(":
            unclosed += 1
        elif unclosed > 0:
            unclosed -= 1
        else:
            unopened += 1
    return unopened + unclosed


def pad_center(text: Word, width: Annotated[int, between(0, 14)], fill: Sign = "*") -> str:
    """Center a text between fill signs; the right side gets the odd one."""
    missing = width - len(text)
    if missing <= 0:
        return text
    left = missing // 2
    return fill * left + text + fill * (missing - left)


def align_table(rows: Table) -> list[str]:
    """Write rows as name, blanks and a number, all of one width."""
    if not rows:
        return []
    name_width = max(len(name) for name in rows)
    number_width = max(len(str(number)) for number in rows.values())
    return [name.ljust(name_width) + " " + str(number).rjust(number_width) for name, number in rows.items()]


def leader_line(
    name: Word, page: Annotated[int, between(1, 120)], width: Annotated[int, between(10, 18)] = 15
) -> str:
    """Write a line of a table of contents: name, at least two dots, page."""
    dots = max(2, width - len(name) - len(str(page)))
    return f"{name}{'.' * dots}{page}"


def keep_edges(text: Text, edge: Annotated[int, between(0, 3)] = 1) -> str:
    """Hide everything but the first and last letters; texts that are too short are hidden whole."""
    if len(text) <= 2 * edge:
        return "*" * len(text)
    hidden = len(text) - 2 * edge
    return text[:edge] + "*" * hidden + text[len(text) - edge :]


def mask_mail(user: Word, host: Word) -> str:
    """Write a mail address with all but the first letter of its user hidden by three stars."""
    return f"{user[0]}***@{host}.org" if len(user) > 1 else f"*@{host}.org"


def censor(text: Sentence, letter: Char, length: Annotated[int, between(2, 6)] = 4) -> str:
    """Replace words that have a letter or are longer than a limit by hashes."""
    words = text.split(" ")
    return " ".join("#" * len(w) if letter in w or len(w) > length else w for w in words)


def fill_template(
    template: Annotated[str, choice("Hi {name}!", "{name} has {count}", "{{name}}", "none", "{count}{x}")],
    name: Word,
    count: Digit = 2,
) -> str:
    """Put a name and a count into a template; unknown fields stay."""
    for field, value in (("name", name), ("count", str(count))):
        template = template.replace("{" + field + "}", value)
    return template


def expand_variables(
    text: Annotated[str, choice("$a-$b", "$ab", "x$", "cost: $a", "$$a", "$b$a$c", "plain")],
    table: Annotated[dict[str, str], choice({"a": "1", "b": "22"}, {"ab": "x"}, {"a": ""}, {})],
) -> str:
    """Replace $name by its value; unknown names become a question mark."""
    result = ""
    i = 0
    while i < len(text):
        end = i + 1
        while end < len(text) and text[i] == "$" and text[end].isalpha():
            end += 1
        result += table.get(text[i + 1 : end], "?") if end > i + 1 else text[i]
        i = end
    return result


def repeat_groups(
    code: Annotated[str, choice("2[ab]", "a3[b]c", "xyz", "2[a]2[b]", "1[q]", "3[a]b", "0[x]y", "12[z]")],
) -> str:
    """Expand notations such as 3[ab], which are not nested."""
    return re.sub(r"(\d+)\[([a-z]*)\]", lambda m: int(m.group(1)) * m.group(2), code)


def page_numbers(
    text: Annotated[str, choice("1-3", "2", "1,4-6", "3-1", "7,7", "1-2,9", "5-5", "10-12,1")],
) -> list[int]:
    """Read a list of pages such as 1,4-6; a range that runs backwards is empty."""
    pages: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        pages.update(range(int(first), int(last if dash else first) + 1))
    return sorted(pages)


def read_options(
    text: Annotated[
        str, choice("-v", "--size=3", "-v -x file", "--a=b=c --d", "file", "-", "-- -x", "-ab c")
    ],
) -> dict[str, str]:
    """Read options of a command line: --key=value, --key and bundled -abc; other words are left out."""
    options: dict[str, str] = {}
    for word in text.split():
        if word == "--":
            break
        if word.startswith("--"):
            key, _, value = word[2:].partition("=")
            options[key] = value or "yes"
        elif word.startswith("-"):
            options.update(dict.fromkeys(word[1:], "yes"))
    return options


def chemical_count(
    formula: Annotated[str, choice("H2O", "CO2", "NaCl", "C6H12O6", "O", "Fe2O3", "CH3COOH")],
    element: Annotated[str, choice("H", "O", "C", "Na", "Fe", "N")],
) -> int:
    """Count the atoms of an element in a formula without brackets."""
    total = 0
    for symbol, number in re.findall(r"([A-Z][a-z]?)(\d*)", formula):
        if symbol == element:
            total += int(number or "1")
    return total


def parse_point(
    text: Annotated[str, choice("(1,2)", "( 3 , -4 )", "5,6", "(7)", "(,1)", "(0,0)", "-1,1")],
) -> tuple[int, int] | None:
    """Read a point such as (1, 2), with or without brackets; None if it has another shape."""
    inner = text.removeprefix("(").removesuffix(")")
    x, comma, y = inner.partition(",")
    try:
        return int(x), int(y) if comma else 0
    except ValueError:
        return None


def parse_flag(
    text: Annotated[str, choice("yes", "NO", " on", "off", "1", "0", "true", "maybe", "", "F", "t")],
    default: Flag = False,
) -> bool:
    """Read a switch such as yes or OFF; anything else is the default."""
    word = text.strip().lower()
    if word in ("yes", "on", "1", "true", "t"):
        return True
    if word in {"no", "off", "0", "false", "f"}:
        return False
    return default


def natural_key(
    name: Annotated[str, choice("file10", "file9", "a", "12b", "x1y22", "", "007")],
) -> list[tuple[int, str]]:
    """Return a sort key in which numbers within names count by their value."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def title_case(title: Title) -> str:
    """Capitalise the words of a title, small ones only at the start."""
    small = {"of", "the", "and", "a", "in"}
    words = title.split()
    return " ".join(w if i > 0 and w in small else w.capitalize() for i, w in enumerate(words))


def swap_case_every(text: Word, step: Annotated[int, between(1, 4)] = 2) -> str:
    """Write every `step`-th letter in upper case, beginning with the first."""
    return "".join(c.upper() if i % step == 0 else c for i, c in enumerate(text))


def sentence_case(
    text: Annotated[str, choice("hello. you", "a! b? c", "NO. yes", "one", " two. three", "x.y. z")],
) -> str:
    """Start every sentence with a capital and write the rest in small letters."""
    result: list[str] = []
    begin = True
    for char in text.lower():
        if char.isalpha():
            result.append(char.upper() if begin else char)
            begin = False
        else:
            result.append(char)
            if char in ".!?":
                begin = True
    return "".join(result)


def constant_name(text: Text) -> str:
    """Turn a text into an upper-case name with underscores between its words."""
    words = re.split(r"[^a-zA-Z0-9]+", text)
    return "_".join(word.upper() for word in words if word)


def casing_of(
    name: Annotated[
        str, choice("max_size", "maxSize", "MaxSize", "MAX_SIZE", "max", "MAX", "max-size", "Max Size")
    ],
) -> str:
    """Name the style in which a name is written."""
    if "-" in name or " " in name:
        return "kebab" if "-" in name else "spaced"
    if name.isupper():
        return "constant"
    if "_" in name:
        return "snake"
    if name[0].isupper():
        return "pascal"
    return "lower" if name.islower() else "camel"


def first_unique(text: Abc) -> str:
    """Return the first letter that occurs once, an empty text if there is none."""
    counts = Counter(text)
    for char in text:
        if counts[char] == 1:
            return char
    return ""


def letter_balance(text: Abc) -> int:
    """Return the largest count of a letter minus the smallest one, 0 for an empty text."""
    counts = [text.count(char) for char in set(text)]
    return max(counts) - min(counts) if counts else 0


def doubled_letters(text: Sentence) -> int:
    """Count the words in which a letter follows itself."""
    return sum(any(word[i] == word[i - 1] for i in range(1, len(word))) for word in text.split())


def overlapping_hits(text: Abc, part: Annotated[str, choice("a", "ab", "aa", "ba", "aba")]) -> int:
    """Count where a part begins in a text; hits may overlap."""
    hits = 0
    place = text.find(part)
    while place >= 0:
        hits += 1
        place = text.find(part, place + 1)
    return hits


def longest_word(text: Sentence, without: Char = "e") -> str:
    """Return the longest word without a letter, the first of several."""
    best = ""
    for word in text.split():
        if without not in word and len(word) > len(best):
            best = word
    return best


def typed_text(keys: Annotated[str, choice("ab<c", "<<a", "abc", "a<<b", "xy<<z<", "", "ab<<cd")]) -> str:
    """Return what stands on the screen when < deletes the last letter."""
    screen: list[str] = []
    for key in keys:
        if key != "<":
            screen.append(key)
        elif screen:
            screen.pop()
    return "".join(screen)


def squeeze_blanks(
    text: Annotated[str, choice("a  b", " a ", "a b", "   ", "x\ty  z", "one   two three", "")],
) -> str:
    """Replace runs of blanks by one blank and remove those at the ends."""
    result = ""
    for char in text:
        if not char.isspace():
            result += char
        elif result and result[-1] != " ":
            result += " "
    return result.rstrip()


def strip_comment(
    line: Annotated[str, choice("a = 1 # one", "# all", "b", 's = "#" # c', "x#y", "", '"a" "#b"')],
) -> str:
    """Remove a comment that begins with # outside of quotes, and blanks before it."""
    quoted = False
    for i, char in enumerate(line):
        if char == '"':
            quoted = not quoted
        elif char == "#" and not quoted:
            return line[:i].rstrip()
    return line


def unquote(text: Annotated[str, choice('"a"', "'b'", '"c', "d", '""', "'", "'e\"", '"f g"', "''")]) -> str:
    """Remove quotes around a text if both ends have the same."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


def english_list(names: Names, most: Annotated[int, between(1, 4)] = 3) -> str:
    """Join names with commas and a final and; those beyond a limit are only counted."""
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    if len(shown) == 1:
        return shown[0]
    return ", ".join(shown[:-1]) + " and " + shown[-1]


def plural(
    count: Annotated[int, between(-1, 4)],
    noun: Annotated[str, choice("box", "city", "day", "cat", "dish", "key", "fly", "bus")],
) -> str:
    """Write a count with its noun in the right number."""
    if abs(count) == 1:
        return f"{count} {noun}"
    if noun.endswith(("s", "x", "sh", "ch")):
        return f"{count} {noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{count} {noun[:-1]}ies"
    return f"{count} {noun}s"


def article_for(noun: Word, known: Flag = False) -> str:
    """Put the right article before a noun."""
    if known:
        return "the " + noun
    return ("an " if noun[0] in "aeio" else "a ") + noun


def greeting(name: Name, hour: Annotated[int, between(0, 23)] = 9, formal: Flag = False) -> str:
    """Greet somebody by the hour of the day."""
    part = "morning" if 5 <= hour < 12 else "day" if hour < 18 and hour >= 12 else "evening"
    text = f"Good {part}, {name}"
    return text + "." if formal else text + "!"


def spell_digits(number: Annotated[int, between(-99, 999)]) -> str:
    """Write a number digit by digit in words."""
    names = "zero one two three four five six seven eight nine".split()
    words = [names[int(digit)] for digit in str(abs(number))]
    return "-".join(["minus", *words] if number < 0 else words)


def tens_in_words(number: Annotated[int, between(20, 99)]) -> str:
    """Write a number from 20 to 99 in English words."""
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    ones = ["", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    ten, one = divmod(number, 10)
    word = tens[ten - 2]
    return f"{word}-{ones[one]}" if one else word


def column_name(number: Annotated[int, choice(1, 2, 25, 26, 27, 28, 52, 53, 702, 703, 77)]) -> str:
    """Return the letters of a sheet's column: 1 is A, 26 is Z, 27 is AA."""
    name = ""
    while number > 0:
        number, rest = divmod(number - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def letter_value_sum(word: Word, start: Digit = 1) -> int:
    """Add up the places of letters in the alphabet, counted from `start`."""
    return sum(ord(char) - ord("a") + start for char in word if char.isalpha())


def zigzag_rows(text: Word, rows: Annotated[int, between(1, 4)]) -> list[str]:
    """Write a text down and up over rows and return the rows."""
    lines = [""] * rows
    row, step = 0, 1
    for char in text:
        lines[row] += char
        if row + step not in range(rows):
            step = -step
        if rows > 1:
            row += step
    return lines


def keyword_cipher(word: Word, key: Annotated[str, choice("zebra", "tree", "cab", "x")]) -> str:
    """Replace letters by an alphabet that begins with the letters of a key."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    mixed = "".join(dict.fromkeys(key + alphabet))
    return "".join(mixed[alphabet.index(c)] if c in alphabet else c for c in word)


def letters_needed(have: Abc, word: Annotated[str, choice("abba", "cab", "dad", "baba", "bcd")]) -> str:
    """Return in alphabetic order the letters that are missing to lay a word."""
    missing = Counter(word) - Counter(have)
    return "".join(sorted(missing.elements()))


def abbreviations(words: SomeWords) -> dict[str, str]:
    """Map each word to its shortest start that no other word has."""
    table: dict[str, str] = {}
    for word in words:
        others = [other for other in words if other != word]
        size = 1
        while size < len(word) and any(other.startswith(word[:size]) for other in others):
            size += 1
        table[word] = word[:size]
    return table


def unified_colour(pixels: Colour) -> str:
    """Return the colour that most pixels have, grey (-) when two share the lead."""
    counts = Counter(pixels).most_common(2)
    if not counts:
        return "-"
    if len(counts) == 2 and counts[0][1] == counts[1][1]:
        return "-"
    return counts[0][0]


def common_indent(
    text: Annotated[str, choice("  a\n    b", "a\n  b", "    x\n\n    y", "   q", "", " a\n  b\n c")],
) -> int:
    """Return by how many blanks all lines that are not empty are indented."""
    depths = [len(line) - len(line.lstrip()) for line in text.splitlines() if line.strip()]
    return min(depths, default=0)


def outline_numbers(
    levels: Annotated[list[int], choice([1, 2, 2], [1, 1], [1, 2, 3, 2], [], [2, 1], [1, 2, 1, 2])],
) -> list[str]:
    """Number headings by their levels: 1, 1.1, 1.2 and so on."""
    counters: list[int] = []
    labels: list[str] = []
    for level in levels:
        del counters[level:]
        while len(counters) < level:
            counters.append(0)
        counters[level - 1] += 1
        labels.append(".".join(map(str, counters)))
    return labels


def bullet_list(words: Words, mark: Sign = "-", skip: Char = "x") -> str:
    """Write words as lines with a mark, except those that begin with a letter."""
    return "\n".join(f"{mark} {word}" for word in words if not word.startswith(skip))


def longest_line(text: Lines) -> int:
    """Return the number of the longest line, counted from 1; of several the last."""
    best, width = 0, -1
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) >= width:
            best, width = number, len(line)
    return best


def progress_bar(
    done: Count, total: Annotated[int, between(0, 12)], width: Annotated[int, between(4, 10)] = 8
) -> str:
    """Draw a bar of equal signs for a share; nothing to do counts as done."""
    share = min(1.0, done / total) if total else 1.0
    full = int(share * width)
    return "[" + "=" * full + " " * (width - full) + f"] {round(share * 100)}%"


def escape_signs(text: Text, special: Sign = "_") -> str:
    """Put a backslash before a special sign and double every backslash."""
    return text.replace("\\", "\\\\").replace(special, "\\" + special)


def word_shape(text: Annotated[str, choice("Ab1", "hello", "X-9", "McDonald", "42nd", "", "iPhone")]) -> str:
    """Describe a word: A for capitals, a for small letters, 9 for digits; runs are written once."""
    shape = ""
    for char in text:
        sign = "9" if char.isdigit() else "A" if char.isupper() else "a" if char.islower() else char
        if not shape.endswith(sign):
            shape += sign
    return shape


def next_name(
    name: Annotated[str, choice("file", "file1", "file9", "x99", "a0", "v12b", "7", "log09")],
) -> str:
    """Count up the number at the end of a name, keeping its width; without one add 1."""
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    if not digits:
        return name + "1"
    return stem + str(int(digits) + 1).zfill(len(digits))


def sounds_code(word: Word) -> str:
    """Return a letter and up to three digits that stand for the groups of consonants after it."""
    groups = {
        "b": 1,
        "f": 1,
        "p": 1,
        "v": 1,
        "c": 2,
        "g": 2,
        "k": 2,
        "s": 2,
        "d": 3,
        "t": 3,
        "l": 4,
        "m": 5,
        "n": 5,
        "r": 6,
    }
    code = word[0].upper()
    last = groups.get(word[0], 0)
    for char in word[1:]:
        digit = groups.get(char, 0)
        if digit and digit != last:
            code += str(digit)
        last = digit
    return code[:4].ljust(4, "0")
