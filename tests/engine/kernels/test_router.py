from __future__ import annotations

import pytest
import torch

from dsv4agent.engine.kernels import router
from dsv4agent.engine.kernels.linear import pack_linear
from dsv4agent.engine.ops.lists import integers

SCALE = 1.5


@pytest.mark.parametrize(("experts", "chosen"), [(16, 6), (256, 6), (384, 6), (5, 2)])
def test_choice_and_weights(generator: torch.Generator, experts: int, chosen: int) -> None:
    device = generator.device
    logits = 4.0 * torch.randn(7, experts, generator=generator, device=device)
    bias = 0.1 * torch.randn(experts, generator=generator, device=device)
    ids, weights = router.choose(logits, bias=bias, chosen=chosen, scale=SCALE)
    expected, expected_weights = router.choose_reference(logits, bias=bias, chosen=chosen, scale=SCALE)
    assert torch.equal(ids, expected)
    assert torch.allclose(weights, expected_weights, rtol=2e-6, atol=0)


def test_extreme_logits(device: torch.device) -> None:
    """A float32 softplus must not lose small scores, nor overflow."""
    logits = torch.tensor([[-60.0, -30.0, -16.0, -2.0, 0.0, 1e-6, 20.0, 90.0]], device=device)
    bias = torch.zeros(8, device=device)
    ids, weights = router.choose(logits, bias=bias, chosen=8, scale=SCALE)
    expected, expected_weights = router.choose_reference(logits, bias=bias, chosen=8, scale=SCALE)
    assert torch.equal(ids, expected)
    assert torch.allclose(weights, expected_weights, rtol=1e-5, atol=0)


def test_ties_go_to_the_lower_id(device: torch.device) -> None:
    logits = torch.zeros(2, 12, device=device)
    logits[1, [3, 9]] = 2.0
    ids, weights = router.choose(logits, bias=torch.zeros(12, device=device), chosen=3, scale=SCALE)
    assert integers(ids) == [0, 1, 2, 0, 3, 9]
    assert torch.allclose(weights.sum(1), torch.full((2,), SCALE, device=device))


def test_the_bias_decides_but_does_not_weigh(device: torch.device) -> None:
    logits = torch.tensor([[5.0, 1.0, 1.0, -3.0]], device=device)
    bias = torch.tensor([-9.0, 0.0, 0.0, 9.0], device=device)
    ids, weights = router.choose(logits, bias=bias, chosen=2, scale=1.0)
    assert integers(ids) == [1, 3]
    scores = torch.nn.functional.softplus(logits[0, [1, 3]]).sqrt()
    assert torch.allclose(weights[0], scores / scores.sum())


def test_hash_routing(generator: torch.Generator) -> None:
    device = generator.device
    logits = torch.randn(5, 16, generator=generator, device=device)
    table = torch.rand(40, 16, generator=generator, device=device).topk(6).indices.sort(dim=-1).values
    table, tokens = table.to(torch.int32), torch.tensor([0, 39, 7, 7, 12], device=device)
    ids, weights = router.choose(logits, table=table, token_ids=tokens, chosen=6, scale=SCALE)
    expected, expected_weights = router.choose_reference(
        logits, table=table, token_ids=tokens, chosen=6, scale=SCALE
    )
    assert torch.equal(ids, expected) and torch.equal(ids, table[tokens])
    assert torch.allclose(weights, expected_weights, rtol=2e-6, atol=0)


def test_a_row_is_routed_alike_in_every_batch(generator: torch.Generator) -> None:
    device = generator.device
    # Small integers: see test_linear on what the interpreter can show.
    x = torch.randint(-3, 4, (6, 512), generator=generator, device=device).to(torch.bfloat16)
    weight = torch.randint(-3, 4, (32, 512), generator=generator, device=device) / 64
    gate = pack_linear(weight.to(torch.bfloat16))
    bias = torch.rand(32, generator=generator, device=device)
    ids, weights = router.route(x, gate, bias, chosen=6, scale=SCALE)
    for row in range(6):
        alone = router.route(x[row : row + 1], gate, bias, chosen=6, scale=SCALE)
        assert torch.equal(alone[0][0], ids[row]) and torch.equal(alone[1][0], weights[row])
    table = ids[:4].contiguous()
    tokens = torch.tensor([0, 1, 2, 3, 0, 1], device=device)
    hashed, _ = router.route_by_table(x, gate, table, tokens, scale=SCALE)
    assert torch.equal(hashed, table[tokens])


def test_choices_of_rows_that_count_are_counted(generator: torch.Generator) -> None:
    device = generator.device
    logits = torch.randn(9, 16, generator=generator, device=device)
    counts = torch.full((16,), 5, dtype=torch.int32, device=device)
    owners = torch.tensor([0, 0, 1, 2, 2, 7, 7, 1, 0], dtype=torch.int32, device=device)
    uses = router.Uses(counts, owners, nobody=7)
    ids, _ = router.choose(logits, bias=torch.zeros(16, device=device), chosen=3, scale=1.0, uses=uses)
    expected = torch.bincount(ids[owners != 7].flatten(), minlength=16)
    assert torch.equal(counts - 5, expected.to(torch.int32))
