from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsv4agent.engine.kernels import sampling as kernels
from dsv4agent.engine.kernels.sampling import pack_bits, sample, sample_reference, signed
from dsv4agent.engine.ops.lists import integers


def rows(generator: torch.Generator, m: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    device = generator.device
    logits = 3.0 * torch.randn(m, vocabulary, generator=generator, device=device)
    temperatures = torch.tensor([0.0, 1.0, 0.5, 2.0, 1.0, 0.7], dtype=torch.float64, device=device)
    seeds = [signed(seed) for seed in (0, 1, 2**63 + 5, 2**64 - 1, 77, 2**40)]
    positions = torch.tensor([0, 5, 2**33, 9, 123456, 7], device=device)
    order = torch.arange(m, device=device) % 6
    return logits, temperatures[order], torch.tensor(seeds, device=device)[order], positions[order] + order


def bitmask(allowed: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(allowed, (0, -allowed.shape[1] % 32)).view(allowed.shape[0], -1, 32)
    weights = torch.tensor([signed(1 << bit) for bit in range(32)], device=allowed.device)
    return (padded.long() * weights).sum(2).to(torch.int32)


@pytest.mark.parametrize("vocabulary", [20, 1024, 3000])
def test_the_same_tokens_as_the_host(generator: torch.Generator, vocabulary: int) -> None:
    arguments = rows(generator, 12, vocabulary)
    assert torch.equal(sample(*arguments), sample_reference(*arguments))


@pytest.mark.parametrize("vocabulary", [50, 2500])
def test_masks(generator: torch.Generator, vocabulary: int) -> None:
    arguments = rows(generator, 6, vocabulary)
    allowed = torch.rand(6, vocabulary, generator=generator, device=generator.device) < 0.05
    allowed[:, vocabulary - 1] = True
    allowed[1] = False
    allowed[1, 31] = True
    words = bitmask(allowed)
    assert torch.equal(torch.stack([pack_bits(row) for row in allowed]), words)
    tokens = sample(*arguments, allowed=words)
    assert torch.equal(tokens, sample_reference(*arguments, allowed=words))
    assert bool(allowed.gather(1, tokens.long().unsqueeze(1)).all())
    assert int(tokens[1]) == 31


def test_nothing_allowed(generator: torch.Generator) -> None:
    arguments = rows(generator, 2, 40)
    words = torch.zeros(2, 2, dtype=torch.int32, device=generator.device)
    assert integers(sample(*arguments, allowed=words)) == [-1, -1]


def test_greedy_ties_go_to_the_lower_id(device: torch.device) -> None:
    logits = torch.zeros(1, 2100, device=device)
    logits[0, [1500, 700, 2099]] = 4.0
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    assert integers(sample(logits, zero.double(), zero, zero)) == [700]


@pytest.mark.parametrize("vocabulary", [30, 1500])
def test_nucleus(generator: torch.Generator, vocabulary: int) -> None:
    arguments = rows(generator, 6, vocabulary)
    top_p = torch.tensor([0.5, 0.9, 0.3, 1.0, 0.01, 0.7], dtype=torch.float64, device=generator.device)
    assert torch.equal(sample(*arguments, top_p=top_p), sample_reference(*arguments, top_p=top_p))


def test_ties_on_the_border_of_the_nucleus(device: torch.device) -> None:
    """Eight equal logits, of which the lower ids belong; signs and zeros of both kinds."""
    logits = torch.full((40, 16), -2.0, device=device)
    logits[:, 4:12] = 0.0
    logits[:, 5] = -0.0
    position = torch.arange(40, device=device)
    one = torch.ones(40, dtype=torch.float64, device=device)
    arguments = (logits, one, position * 0 + 3, position)
    tokens = sample(*arguments, top_p=one * 0.4)
    assert torch.equal(tokens, sample_reference(*arguments, top_p=one * 0.4))
    assert set(integers(tokens)) == {4, 5, 6, 7}


def test_nucleus_with_mask(generator: torch.Generator) -> None:
    arguments = rows(generator, 6, 300)
    allowed = torch.rand(6, 300, generator=generator, device=generator.device) < 0.3
    words = bitmask(allowed)
    assert torch.equal(torch.stack([pack_bits(row) for row in allowed]), words)
    top_p = torch.full((6,), 0.6, dtype=torch.float64, device=generator.device)
    found = sample(*arguments, top_p=top_p, allowed=words)
    assert torch.equal(found, sample_reference(*arguments, top_p=top_p, allowed=words))


def test_a_row_alone(generator: torch.Generator) -> None:
    arguments = rows(generator, 6, 1100)
    whole = sample(*arguments)
    for row in range(6):
        assert int(sample(*(value[row : row + 1] for value in arguments))) == int(whole[row])
    assert sample(*(value[:0] for value in arguments)).shape == (0,)


def test_seeds_are_held_as_int64() -> None:
    assert kernels.signed(2**64 - 1) == -1
    assert kernels.signed(2**63) == -(2**63)
    assert kernels.signed(5) == 5
