"""The Sylvester-Hadamard transform of the indexer's queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor


def hadamard_matrix(size: int) -> Tensor:
    """Return the orthonormal Sylvester matrix float32 [size, size], natural order.

    `size` is a power of two.
    """
    matrix = torch.ones(1, 1)
    while matrix.shape[0] < size:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)), 0)
    return matrix * size**-0.5
