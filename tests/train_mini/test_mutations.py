from __future__ import annotations

import ast

import pytest

from examples.train_mini.mutations import Family, mutants

SOURCE = '''def scan(values, limit=3, name="x"):
    """Return n < limit."""
    total = 0
    seen = []
    for i in range(len(values) - 1):
        if values[i] > limit and not values[i + 1]:
            total += values[i] * 2
            seen.append(max(i, limit))
        elif name in seen or limit == 4:
            total = total - limit
    return total, f"{limit}"
'''


def test_every_family_is_found_and_every_mutant_is_one_changed_line() -> None:
    found = mutants(SOURCE)
    assert {mutant.family for mutant in found} == set(Family)
    lines = SOURCE.split("\n")
    for mutant in found:
        assert lines[mutant.line] == mutant.old_line != mutant.new_line
        changed = mutant.apply(SOURCE).split("\n")
        assert [i for i, (a, b) in enumerate(zip(lines, changed, strict=True)) if a != b] == [mutant.line]


def test_docstrings_and_texts_with_fields_stay() -> None:
    for mutant in mutants(SOURCE):
        assert mutant.line != 1
        assert 'f"{limit}"' in mutant.new_line or mutant.line != 10 or mutant.new_line == "    return None"


def test_no_duplicates_and_the_same_order_every_time() -> None:
    found = mutants(SOURCE)
    assert len({(m.line, m.new_line) for m in found}) == len(found)
    assert mutants(SOURCE) == found


@pytest.mark.parametrize(
    "line",
    [
        "return a < b",
        "return a + b",
        "return a and b",
        "return a[0]",
        "return max(a, b)",
        "return a.lower()",
        "return a in b",
    ],
)
def test_the_mutants_of_a_mutant_hold_the_repair(line: str) -> None:
    source = f"def f(a, b):\n    {line}\n"
    families = {
        Family.COMPARISON,
        Family.ARITHMETIC,
        Family.BOOLEAN,
        Family.METHOD,
        Family.INVERTED,
        Family.VARIABLE,
    }
    tables = [m for m in mutants(source) if m.family in families and len(m.new_line) - len(m.old_line) > -4]
    assert tables
    for mutant in tables:
        bad = mutant.apply(source)
        if "not (" in bad or "not a" in bad or "not b" in bad:
            continue
        assert source in [again.apply(bad) for again in mutants(bad)], mutant


def test_most_mutants_parse() -> None:
    found = mutants(SOURCE)
    broken = 0
    for mutant in found:
        try:
            ast.parse(mutant.apply(SOURCE))
        except SyntaxError:
            broken += 1
    assert broken <= len(found) // 20


def test_source_that_does_not_parse_has_no_mutants() -> None:
    assert mutants("def f(:\n") == []
