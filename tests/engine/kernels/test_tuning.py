from __future__ import annotations

import pytest

from dsv4agent.engine.kernels import tuning
from dsv4agent.engine.kernels.trial_shapes import FLASH, PRO, ModelShape


@pytest.mark.parametrize("model", [FLASH, PRO])
def test_every_part_of_a_real_sum_has_work(model: ModelShape) -> None:
    shapes = [
        (model.query_rank + 512, model.hidden),
        (model.query_width, model.query_rank),
        (model.hidden, model.groups * model.group_rank),
        (2 * model.width, model.hidden),
        (model.experts, model.hidden),
        (64, model.hidden),
    ]
    for n, k in shapes:
        steps = k // tuning.BLOCK
        splits = tuning.linear_splits(n, k)
        longest = -(-steps // splits)
        assert steps > (splits - 1) * longest, (n, k)


@pytest.mark.parametrize(("m", "tokens"), [(1, 16), (16, 16), (17, 32), (64, 64), (128, 64)])
def test_skinny_tiles_are_as_wide_as_they_must(m: int, tokens: int) -> None:
    assert tuning.skinny_tile(tuning.linear_plan(4096, 4096, 1), m, 1).tokens == tokens


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("shape", sorted({key[:2] for key in tuning.LINEAR_PLANS} | {(256, 4096)}))
def test_every_tile_fits_into_shared_memory(shape: tuple[int, int], size: int) -> None:
    plan = tuning.linear_plan(*shape, size)
    for tile in (plan.wide, *(tuning.skinny_tile(plan, m, size) for m in (1, 32, 128))):
        assert tile.stages >= 2 and tuning.pipeline_bytes(tile, size) <= 192 << 10


@pytest.mark.parametrize(("pairs", "tokens"), [(33 * 6, 16), (1024 * 6, 32), (4096 * 6, 128), (1 << 20, 128)])
def test_grouped_tiles_are_as_wide_as_experts_have_tokens(pairs: int, tokens: int) -> None:
    plan = tuning.ExpertPlan(grouped=tuning.Tile(64, 128, warps=4, stages=3))
    assert tuning.grouped_tile(plan, pairs, 256).tokens == tokens
