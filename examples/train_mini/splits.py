"""Which repositories are for evaluation: fixed sets, apart from training by function and by seed.

* `known`: functions of the kinds that training uses, with seeds that training never draws.
* `unseen`: functions and classes of `examples.train_mini.unseen`, of other kinds than any training template.
* `library`: functions of the standard library that the hash of their qualified name keeps out of training.

Training draws from integer seeds (`Random(7)`), evaluation from texts (`Random("evaluation:unseen:7")`); no
evaluation text is the seed of anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from examples.train_mini.mix import draw_pool
from examples.train_mini.repository import Repository, make_repository


@dataclass(frozen=True)
class EvaluationSet:
    """A set of repositories: `pool` gives the buggy function, indices run from 0 to `size` - 1."""

    name: str
    pool: str
    size: int


EVALUATION_SETS: Final = {
    "known": EvaluationSet("known", "known", 200),
    "unseen": EvaluationSet("unseen", "unseen", 200),
    "library": EvaluationSet("library", "library_unseen", 100),
}


def evaluation_repository(name: str, index: int) -> Repository:
    """Return repository `index` of an evaluation set, the same every time.

    Raises:
        KeyError: There is no such set.
        MissingBank: The set is `library` and the bank was not made on this machine yet.
    """
    chosen = EVALUATION_SETS[name]
    return make_repository(Random(f"evaluation:{name}:{index}"), chosen.pool)


def training_repository(index: int) -> Repository:
    """Return a repository of the training mix by number, for collecting the model's own runs."""
    rng = Random(f"training:{index}")
    return make_repository(rng, draw_pool(rng))
