from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dsv4agent.engine.config import Yarn
from dsv4agent.engine.kernels import kv_rows
from dsv4agent.engine.kernels.compressor import RawRows, compress, compress_reference
from dsv4agent.engine.kernels.kv_rows import HEAD_DIM, INDEX_DIM, Places, RowBlocks
from dsv4agent.engine.model.rope import frequencies

EPS = 1e-6
KINDS = [(4, HEAD_DIM), (4, INDEX_DIM), (128, HEAD_DIM)]


@dataclass
class Compressed:
    """One sequence's raw rows, with somewhere to put its entries."""

    raw: Tensor
    ape: Tensor
    weight: Tensor
    ratio: int

    @classmethod
    def random(cls, tokens: int, ratio: int, dim: int, generator: torch.Generator) -> Compressed:
        series = 2 if ratio == 4 else 1

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=generator.device)

        return cls(draw(tokens, 2 * series * dim), draw(ratio, series * dim), 1.0 + 0.1 * draw(dim), ratio)

    @property
    def f(self) -> Tensor:
        return frequencies(64, 160000.0, Yarn(16, 65536, 32, 1)).to(self.raw.device)

    def step(self, start: int, count: int, state: RawRows, pages: RowBlocks, sequence: int = 0) -> None:
        places = Places.of([(sequence, start, count)], self.raw.device)
        rotations = kv_rows.rotation_rows(self.f, places.positions // self.ratio * self.ratio)
        rows = self.raw[start : start + count]
        compress(rows, self.ape, self.weight, rotations, places, state, pages, eps=EPS)

    def fresh(self, sequences: int = 1) -> tuple[RawRows, RowBlocks]:
        device, dim = self.raw.device, self.weight.shape[0]
        # Pages stand in no order.
        table = torch.tensor([[3, 1, 2], [5, 0, 4]], dtype=torch.int32, device=device)[:sequences]
        pages = RowBlocks.pages(6, self.ratio, table, index=dim == INDEX_DIM)
        return RawRows.zeros(sequences, self.ratio, dim, device, rewind=8), pages

    def reference(self) -> Tensor:
        groups = self.raw.shape[0] // self.ratio
        rotations = kv_rows.rotation_rows(self.f, torch.arange(groups, device=self.raw.device) * self.ratio)
        return compress_reference(self.raw, self.ape, self.weight, rotations, self.ratio, EPS)


@pytest.mark.parametrize(("ratio", "dim"), KINDS)
def test_entries_are_those_of_the_model(ratio: int, dim: int, generator: torch.Generator) -> None:
    case = Compressed.random(3 * ratio + 2 if ratio == 128 else 50, ratio, dim, generator)
    state, pages = case.fresh()
    case.step(0, case.raw.shape[0], state, pages)
    expected = case.reference()
    found = pages.gather(0, 0, expected.shape[0])
    unpack = kv_rows.unpack_index_rows if dim == INDEX_DIM else kv_rows.unpack_rows
    # Exponentials differ by a unit in the last place, and then a value at a border rounds to its neighbour.
    assert (found != expected).float().mean() < 0.01
    torch.testing.assert_close(
        unpack(found), unpack(expected), rtol=0.13, atol=0.3 if dim == INDEX_DIM else 0.02
    )
    assert not pages.gather(0, expected.shape[0], 1).any()


@pytest.mark.parametrize(("ratio", "dim"), KINDS)
def test_bits_do_not_depend_on_cuts(ratio: int, dim: int, generator: torch.Generator) -> None:
    tokens = 260 if ratio == 128 else 40
    case = Compressed.random(tokens, ratio, dim, generator)
    state, pages = case.fresh()
    case.step(0, tokens, state, pages)
    assert pages.bytes.any()
    cuts = [0, 5, 6, 133, 255, 256, 257, 260] if ratio == 128 else [*range(10), 12, 25, 39, 40]
    state, cut = case.fresh()
    for start, end in pairwise(cuts):
        case.step(start, end - start, state, cut)
    assert torch.equal(pages.bytes, cut.bytes)


def test_a_sequence_goes_back_and_takes_another_way(generator: torch.Generator) -> None:
    case = Compressed.random(24, 4, HEAD_DIM, generator)
    state, pages = case.fresh()
    case.step(0, 24, state, pages)
    other_state, other = case.fresh()
    wrong = Compressed(torch.randn_like(case.raw), case.ape, case.weight, 4)
    case.step(0, 14, other_state, other)
    wrong.step(14, 6, other_state, other)
    case.step(14, 10, other_state, other)
    assert torch.equal(pages.bytes, other.bytes)


def test_sequences_of_one_step_do_not_meet(generator: torch.Generator) -> None:
    one, two = (Compressed.random(21, 4, INDEX_DIM, generator) for _ in range(2))
    two.ape, two.weight = one.ape, one.weight
    apart_state, apart = one.fresh(2)
    one.step(0, 21, apart_state, apart, 0)
    two.step(0, 13, apart_state, apart, 1)
    state, pages = one.fresh(2)
    one.step(0, 3, state, pages, 0)
    places = Places.of([(1, 0, 13), (0, 3, 18)], one.raw.device)
    rotations = kv_rows.rotation_rows(one.f, places.positions // 4 * 4)
    both = torch.cat((two.raw[:13], one.raw[3:]))
    compress(both, one.ape, one.weight, rotations, places, state, pages, eps=EPS)
    assert torch.equal(apart.bytes, pages.bytes)
    assert torch.equal(apart_state.rows, state.rows)
