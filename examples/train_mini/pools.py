"""Where functions come from: templates, random programs, libraries, and the kinds kept for evaluation."""

from __future__ import annotations

from random import Random

from examples.train_mini.library import UNSEEN, library_subject
from examples.train_mini.programs import random_program
from examples.train_mini.subjects import Subject
from examples.train_mini.templates import templates_of

POOLS = ("known", "program", "library", "unseen", "library_unseen")
KNOWN = "examples.train_mini.known"


def draw_subject(rng: Random, pool: str) -> Subject:
    """Draw one function or class of a pool.

    Raises:
        MissingBank: The pool is `library` or `library_unseen` and the bank was not made yet.
        ValueError: There is no such pool.
    """
    if pool == "program":
        return random_program(rng)
    if pool == "known":
        return rng.choice(templates_of(KNOWN)).subject(rng)
    if pool == "unseen":
        return rng.choice(templates_of(UNSEEN)).subject(rng, vary=rng.random() < 0.5)
    if pool in ("library", "library_unseen"):
        return library_subject(rng, evaluation=pool == "library_unseen")
    raise ValueError(f"{pool!r} is no pool; choose one of {', '.join(POOLS)}")
