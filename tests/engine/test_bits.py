"""Cold, cut, warm, forked and rewound runs give the same bits."""

from __future__ import annotations

import random
from collections.abc import Sequence as Ids
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsv4agent.engine import Engine, SamplingParams
from dsv4agent.engine.ops.tiling import Tiling
from dsv4agent.engine.scheduler import at_once
from dsv4agent.engine.sequence import Sequence
from dsv4agent.engine.weights import mini_config, write_random_checkpoint
from tests.engine.conftest import tiny_config

GREEDY = SamplingParams(temperature=0, stop_token_ids=())


def draw_ids(count: int, vocabulary: int = 96, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(vocabulary) for _ in range(count)]


def next_logits(sequence: Sequence) -> torch.Tensor:
    return sequence.engine.scheduler.run(sequence.next_logits())


@pytest.fixture(scope="module")
def whole(shared_engine: Engine) -> torch.Tensor:
    return shared_engine.logits(draw_ids(400))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 399), max_size=40))
def test_prefill_does_not_depend_on_cuts(shared_engine: Engine, whole: torch.Tensor, cuts: list[int]) -> None:
    assert torch.equal(shared_engine.logits(draw_ids(400), cuts), whole)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 31, 32, 33, 64, 127])
def test_prefill_does_not_depend_on_chunk_size(
    shared_engine: Engine, whole: torch.Tensor, chunk: int
) -> None:
    assert torch.equal(shared_engine.logits(draw_ids(400), range(chunk, 400, chunk)), whole)


def test_a_prefix_does_not_depend_on_what_follows(shared_engine: Engine, whole: torch.Tensor) -> None:
    for length in (1, 3, 4, 35, 127, 128, 129, 131, 300):
        assert torch.equal(shared_engine.logits(draw_ids(400)[:length]), whole[:length]), length


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**20))
def test_any_history_gives_the_bits_of_a_cold_run(
    tiny_folder: Path, shared_engine: Engine, seed: int
) -> None:
    """Random appends, rewinds, forks, re-opens and generations: the next logits equal a cold run's."""
    draw = random.Random(seed)
    sequence = shared_engine.open(draw_ids(draw.randrange(1, 60), seed=draw.randrange(2)))
    for _ in range(12):
        room = 600 - len(sequence)
        action = draw.choice(["append", "generate", "rewind", "fork", "reopen", "close"])
        if action == "append" and room > 0:
            sequence.append(draw_ids(draw.randrange(1, min(room, 150) + 1), seed=draw.randrange(2)))
        elif action == "generate" and room > 8:
            list(sequence.stream(SamplingParams(seed=seed, max_tokens=draw.randrange(1, 8))))
        elif action == "rewind":
            sequence.rewind(draw.randrange(1, len(sequence) + 1))
        elif action == "fork":
            parent, sequence = sequence, sequence.fork()
            parent.append(draw_ids(5, seed=9))
            next_logits(parent)
        elif action == "reopen":
            sequence = shared_engine.open(sequence.tokens)
        elif action == "close":
            tokens = sequence.tokens
            sequence.close()
            sequence = shared_engine.open(tokens)
        if draw.random() < 0.5:
            cold = shared_engine.logits(sequence.tokens)[-1]
            assert torch.equal(next_logits(sequence), cold), (action, len(sequence))


def test_forks_of_one_parent_do_not_touch_each_other(shared_engine: Engine) -> None:
    parent = shared_engine.open(draw_ids(130))
    next_logits(parent)
    branches = [parent.fork() for _ in range(3)]
    tails = [draw_ids(40, seed=10 + number) for number in range(3)]
    # In turns, token by token: the shared entries of one must not show up in another.
    for step in range(40):
        for branch, tail in zip(branches, tails, strict=True):
            branch.append(tail[step : step + 1])
            next_logits(branch)
    for branch, tail in zip(branches, tails, strict=True):
        cold = shared_engine.logits([*draw_ids(130), *tail])[-1]
        assert torch.equal(next_logits(branch), cold)
    assert torch.equal(next_logits(parent), shared_engine.logits(draw_ids(130))[-1])


def test_official_precision_has_the_property_too(tiny_folder: Path) -> None:
    with Engine.load(tiny_folder, device="cpu", precision="official", threads=1) as engine:
        ids = draw_ids(300)
        base = engine.logits(ids)
        assert not torch.equal(base, engine.logits([*ids[:-1], ids[-1] ^ 1]))
        for cuts in ([1, 2, 3, 150], range(1, 300), range(5, 300, 37)):
            assert torch.equal(engine.logits(ids, cuts), base)


@pytest.mark.parametrize("window", [128, 512])
def test_the_mini_shape(tmp_path: Path, window: int) -> None:
    write_random_checkpoint(tmp_path, mini_config(sliding_window=window, index_topk=96))
    with Engine.load(tmp_path, device="cpu", threads=1) as engine:
        ids = draw_ids(700, 2048)
        base = engine.logits(ids)
        assert torch.equal(engine.logits(ids, [1, 50, 129, 384, 385, 387, 390, 690]), base)
        assert torch.equal(engine.logits(ids, range(640, 700)), base)


def test_slices_serve_where_no_tile_agrees(shared_engine: Engine, whole: torch.Tensor) -> None:
    """A machine whose library has no agreeing tile still gets equal bits for every cut."""
    tiling = shared_engine.reference.tiling
    shapes = shared_engine.reference.parameters.shapes
    kept = tiling.sliced
    tiling.sliced = dict.fromkeys(shapes, tiling.rows)
    try:
        ids: Ids[int] = draw_ids(180)
        base = shared_engine.logits(ids)
        assert torch.equal(shared_engine.logits(ids, range(1, 180)), base)
        assert torch.allclose(base, whole[:180], atol=1e-4)
    finally:
        tiling.sliced = kept


def test_two_threads(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, tiny_config())
    with Engine.load(tmp_path, device="cpu", threads=2) as engine:
        ids = draw_ids(140)
        assert torch.equal(engine.logits(ids, [1, 2, 3, 60, 100, 139]), engine.logits(ids))


def test_a_calibrated_tile_does_not_see_other_rows(shared_engine: Engine) -> None:
    def products() -> None:
        tiling = Tiling()
        shapes = [(64, 24), (384, 100), (33, 7)]
        tiling.calibrate({shape: {1, 3} for shape in shapes}, device=torch.device("cpu"))
        assert not tiling.single
        generator = torch.Generator().manual_seed(5)
        for k, n in shapes:
            w = torch.randn(k, n, generator=generator)
            row = torch.randn(1, k, generator=generator)
            seen: list[torch.Tensor] = []
            for count in (1, 2, 5, 17, 128):
                tile = torch.randn(tiling.size(count), k, generator=generator)
                place = count - 1
                tile[place] = row
                seen.append(tiling.matmul(tile, w)[place])
            assert all(torch.equal(value, seen[0]) for value in seen), (k, n)

    shared_engine.scheduler.run(at_once(products))
