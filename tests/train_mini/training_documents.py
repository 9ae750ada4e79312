"""Documents with something to learn, for tests of the training: a repeated pattern after a marker."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Document:
    ids: NDArray[np.uint16]
    weight: NDArray[np.uint8]


def documents(seed: int) -> Iterator[Document]:
    """Yield documents of 20 to 300 tokens: the first half is environment, the second repeats it as the
    assistant.
    """
    rng = random.Random(seed)
    while True:
        half = [rng.randrange(3, 60) for _ in range(rng.randrange(10, 150))]
        ids = np.array([*half, *half], np.uint16)
        weight = np.array([1] * len(half) + [2] * len(half), np.uint8)
        yield Document(ids, weight)


def failing(seed: int) -> Iterator[Document]:
    """End at once."""
    return iter(())
