"""Row tiles: how many rows a matrix product is fed, so that a row's bits do not depend on its neighbours.

A library chooses another kernel, with another order of additions, for another number of rows. Chunks are
therefore padded to a few tile sizes (a power of two times the smallest), and a probe at load finds the
smallest size from which on all tile sizes give a row the same bits. Products for which a machine has no such
size are computed in slices of one fixed size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import torch
from torch import Tensor

from dsv4agent.engine.config import BLOCK
from dsv4agent.engine.ops.packed import PackedMatrix

_CANDIDATES = (2, 4, 8)


class Tiling:
    """The tile rule of one engine; `calibrate` fits it to the machine once the weights' shapes are known.

    Attributes:
        rows: Smallest tile; every tile has `rows * 2**k` rows, at most 128.
        sliced: Shapes [k, n] whose products are computed in slices, with the rows of a slice.
        single: Whether a lone token may be a tile of one row: all its products are packed, or get several
            rows, one per head.
        values_as_keys: Whether attention may take the stored values, seen transposed, as keys. Otherwise it
            needs a copy of them that is laid out as keys, and reads twice the memory.
    """

    def __init__(self) -> None:
        self.rows = _CANDIDATES[0]
        self.sliced: dict[tuple[int, int], int] = {}
        self.single = False
        self.values_as_keys = False

    def size(self, count: int) -> int:
        """Return the rows of the smallest tile that holds `count` tokens."""
        if count == 1 and self.single:
            return 1
        size = self.rows
        while size < count:
            size *= 2
        return size

    def matmul(self, x: Tensor, w: Tensor | PackedMatrix, out: Tensor | None = None) -> Tensor:
        """Return x [m, k] @ w [k, n]; `m` is a tile size or a fixed multiple of one.

        Into `out`, if given; contiguous for a packed matrix.
        """
        if isinstance(w, PackedMatrix):
            return w.multiply(x, out)
        if self.sliced and (rows := self.sliced.get((w.shape[0], w.shape[1]))):
            result = x.new_empty(x.shape[0], w.shape[1]) if out is None else out
            for start in range(0, x.shape[0], rows):
                # A library's bits may depend on how rows lie in memory: copies all lie alike.
                result[start : start + rows] = torch.mm(x[start : start + rows].clone(), w)
            return result
        return torch.mm(x, w) if out is None else torch.mm(x, w, out=out)

    def addmm_(self, total: Tensor, x: Tensor, w: Tensor) -> Tensor:
        """Add x [m, k] @ w [k, n] to `total` [m, n] in place."""
        if self.sliced and (rows := self.sliced.get((w.shape[0], w.shape[1]))):
            for start in range(0, x.shape[0], rows):
                part = total[start : start + rows].clone()
                total[start : start + rows] = part.addmm_(x[start : start + rows].clone(), w)
            return total
        return total.addmm_(x, w)

    def calibrate(
        self,
        shapes: Mapping[tuple[int, int], Set[int]],
        *,
        device: torch.device,
        key_shapes: Iterable[tuple[int, int]] = (),
    ) -> None:
        """Find the rule for plain products on this machine, with the current thread count.

        Bits depend on shapes, not on values, so random data stands for all data. GPU kernels are not probed:
        no equality of bits is promised there, and the smallest tile is taken.

        Args:
            shapes: [k, n] of each product, with the numbers of rows that one token gives it (its heads, or
                one).
            device: Where they are computed.
            key_shapes: Those of the products with keys.
        """
        if device.type != "cpu":
            return
        generator = torch.Generator().manual_seed(0)
        found: dict[tuple[int, int], int | None] = {
            shape: _smallest_tile(shape, rows, generator) for shape, rows in sorted(shapes.items())
        }
        self.rows = max((rows for rows in found.values() if rows is not None), default=_CANDIDATES[0])
        self.sliced = {
            shape: _slice_rows(shape, self.rows, generator) for shape, rows in found.items() if rows is None
        }
        self.single = not self.sliced and all(
            count % self.rows == 0 for rows in shapes.values() for count in rows
        )
        sizes = (1, *(self.rows << power for power in range(8) if self.rows << power <= BLOCK))
        self.values_as_keys = not self.sliced and all(
            _transposed_agrees(
                shape,
                [size * rows for size in sizes for rows in shapes[shape] if size * rows % self.rows == 0],
                generator,
            )
            for shape in sorted(set(key_shapes))
        )


def _smallest_tile(shape: tuple[int, int], per_token: Set[int], generator: torch.Generator) -> int | None:
    """Return the smallest candidate from which on all tile sizes agree, or None."""
    k, n = shape
    x = torch.randn(BLOCK, k, generator=generator)
    w = torch.randn(k, n, generator=generator)
    whole = x @ w
    # Attention feeds several rows per token: as many more rows must not change the bits either.
    most = max(per_token)
    many = x.repeat(most, 1)
    expected = whole.repeat(most, 1)
    if not torch.equal(many @ w, expected):
        return None
    for rows in _CANDIDATES:
        sizes = [rows << power for power in range(8) if rows << power < BLOCK]
        counts = [size * count for size in (1, *sizes) for count in per_token if size * count % rows == 0]
        if all(
            torch.equal(x[start : start + size] @ w, whole[start : start + size])
            for size in sizes
            # Also odd ones: a library may treat the rows of a tile by turns.
            for start in (0, 1, 2, 3, size, BLOCK - size - 1, BLOCK - size)
            if 0 <= start <= BLOCK - size
        ) and all(torch.equal(many[:count] @ w, expected[:count]) for count in counts):
            return rows
    return None


def _transposed_agrees(shape: tuple[int, int], counts: list[int], generator: torch.Generator) -> bool:
    """Return whether products with transposed rows [n, k] give a row the same bits for all `counts`."""
    k, n = shape
    x = torch.randn(max(counts), k, generator=generator)
    keys = torch.randn(n, k, generator=generator).t()
    whole = x @ keys
    return all(
        torch.equal(x[start : start + count] @ keys, whole[start : start + count])
        for count in counts
        for start in (0, 1, 2, max(counts) - count)
        if start <= max(counts) - count
    )


def _slice_rows(shape: tuple[int, int], rows: int, generator: torch.Generator) -> int:
    """Return `rows` if a row's bits in such a slice depend neither on place nor on other rows, else 1."""
    k, n = shape
    x = torch.randn(rows, k, generator=generator)
    w = torch.randn(k, n, generator=generator)
    base = x @ w
    other = torch.randn(rows, k, generator=generator)
    other[0] = x[0]
    if torch.equal(torch.roll(base, 1, 0), torch.roll(x, 1, 0) @ w) and torch.equal((other @ w)[0], base[0]):
        return rows
    return 1
