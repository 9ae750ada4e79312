from __future__ import annotations

import pytest
import torch

from dsv4agent.engine.kernels import kv_rows
from dsv4agent.engine.kernels.kv_rows import HEAD_DIM, INDEX_DIM, Places, RowBlocks
from dsv4agent.engine.model.precision import OfficialPrecision
from dsv4agent.engine.model.rope import frequencies

EPS = 1e-6


def spread(rows: int, width: int, device: torch.device, generator: torch.Generator) -> torch.Tensor:
    """Rows whose blocks differ by many powers of two, with zeros among them."""
    x = torch.randn(rows, width, generator=generator, device=device)
    x *= torch.exp2(
        torch.randint(-24, 9, (rows, width // 32), generator=generator, device=device)
    ).repeat_interleave(32, 1)
    x[:, ::37] = 0.0
    return x


def test_packing_attention_rows_loses_nothing(device: torch.device, generator: torch.Generator) -> None:
    rows = OfficialPrecision().cache_row(spread(40, HEAD_DIM, device, generator).bfloat16().float(), 64)
    packed = kv_rows.pack_rows(rows)
    assert packed.shape == (40, 584)
    assert torch.equal(kv_rows.unpack_rows(packed), rows)
    assert torch.equal(kv_rows.pack_rows(kv_rows.unpack_rows(packed)), packed)


def test_packing_index_rows_loses_nothing(device: torch.device, generator: torch.Generator) -> None:
    rows = OfficialPrecision().index_row(spread(40, INDEX_DIM, device, generator))
    packed = kv_rows.pack_index_rows(rows)
    assert packed.shape == (40, 68)
    assert torch.equal(kv_rows.unpack_index_rows(packed), rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_finished_and_written_to_their_slots(
    dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> None:
    places = Places.of([(1, 250, 9), (0, 3, 1)], device)
    x = torch.randn(10, 700, generator=generator, device=device).to(dtype)
    weight = 1.0 + 0.1 * torch.randn(HEAD_DIM, generator=generator, device=device)
    rotations = kv_rows.rotation_rows(frequencies(64, 10000.0, None).to(device), places.positions)
    ring = RowBlocks.ring(2, 256, device)
    kv_rows.write_rows(x[:, 100:612], weight, rotations, places, ring, eps=EPS)
    found = torch.cat((ring.gather(1, 250, 6), ring.gather(1, 0, 3), ring.gather(0, 3, 1)))
    expected = kv_rows.write_rows_reference(x[:, 100:612], weight, rotations, EPS)
    # The order of one sum may differ, and then some value at a border rounds to its neighbour.
    assert (found != expected).float().mean() < 2e-3
    torch.testing.assert_close(
        kv_rows.unpack_rows(found), kv_rows.unpack_rows(expected), rtol=0.13, atol=1e-3
    )
    untouched = torch.cat((ring.gather(1, 3, 247), ring.gather(0, 0, 3), ring.gather(0, 4, 252)))
    assert not untouched.any()


def test_written_rows_are_what_the_official_path_rounds_to(
    device: torch.device, generator: torch.Generator
) -> None:
    places = Places.of([(0, 0, 12)], device)
    x = spread(12, HEAD_DIM, device, generator)
    rotations = kv_rows.rotation_rows(frequencies(64, 10000.0, None).to(device), places.positions)
    ring = RowBlocks.ring(1, 256, device)
    kv_rows.write_rows(x, torch.ones(HEAD_DIM, device=device), rotations, places, ring, eps=EPS)
    packed = ring.gather(0, 0, 12)
    rows = kv_rows.unpack_rows(packed)
    assert torch.equal(OfficialPrecision().cache_row(rows, 64), rows)
    # Scales follow from the unrounded row, so packing anew may only choose a smaller one, never other values.
    assert torch.equal(kv_rows.unpack_rows(kv_rows.pack_rows(rows)), rows)


def test_bits_of_a_row_do_not_depend_on_the_others(device: torch.device, generator: torch.Generator) -> None:
    x = torch.randn(7, HEAD_DIM, generator=generator, device=device)
    weight = torch.randn(HEAD_DIM, generator=generator, device=device)
    table = kv_rows.rotation_rows(frequencies(64, 10000.0, None).to(device), torch.arange(7, device=device))
    whole, single = RowBlocks.ring(1, 256, device), RowBlocks.ring(1, 256, device)
    kv_rows.write_rows(x, weight, table, Places.of([(0, 0, 7)], device), whole, eps=EPS)
    for i in range(7):
        kv_rows.write_rows(
            x[i : i + 1], weight, table[i : i + 1], Places.of([(0, i, 1)], device), single, eps=EPS
        )
    assert torch.equal(whole.bytes, single.bytes)
    assert whole.bytes.any()


def test_a_step_that_would_overwrite_the_window_is_refused(device: torch.device) -> None:
    x = torch.zeros(2, HEAD_DIM, device=device)
    ring = RowBlocks.ring(1, 128, device)
    with pytest.raises(AssertionError, match="overwrite"):
        kv_rows.write_rows(
            x, x[0], torch.zeros(2, 32, 2, device=device), Places.of([(0, 0, 2)], device), ring, eps=EPS
        )


@pytest.mark.parametrize("heads", [3, 8])
def test_queries_round_like_the_official_path(
    heads: int, device: torch.device, generator: torch.Generator
) -> None:
    x = 3.0 * torch.randn(4, heads * HEAD_DIM + 64, generator=generator, device=device)
    rotations = kv_rows.rotation_rows(
        frequencies(64, 10000.0, None).to(device), torch.tensor([0, 1, 900, 100_000], device=device)
    )
    found = kv_rows.finish_queries(x, heads, rotations, eps=EPS).float()
    expected = kv_rows.finish_queries_reference(x, heads, rotations, EPS)
    assert (found != expected).float().mean() < 1e-2
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-3)
    alone = kv_rows.finish_queries(x[2:3], heads, rotations[2:3], eps=EPS).float()
    assert torch.equal(alone, found[2:3])
