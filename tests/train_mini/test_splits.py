from __future__ import annotations

import ast
from pathlib import Path
from random import Random

import pytest

from examples.train_mini.harvest import for_evaluation_only
from examples.train_mini.library import load_bank
from examples.train_mini.mix import MIX, REFINING_MIX, draw_pool
from examples.train_mini.pools import KNOWN, UNSEEN, draw_subject
from examples.train_mini.splits import EVALUATION_SETS, evaluation_repository, training_repository
from examples.train_mini.subjects import draw_cases, shape_of
from examples.train_mini.templates import Template, templates_of


def own_shape(template: Template) -> str:
    parts = template.plain.split("\n\n\n")
    return shape_of(
        next(p for p in parts if p.startswith((f"def {template.name}(", f"class {template.name}")))
    )


def test_no_unseen_function_is_a_training_function() -> None:
    known, unseen = templates_of(KNOWN), templates_of(UNSEEN)
    assert len(unseen) >= 130
    assert {t.name for t in known}.isdisjoint(t.name for t in unseen)
    assert {own_shape(t) for t in known}.isdisjoint(own_shape(t) for t in unseen)


def test_training_never_draws_from_evaluation_pools() -> None:
    for mix in (MIX, REFINING_MIX):
        assert sum(mix.values()) == pytest.approx(1) and set(mix) == {"library", "program", "known"}
        rng = Random(1)
        assert {draw_pool(rng, mix) for _ in range(200)} == set(mix)


def test_the_bank_keeps_functions_for_evaluation_apart(library_bank: Path) -> None:
    entries = load_bank(library_bank)
    assert len(entries) >= 20
    for entry in entries:
        assert entry.evaluation == for_evaluation_only(entry.key)
    shapes = {shape_of(e.source) for e in entries if e.evaluation}
    assert shapes.isdisjoint(shape_of(e.source) for e in entries if not e.evaluation)


def test_evaluation_repositories_are_fixed_and_of_their_pool(library_bank: Path) -> None:
    for name, chosen in EVALUATION_SETS.items():
        for index in range(3):
            repository = evaluation_repository(name, index)
            assert repository == evaluation_repository(name, index)
            assert repository.pool == chosen.pool
            prefix = {"known": "known.", "unseen": "unseen.", "library": "library."}[name]
            assert repository.key.startswith(prefix)
    assert training_repository(3) == training_repository(3)


def test_almost_every_template_gives_tests_with_different_values() -> None:
    rng = Random("templates")
    weak: list[str] = []
    for template in (*templates_of(KNOWN), *templates_of(UNSEEN)):
        found: set[str | None] = set()
        for _ in range(6):
            subject = template.subject(rng)
            ast.parse(subject.source)
            found |= {case.expected for case in draw_cases(subject, rng, 6)}
        if len(found) < 2:
            weak.append(template.key)
    assert len(weak) <= 5, weak


def test_programs_give_tests() -> None:
    rng = Random("programs")
    weak = 0
    for _ in range(200):
        subject = draw_subject(rng, "program")
        weak += len({case.expected for case in draw_cases(subject, rng, 6, errors=False)}) < 2
    assert weak < 20
