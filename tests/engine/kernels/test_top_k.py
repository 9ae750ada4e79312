from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsv4agent.engine.kernels.attention_tuning import SelectPlan
from dsv4agent.engine.kernels.top_k import select_top_k, select_top_k_reference, sort_keys_reference

SMALL = SelectPlan(chunk=64, keys=32, warps=4)
WHOLE = SelectPlan(chunk=512, keys=32, warps=4)
"""One launch for a row, where `SMALL` has three."""


def select(scores: Tensor, visible: Tensor, k: int, plan: SelectPlan = SMALL) -> tuple[Tensor, Tensor]:
    ids = torch.full((scores.shape[0], k), 12345, dtype=torch.int32, device=scores.device)
    counts = torch.full_like(visible, 12345)
    select_top_k(sort_keys_reference(scores), visible - 1, 1, ids, counts, plan=plan)
    return ids, counts


def check(scores: Tensor, visible: list[int], k: int, *plans: SelectPlan) -> None:
    seen = torch.tensor(visible, dtype=torch.int32, device=scores.device)
    expected = select_top_k_reference(scores, seen, k)
    for plan in plans or (SMALL, WHOLE):
        found = select(scores, seen, k, plan)
        assert torch.equal(found[0], expected[0]), plan
        assert torch.equal(found[1], expected[1]), plan


def test_keys_sort_as_scores_do(device: torch.device) -> None:
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16, device=device)
    values = bits.view(torch.bfloat16).float()
    values = values[values.isfinite()].sort().values
    keys = sort_keys_reference(values).to(torch.int32) & 0xFFFF
    steps = keys.diff()
    assert torch.equal(steps > 0, values.diff() > 0)
    assert (steps >= 0).all()


@pytest.mark.parametrize("k", [1, 8, 40])
def test_the_largest_are_chosen(k: int, device: torch.device, generator: torch.Generator) -> None:
    scores = torch.randn(4, 300, generator=generator, device=device).bfloat16().float()
    check(scores, [300, 257, 64, 41], k)


def test_ties_go_to_the_lower_column(device: torch.device, generator: torch.Generator) -> None:
    scores = torch.randint(-2, 3, (3, 256), generator=generator, device=device).float()
    check(scores, [256, 200, 130], 40)
    check(torch.zeros_like(scores), [256, 200, 130], 40)
    zeros = torch.where(torch.rand(3, 256, generator=generator, device=device) < 0.5, 0.0, -0.0)
    check(zeros, [256, 100, 41], 40)


def test_signs_and_magnitudes_share_bytes(device: torch.device, generator: torch.Generator) -> None:
    # Few exponents: the high byte decides little, the low byte much.
    scores = (1.0 + torch.rand(2, 256, generator=generator, device=device)).bfloat16().float()
    check(torch.cat((scores, -scores)), [256, 250, 256, 250], 32)


def test_rows_with_too_few_columns_are_chosen_whole(device: torch.device, generator: torch.Generator) -> None:
    scores = torch.randn(5, 128, generator=generator, device=device).bfloat16().float()
    check(scores, [0, 1, 19, 20, 21], 20)


def test_chunks_do_not_matter(device: torch.device, generator: torch.Generator) -> None:
    scores = torch.randint(0, 9, (3, 512), generator=generator, device=device).float()
    visible = torch.tensor([512, 300, 100], dtype=torch.int32, device=device)
    small = select(scores, visible, 48)
    large = select(scores, visible, 48, SelectPlan(chunk=512, keys=256, warps=4))
    assert torch.equal(small[0], large[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_million_tokens(device: torch.device, generator: torch.Generator) -> None:
    scores = torch.randn(3, 262_144, generator=generator, device=device).bfloat16().float()
    for k in (512, 1024):
        check(scores, [262_144, 200_001, 900], k, SelectPlan())
