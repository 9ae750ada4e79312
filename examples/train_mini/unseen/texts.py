"""Evaluation only: words, formats, codes."""

from __future__ import annotations

import re
from typing import Annotated

from examples.train_mini.kinds import (
    Big,
    Char,
    Count,
    Lines,
    Name,
    Positive,
    Sentence,
    SomeWords,
    Text,
    Word,
    Words,
    between,
    choice,
)

Version = Annotated[str, choice("1.0", "1.0.0", "1.2", "1.10", "2.0.1", "0.9", "1.2.3")]
Encoded = Annotated[str, choice("3a2b", "1x", "2a1b2c", "10z", "", "4q1w")]
Brackets = Annotated[str, choice("()", "([])", "([)]", "(", ")", "", "{[()]}", "a(b)c", "(]", "(()")]
Phrase = Annotated[
    str,
    choice(
        "A man, a plan", "Was it a car or a cat I saw", "Hello", "racecar", "No lemon, no melon", "ab", ""
    ),
]
Query = Annotated[str, choice("a=1&b=2", "x=&y=3", "name=ann", "", "k=v&k=w", "flag&z=1")]
CsvLine = Annotated[str, choice("a,b,c", '"x,y",z', '1,"2 ""3""",4', "one", "", ",", 'a,"b"')]
Hex = Annotated[str, choice("#ff0000", "#00ff7f", "#0a0b0c", "#ffffff", "#123456")]
Address = Annotated[str, choice("10.0.0.1", "255.255.255.0", "192.168.1.7", "0.0.0.0", "127.0.0.1")]
Mail = Annotated[
    str, choice("a@b.org", "x@y", "no-at.org", "two@@at.org", "first.last@site.net", "@b.org", "a@.org")
]
Password = Annotated[str, choice("abc", "Abcdef12", "longpassword", "SHORT1a", "12345678", "aB3$xyzw", "")]
Duration = Annotated[str, choice("1h30m", "45s", "2h", "10m5s", "1h1m1s", "")]
Rpn = Annotated[str, choice("1 2 +", "3 4 * 5 -", "2 3 4 + *", "8 2 /", "7", "5 1 2 + 4 * + 3 -")]
Path = Annotated[str, choice("/a/b/../c", "/a/./b", "/../x", "/a//b/", "/", "/a/b/c/../../d")]
Camel = Annotated[str, choice("camelCase", "parseHttpRequest", "simple", "aB", "HTMLPage", "getX")]
Ini = Annotated[str, choice("a = 1\nb=2", "# note\nx=y", "\nkey = long value\n", "k", "a=1\n\n#c\nb=2=3")]


def count_vowels(text: Text) -> int:
    """Count the vowels of a text."""
    return sum(1 for letter in text.lower() if letter in "aeiou")


def run_length_encode(text: Annotated[str, choice("aaab", "", "abc", "zzzz", "aabbaa", "xxy")]) -> str:
    """Write each run as its length and letter."""
    result = ""
    i = 0
    while i < len(text):
        j = i
        while j < len(text) and text[j] == text[i]:
            j += 1
        result += str(j - i) + text[i]
        i = j
    return result


def run_length_decode(code: Encoded) -> str:
    """Undo run-length coding."""
    result = ""
    number = ""
    for sign in code:
        if sign.isdigit():
            number += sign
        else:
            result += sign * int(number)
            number = ""
    return result


def caesar(text: Text, shift: Annotated[int, between(-5, 30)]) -> str:
    """Shift letters along the alphabet and keep the rest."""
    result: list[str] = []
    for letter in text:
        if letter.isalpha() and letter.isascii():
            start = ord("a") if letter.islower() else ord("A")
            result.append(chr((ord(letter) - start + shift) % 26 + start))
        else:
            result.append(letter)
    return "".join(result)


def atbash(text: Word) -> str:
    """Mirror letters in the alphabet."""
    return "".join(chr(ord("z") - (ord(letter) - ord("a"))) for letter in text)


def is_palindrome(text: Phrase) -> bool:
    """Tell whether letters read the same both ways."""
    letters = [letter.lower() for letter in text if letter.isalnum()]
    return letters == letters[::-1]


def are_anagrams(
    first: Annotated[str, choice("listen", "Dormitory", "ab", "a gentleman")],
    second: Annotated[str, choice("silent", "dirty room", "ba", "elegant man")],
) -> bool:
    """Tell whether two texts have the same letters."""

    def key(text: str) -> list[str]:
        return sorted(text.replace(" ", "").lower())

    return key(first) == key(second)


def group_anagrams(
    words: Annotated[list[str], choice(["eat", "tea", "tan", "ate"], ["a"], [], ["ab", "ba", "abc"])],
) -> list[list[str]]:
    """Group words with equal letters in order of appearance."""
    groups: dict[str, list[str]] = {}
    for word in words:
        groups.setdefault("".join(sorted(word)), []).append(word)
    return list(groups.values())


def slugify(title: Text) -> str:
    """Turn a title into a part of an address."""
    text = re.sub(r"[^a-z0-9]+", "-", title.lower())
    return text.strip("-")


def wrap_words(text: Sentence, width: Annotated[int, between(6, 16)]) -> list[str]:
    """Break a text into lines of limited width."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        elif line:
            line += " " + word
        else:
            line = word
    if line:
        lines.append(line)
    return lines


def parse_csv_line(line: CsvLine) -> list[str]:
    """Split a line at commas, minding quotes."""
    fields: list[str] = []
    field = ""
    quoted = False
    i = 0
    while i < len(line):
        sign = line[i]
        if quoted and sign == '"' and i + 1 < len(line) and line[i + 1] == '"':
            field += '"'
            i += 1
        elif sign == '"':
            quoted = not quoted
        elif sign == "," and not quoted:
            fields.append(field)
            field = ""
        else:
            field += sign
        i += 1
    fields.append(field)
    return fields


def compare_versions(first: Version, second: Version) -> int:
    """Return -1, 0 or 1 by which version is newer."""
    a = [int(part) for part in first.split(".")]
    b = [int(part) for part in second.split(".")]
    length = max(len(a), len(b))
    a += [0] * (length - len(a))
    b += [0] * (length - len(b))
    if a == b:
        return 0
    return 1 if a > b else -1


def balanced(text: Brackets) -> bool:
    """Tell whether brackets match."""
    pairs = {")": "(", "]": "[", "}": "{"}
    stack: list[str] = []
    for sign in text:
        if sign in "([{":
            stack.append(sign)
        elif sign in pairs:
            if not stack or stack.pop() != pairs[sign]:
                return False
    return not stack


def edit_distance(a: Word, b: Word) -> int:
    """Return the Levenshtein distance."""
    previous = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        current = [i]
        for j, y in enumerate(b, 1):
            cost = 0 if x == y else 1
            current.append(min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost))
        previous = current
    return previous[-1]


def hamming(a: Word, b: Word) -> int:
    """Count the places where two words differ; longer rests count too."""
    shared = sum(1 for x, y in zip(a, b, strict=False) if x != y)
    return shared + abs(len(a) - len(b))


def common_prefix(words: SomeWords) -> str:
    """Return the longest start that all words share."""
    prefix = words[0]
    for word in words[1:]:
        while not word.startswith(prefix):
            prefix = prefix[:-1]
    return prefix


def longest_common_subsequence(a: Word, b: Word) -> int:
    """Return the length of the longest common subsequence."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a)):
        for j in range(len(b)):
            if a[i] == b[j]:
                table[i + 1][j + 1] = table[i][j] + 1
            else:
                table[i + 1][j + 1] = max(table[i][j + 1], table[i + 1][j])
    return table[len(a)][len(b)]


def to_snake(name: Camel) -> str:
    """Turn camel case into snake case."""
    result = ""
    for i, letter in enumerate(name):
        if letter.isupper() and i > 0 and not name[i - 1].isupper():
            result += "_"
        result += letter.lower()
    return result


def to_camel(name: Annotated[str, choice("snake_case", "a_b_c", "one", "get_http_code", "_private")]) -> str:
    """Turn snake case into camel case."""
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def pig_latin(word: Word) -> str:
    """Move leading consonants to the end and add ay."""
    for i, letter in enumerate(word):
        if letter in "aeiou":
            if i == 0:
                return word + "way"
            return word[i:] + word[:i] + "ay"
    return word + "ay"


def acronym(phrase: Sentence) -> str:
    """Return the initials in capitals."""
    return "".join(word[0].upper() for word in phrase.split())


def initials(first: Name, last: Name) -> str:
    """Return initials with dots."""
    return f"{first[0]}.{last[0]}."


def morse(text: Annotated[str, choice("sos", "eat", "tim", "a", "set it")]) -> str:
    """Write a text in Morse code."""
    codes = {"s": "...", "o": "---", "e": ".", "a": ".-", "t": "-", "i": "..", "m": "--"}
    words = [" ".join(codes[letter] for letter in word) for word in text.split()]
    return " / ".join(words)


def parse_query(query: Query) -> dict[str, str]:
    """Read the query part of an address; the last value counts."""
    result: dict[str, str] = {}
    for part in query.split("&"):
        if not part:
            continue
        key, _, value = part.partition("=")
        result[key] = value
    return result


def parse_settings(text: Ini) -> dict[str, str]:
    """Read lines of key=value; skip comments."""
    settings: dict[str, str] = {}
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#") or "=" not in line:
            continue
        key, value = line.split("=", 1)
        settings[key.strip()] = value.strip()
    return settings


def hex_to_rgb(color: Hex) -> tuple[int, int, int]:
    """Read a colour."""
    digits = color.lstrip("#")
    return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def ip_to_int(address: Address) -> int:
    """Turn an address into one number."""
    result = 0
    for part in address.split("."):
        result = result * 256 + int(part)
    return result


def valid_email(address: Mail) -> bool:
    """Check the shape of a mail address."""
    if address.count("@") != 1:
        return False
    name, domain = address.split("@")
    return bool(name) and "." in domain and not domain.startswith(".")


def password_score(password: Password) -> int:
    """Score a password from 0 to 4."""
    score = 0
    if len(password) >= 8:
        score += 1
    if any(c.isdigit() for c in password):
        score += 1
    if any(c.islower() for c in password) and any(c.isupper() for c in password):
        score += 1
    if any(not c.isalnum() for c in password):
        score += 1
    return score


def parse_duration(text: Duration) -> int:
    """Return the seconds of a text such as 1h30m."""
    units = {"h": 3600, "m": 60, "s": 1}
    total = 0
    number = 0
    for sign in text:
        if sign.isdigit():
            number = number * 10 + int(sign)
        else:
            total += number * units[sign]
            number = 0
    return total


def format_duration(seconds: Big) -> str:
    """Write seconds as H:MM:SS."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def human_size(size: Annotated[int, choice(0, 500, 1024, 1536, 10240, 1048576, 3000000)]) -> str:
    """Write a number of bytes with a unit."""
    value = float(size)
    for unit in ["B", "KB", "MB"]:
        if value < 1024 or unit == "MB":
            return f"{value:.1f} {unit}"
        value /= 1024
    return "big"


def evaluate_rpn(expression: Rpn) -> int:
    """Evaluate reverse Polish notation."""
    stack: list[int] = []
    for token in expression.split():
        if token in ("+", "-", "*", "/"):
            b = stack.pop()
            a = stack.pop()
            if token == "+":
                stack.append(a + b)
            elif token == "-":
                stack.append(a - b)
            elif token == "*":
                stack.append(a * b)
            else:
                stack.append(a // b)
        else:
            stack.append(int(token))
    return stack[-1]


def normalize_path(path: Path) -> str:
    """Resolve dots in an absolute path."""
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if parts:
                parts.pop()
        else:
            parts.append(part)
    return "/" + "/".join(parts)


def file_extension(
    name: Annotated[str, choice("a.txt", "archive.tar.gz", "README", ".bashrc", "x.", "b.PY")],
) -> str:
    """Return the lower-case extension."""
    base, dot, extension = name.rpartition(".")
    if not dot or not base:
        return ""
    return extension.lower()


def mask_number(number: Annotated[str, choice("1234567890", "123", "4111111111111111", "")]) -> str:
    """Hide all but the last four digits."""
    if len(number) <= 4:
        return number
    return "*" * (len(number) - 4) + number[-4:]


def truncate(text: Text, width: Annotated[int, between(3, 10)]) -> str:
    """Shorten a text and show dots."""
    if len(text) <= width:
        return text
    return text[: width - 3] + "..."


def format_phone(digits: Annotated[str, choice("5551234567", "123", "15551234567", "0000000000")]) -> str:
    """Group the digits of a phone number."""
    if len(digits) != 10:
        return digits
    return f"({digits[:3]}) {digits[3:6]}-{digits[6:]}"


def thousands(number: Annotated[int, choice(0, 12, 999, 1000, 1234567, -4500, 100000)]) -> str:
    """Write a number with commas."""
    sign = "-" if number < 0 else ""
    text = str(abs(number))
    groups: list[str] = []
    while len(text) > 3:
        groups.insert(0, text[-3:])
        text = text[:-3]
    groups.insert(0, text)
    return sign + ",".join(groups)


def most_common_word(text: Sentence) -> str:
    """Return the most frequent word, the first in the alphabet of several."""
    counts: dict[str, int] = {}
    for word in text.split():
        counts[word] = counts.get(word, 0) + 1
    return min(counts, key=lambda word: (-counts[word], word))


def remove_duplicate_letters(text: Text) -> str:
    """Keep the first of each letter."""
    seen = ""
    for letter in text:
        if letter not in seen:
            seen += letter
    return seen


def heading_level(
    line: Annotated[str, choice("# A", "## B c", "text", "####### x", "#no", "### Deep")],
) -> int:
    """Return the level of a Markdown heading, 0 if it is none."""
    level = len(line) - len(line.lstrip("#"))
    if 1 <= level <= 6 and line[level : level + 1] == " ":
        return level
    return 0


def escape_html(text: Annotated[str, choice("a<b", "x & y", "<p>&</p>", "plain", "1 > 0")]) -> str:
    """Replace signs that mean something in HTML."""
    for old, new in [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")]:
        text = text.replace(old, new)
    return text


def indent_block(text: Lines, spaces: Annotated[int, between(1, 4)]) -> str:
    """Indent each line that is not empty."""
    pad = " " * spaces
    return "\n".join(pad + line if line.strip() else line for line in text.split("\n"))


def number_lines(lines: Words, start: Count = 1) -> list[str]:
    """Put numbers before lines."""
    width = len(str(start + len(lines)))
    return [f"{number:>{width}} {line}" for number, line in enumerate(lines, start)]


def columns(words: Words, per_row: Annotated[int, between(1, 3)]) -> list[str]:
    """Join words to rows."""
    return [" | ".join(words[i : i + per_row]) for i in range(0, len(words), per_row)]


def count_letter_runs(
    text: Annotated[str, choice("aabbb", "abc", "", "zz", "aaab", "xyxy")], letter: Char
) -> int:
    """Count the separate runs of a letter."""
    runs = 0
    previous = ""
    for current in text:
        if current == letter and previous != letter:
            runs += 1
        previous = current
    return runs


def ordinal(n: Positive) -> str:
    """Write a number with its English ending."""
    if 10 <= n % 100 <= 20:
        return f"{n}th"
    return str(n) + {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
