from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsv4agent.engine import SamplingParams
from dsv4agent.engine.errors import ConstraintDeadEnd, InvalidSampling
from dsv4agent.engine.sampling import log_probability, philox, sample, uniform


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, int, int, int]
) -> None:
    assert philox(counter, key) == words


@given(seed=st.integers(0, 2**64 - 1), position=st.integers(0, 2**40))
def test_uniform_is_a_function_of_seed_and_position(seed: int, position: int) -> None:
    value = uniform(seed, position)
    assert 0.0 <= value < 1.0
    assert value == uniform(seed, position) != uniform(seed, position + 1)


def test_greedy_ties_go_to_the_lower_id() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 3.0])
    assert sample(logits, SamplingParams(temperature=0), seed=1, position=0) == 1
    allowed = torch.tensor([True, False, True, True])
    assert sample(logits, SamplingParams(temperature=0), seed=1, position=0, allowed=allowed) == 3


def test_frequencies_follow_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    for temperature in (0.5, 1.0, 2.0):
        params = SamplingParams(temperature=temperature)
        counts = torch.zeros(4)
        for position in range(6000):
            counts[sample(logits, params, seed=11, position=position)] += 1
        expected = torch.softmax(logits / temperature, 0)
        assert torch.allclose(counts / 6000, expected, atol=0.025)


def test_top_p_keeps_the_smallest_sufficient_set() -> None:
    logits = torch.log(torch.tensor([0.1, 0.5, 0.15, 0.25]))
    drawn = {sample(logits, SamplingParams(top_p=0.7), seed=3, position=p) for p in range(300)}
    assert drawn == {1, 3}
    drawn = {sample(logits, SamplingParams(top_p=0.5), seed=3, position=p) for p in range(50)}
    assert drawn == {1}


@given(seed=st.integers(0, 2**32), allowed=st.sets(st.integers(0, 19), min_size=1))
def test_masks_are_obeyed_as_ids_and_as_booleans(seed: int, allowed: set[int]) -> None:
    logits = torch.randn(20, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(20, dtype=torch.bool)
    mask[list(allowed)] = True
    params = SamplingParams(top_p=0.9)
    by_ids = sample(logits, params, seed=seed, position=4, allowed=sorted(allowed))
    assert by_ids in allowed
    assert by_ids == sample(logits, params, seed=seed, position=4, allowed=mask)


def test_an_empty_mask_is_a_dead_end() -> None:
    with pytest.raises(ConstraintDeadEnd, match="position 9"):
        sample(torch.zeros(4), SamplingParams(), seed=0, position=9, allowed=[])


def test_log_probability() -> None:
    logits = torch.log(torch.tensor([0.2, 0.8]))
    assert log_probability(logits, 1) == pytest.approx(math.log(0.8), abs=1e-6)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        (SamplingParams(temperature=-1), "temperature"),
        (SamplingParams(temperature=math.nan), "temperature"),
        (SamplingParams(top_p=0), "top_p"),
        (SamplingParams(top_p=1.5), "top_p"),
        (SamplingParams(max_tokens=0), "max_tokens"),
    ],
)
def test_meaningless_parameters(params: SamplingParams, name: str) -> None:
    with pytest.raises(InvalidSampling, match=name):
        params.check()
