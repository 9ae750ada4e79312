"""What the tests of the runner compare, and with what."""

from __future__ import annotations

import torch
from torch import Tensor

from dsv4agent.engine.ops.lists import integers
from dsv4agent.engine.ops.norms import row_norms


def same(found: Tensor, expected: Tensor) -> bool:
    """Whether bits are equal; in the interpreter, whose products add by the shape of a tile, nearly equal."""
    if torch.cuda.is_available():
        return torch.equal(found, expected)
    return bool((row_norms(found - expected) < 0.02 * row_norms(expected)).all())


def tokens(seed: int, count: int) -> list[int]:
    """Return random token ids of the small model."""
    generator = torch.Generator().manual_seed(seed)
    return integers(torch.randint(0, 96, (count,), generator=generator))
