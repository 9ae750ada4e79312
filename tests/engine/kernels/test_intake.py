from __future__ import annotations

import pytest
import torch

from dsv4agent.engine.kernels import kv_rows
from dsv4agent.engine.kernels.compressor import RawRows, compress
from dsv4agent.engine.kernels.intake import Compression, take_in
from dsv4agent.engine.kernels.kv_rows import HEAD_DIM, INDEX_DIM, Places, RowBlocks
from dsv4agent.engine.model.rope import frequencies

EPS = 1e-6


@pytest.mark.parametrize(("ratio", "first", "count"), [(0, 5, 2), (4, 6, 6), (4, 0, 90), (128, 124, 5)])
def test_bits_are_those_of_separate_launches(
    ratio: int, first: int, count: int, device: torch.device, generator: torch.Generator
) -> None:
    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    places = Places.of([(0, first, count)], device)
    f = frequencies(64, 160000.0, None).to(device)
    rotations = kv_rows.rotation_rows(f, places.positions)
    group_rotations = kv_rows.rotation_rows(f, places.positions // max(ratio, 1) * ratio)
    x, weight = draw(count, HEAD_DIM), draw(HEAD_DIM)
    rings = [RowBlocks.ring(1, 256, device) for _ in range(2)]
    table = torch.tensor([[1, 0]], dtype=torch.int32, device=device)
    pairs: list[tuple[Compression, Compression]] = []
    for dim in {0: (), 4: (HEAD_DIM, INDEX_DIM), 128: (HEAD_DIM,)}[ratio]:
        width = (2 if ratio == 4 else 1) * dim
        raw, ape, norm = draw(count, 2 * width), draw(ratio, width), draw(dim)
        past = draw(1, RawRows.zeros(1, ratio, dim, device).rows.shape[1], 2 * width)
        one, two = (
            Compression(
                raw,
                ape,
                norm,
                RawRows(past.clone(), ratio),
                RowBlocks.pages(2, ratio, table, index=dim == INDEX_DIM),
            )
            for _ in range(2)
        )
        pairs.append((one, two))
    joined = [pair[0] for pair in pairs]
    take_in(x, weight, rotations, rings[0], joined, group_rotations, places, eps=EPS)
    kv_rows.write_rows(x, weight, rotations, places, rings[1], eps=EPS)
    assert rings[1].bytes.any()
    assert torch.equal(rings[0].bytes, rings[1].bytes)
    for one, two in pairs:
        compress(two.raw, two.ape, two.weight, group_rotations, places, two.state, two.entries, eps=EPS)
        assert two.entries.bytes.any()
        assert torch.equal(one.entries.bytes, two.entries.bytes)
        assert torch.equal(one.state.rows, two.state.rows)
