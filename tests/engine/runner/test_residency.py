"""Experts on the host: which they are, and how they come to the card for long steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsv4agent.engine.kernels.experts import ExpertShape, ExpertTable
from dsv4agent.engine.kernels.moe import routed_experts
from dsv4agent.engine.kernels.quantize import round_rows
from dsv4agent.engine.kernels.random_data import random_experts
from dsv4agent.engine.ops.lists import integers
from dsv4agent.engine.runner import passage, residency
from dsv4agent.engine.runner.passage import Passage
from dsv4agent.engine.runner.residency import EVERY, MOST, Residency
from dsv4agent.engine.runner.runner import Runner
from dsv4agent.engine.runner.state import Capacity
from dsv4agent.engine.runner.weights import pack_weights
from dsv4agent.engine.weights.loader import Checkpoint
from tests.engine.runner.measures import same, tokens

SHAPE = ExpertShape(128, 128)


def table_of(device: torch.device, away: list[bool], seed: int = 0) -> ExpertTable:
    experts = random_experts(torch.Generator(device).manual_seed(seed), len(away), SHAPE)
    placed = [
        expert.cpu().pin_memory() if gone and device.type == "cuda" else expert.clone()
        for expert, gone in zip(experts, away, strict=True)
    ]
    return ExpertTable(SHAPE, placed, device, away=away)


def output(table: ExpertTable, addresses: Tensor | None = None) -> Tensor:
    """Return what two tokens get from two experts each."""
    device = table.addresses.device
    generator = torch.Generator(device).manual_seed(1)
    x = round_rows(torch.randn(2, 128, generator=generator, device=device).to(torch.bfloat16))
    ids = torch.tensor([[0, 2], [1, 3]], dtype=torch.int32, device=device)
    weights = torch.full((2, 2), 0.5, device=device)
    shared = torch.zeros(2, 128, dtype=torch.bfloat16, device=device)
    return routed_experts(x, ids, weights, table, shared, limit=10.0, addresses=addresses)


def test_experts_change_places_and_compute_the_same(device: torch.device) -> None:
    table = table_of(device, [False, True, False, True])
    expected, places = output(table), integers(table.addresses)
    table.exchange(1, 2, torch.empty(SHAPE.size + 9, dtype=torch.uint8, device=device))
    assert table.away == [False, False, True, True]
    assert integers(table.addresses) == [places[0], places[2], places[1], places[3]]
    assert torch.equal(output(table), expected)


def test_what_is_used_most_comes_to_the_card(device: torch.device) -> None:
    tables = [
        table_of(device, [False] * 4),
        table_of(device, [False, False, True, True]),
        table_of(device, [False, True]),
    ]
    found = Residency(tables, device)
    assert tables[0].uses is None and tables[1].uses is not None and tables[2].uses is not None
    found.note(EVERY - 1)
    tables[1].uses += torch.tensor([9, 2, 8, 4], dtype=torch.int32, device=device)
    tables[2].uses += torch.tensor([6, 8], dtype=torch.int32, device=device)
    found.note(1)
    assert not tables[1].uses.any(), "counted anew"
    _settle(device)
    found.note(1)
    # 8 is much more than 2; 4 is not more than 9, and 8 is too little more than 6.
    assert found.moved == 1
    assert tables[1].away == [False, True, False, True] and tables[2].away == [False, True]
    # Another 3 are not enough by themselves, but what was counted before only fades.
    tables[2].uses += torch.tensor([0, 3], dtype=torch.int32, device=device)
    found.note(EVERY)
    _settle(device)
    found.note(1)
    assert tables[2].away == [True, False]


def test_few_change_places_at_a_time(device: torch.device) -> None:
    table = table_of(device, [False] * 20 + [True] * 20)
    found = Residency([table], device)
    assert table.uses is not None
    table.uses[20:] = torch.arange(1, 21, device=device)
    for _ in range(2):
        found.note(EVERY)
        _settle(device)
    found.note(1)
    assert found.moved == MOST
    assert not any(table.away[-MOST:]), "the most used first"


def test_nothing_is_counted_where_all_fit(device: torch.device) -> None:
    found = Residency([table_of(device, [False, False])], device)
    found.note(1000)
    assert found.moved == 0


def test_layers_take_turns_in_two_buffers(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    # Room for two: a layer's third expert is read where it is.
    monkeypatch.setattr(passage, "ROOM", 2 * SHAPE.size + 5)
    layouts = [[False, True, True, True], [False] * 4, [True, False, False, False], [True] * 4, [True] * 4]
    tables = [table_of(device, away, seed) for seed, away in enumerate(layouts)]
    found = Passage(tables, device)
    assert found.needed
    expected = [output(table) for table in tables]
    for step in range(2):
        found.begin()
        for layer, table in enumerate(tables):
            addresses = found.enter(layer)
            moved = sum(a != b for a, b in zip(integers(addresses), integers(table.addresses), strict=True))
            assert moved == min(2, sum(table.away))
            assert torch.equal(output(table, addresses), expected[layer])
            found.leave(layer)
        if step == 0:
            tables[0].exchange(3, 0, torch.empty(SHAPE.size, dtype=torch.uint8, device=device))
    assert not Passage([table_of(device, [False])], device).needed


def test_a_long_step_gives_the_same_as_short_ones(
    checkpoint: Checkpoint, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsv4agent.engine.runner.forward.LEAST", 3)
    monkeypatch.setattr(residency, "EVERY", 1)
    weights = pack_weights(checkpoint, device, on_host=lambda layer, expert: expert > 1)
    runner = Runner(checkpoint.config, weights, Capacity.of(2, 512, 256), device)
    sequence, ids = runner.open(), tokens(1, 5)
    whole = runner.prefill(sequence, ids[:4])
    assert not runner.residency.uses.eq(0).all(), "prefill counts too"
    again = runner.open()
    runner.prefill(again, ids[:2])
    runner.prefill(again, ids[2:3])
    assert same(runner.decode([again], ids[3:4]).logits[:1], whole)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
