from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsv4agent.engine import Engine
from dsv4agent.engine.ops.packed import PackedMatrix, pack
from dsv4agent.engine.weights import mini_config, write_random_checkpoint
from tests.engine.test_bits import draw_ids


def packed(matrix: torch.Tensor) -> PackedMatrix:
    result = pack(matrix)
    if result is None:
        pytest.skip("this build of torch has no products with float16 weights")
    return result


def random_matrix(k: int, n: int, kind: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(k + n)
    return (torch.randn(k, n, generator=generator) * 0.02).to(kind).to(torch.float32)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize(("k", "n"), [(384, 512), (192, 768), (100, 77)])
def test_no_weight_is_changed(kind: torch.dtype, k: int, n: int) -> None:
    matrix = random_matrix(k, n, kind)
    matrix[0, 0] = 2.0**-22
    assert torch.equal(packed(matrix).multiply(torch.eye(k)), matrix)


def test_a_row_does_not_see_how_many_there_are() -> None:
    matrix = packed(random_matrix(384, 920, torch.bfloat16))
    x = torch.randn(128, 384, generator=torch.Generator().manual_seed(1))
    whole = matrix.multiply(x)
    for rows in range(1, 128):
        assert torch.equal(matrix.multiply(x[128 - rows :]), whole[128 - rows :]), rows
    out = torch.empty(2, 920)
    assert matrix.multiply(x[:2], out) is out and torch.equal(out, whole[:2])
    with pytest.raises(AssertionError):
        matrix.multiply(x[:2], torch.empty(2, 1840)[:, :920])


def test_what_float16_cannot_hold_is_left_alone() -> None:
    assert pack(torch.randn(384, 512, generator=torch.Generator().manual_seed(0))) is None
    wide = random_matrix(384, 512, torch.bfloat16)
    wide[0, 0], wide[0, 1] = 2.0**30, 2.0**-30
    assert pack(wide) is None
    assert pack(torch.ones(8, 8)) is None, "too small to gain"


def test_the_layout_of_keys_changes_no_bit_between_cuts(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, mini_config(sliding_window=128, index_topk=96))
    ids = draw_ids(420, 2048)
    with Engine.load(tmp_path, device="cpu", threads=1) as engine:
        results: list[torch.Tensor] = []
        for layout in {engine.reference.tiling.values_as_keys, False}:
            engine.reference.tiling.values_as_keys = layout
            results.append(engine.logits(ids))
            assert torch.equal(engine.logits(ids, [1, 50, 129, *range(384, 420)]), results[-1])
    assert torch.allclose(results[0], results[-1], atol=1e-4)
