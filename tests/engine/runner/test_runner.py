"""The runner against the engine's own operations on the official path, and against itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsv4agent.engine.errors import CacheFull, ContextOverflow
from dsv4agent.engine.model.transformer import Transformer
from dsv4agent.engine.ops.norms import row_norms
from dsv4agent.engine.runner.runner import Runner
from dsv4agent.engine.runner.sequences import DeviceSequence
from dsv4agent.engine.runner.state import Capacity
from dsv4agent.engine.runner.weights import ModelWeights, pack_weights
from dsv4agent.engine.weights.loader import Checkpoint
from tests.engine.runner.measures import same, tokens

# The interpreter takes a second a token; the card also sees complete groups of 128 and windows that moved on.
TOKENS = 400 if torch.cuda.is_available() else 12
CAPACITY = Capacity.of(slots=2, context=512, chunk=256)


@pytest.fixture(scope="module")
def weights(checkpoint: Checkpoint, device: torch.device) -> ModelWeights:
    return pack_weights(checkpoint, device, on_host=lambda layer, expert: expert == 1)


@pytest.fixture
def runner(checkpoint: Checkpoint, weights: ModelWeights, device: torch.device) -> Runner:
    return Runner(checkpoint.config, weights, CAPACITY, device)


def reference(checkpoint: Checkpoint, *, disturbed: bool) -> Tensor:
    """Return the logits of the engine's own operations after every token.

    Args:
        checkpoint: The model.
        disturbed: Whether the embedding is off by one rounding.
    """
    model = Transformer(checkpoint.config, checkpoint.tensor, device=torch.device("cpu"), official=True)
    model.calibrate()
    if disturbed:
        noise = torch.randn(model.embed.shape, generator=torch.Generator().manual_seed(0))
        model.embed = (model.embed * (1 + 2.0**-8 * noise)).bfloat16().float()
    state, rows, ids = model.empty_state(), list[Tensor](), tokens(1, TOKENS)
    for start, stop in model.chunks(0, len(ids)):
        rows.append(model.logits(model.step(state, ids[start:stop]))[: stop - start].clone())
    return torch.cat(rows)


@pytest.fixture(scope="module")
def whole(checkpoint: Checkpoint, weights: ModelWeights, device: torch.device) -> Tensor:
    runner = Runner(checkpoint.config, weights, CAPACITY, device)
    return runner.prefill(runner.open(), tokens(1, TOKENS), every=True)


def test_prefill_is_as_near_to_the_reference_as_one_rounding(checkpoint: Checkpoint, whole: Tensor) -> None:
    expected = reference(checkpoint, disturbed=False)
    error = row_norms(whole.cpu() - expected) / row_norms(expected)
    noise = row_norms(reference(checkpoint, disturbed=True) - expected) / row_norms(expected)
    assert error.median() < noise.median() < 0.2
    assert (whole.cpu().argmax(1) == expected.argmax(1)).float().mean() > 0.8


def test_bits_do_not_depend_on_cuts(runner: Runner, whole: Tensor) -> None:
    sequence, ids = runner.open(), tokens(1, TOKENS)
    runner.prefill(sequence, ids[: TOKENS // 2], chunk=5)
    runner.prefill(sequence, ids[TOKENS // 2 : -3])
    found = [runner.decode([sequence], [token]).logits[0].clone() for token in ids[-3:]]
    assert same(torch.stack(found), whole[-3:])


def test_bits_do_not_depend_on_others(runner: Runner, whole: Tensor) -> None:
    one, two = runner.open(), runner.open()
    ids, others = tokens(1, TOKENS), tokens(2, 9)
    runner.prefill(two, others)
    runner.prefill(one, ids[:-1])
    runner.decode([two], [5])
    batch = runner.decode([two, one], [7, ids[-1]])
    assert same(batch.logits[1:2], whole[-1:])


def test_forks_share_pages_until_one_writes(runner: Runner, whole: Tensor) -> None:
    first, ids = runner.open(), tokens(1, TOKENS)
    runner.prefill(first, ids[:-2])
    free = runner.state.free_pages
    other = first.fork()
    assert runner.state.free_pages == free
    runner.prefill(first, [1, 2])
    assert runner.state.free_pages == free - 1
    assert same(runner.prefill(other, ids[-2:]), whole[-1:])
    first.close()
    other.close()
    runner.sequences.prepare([], 0)
    assert runner.state.free_pages == runner.state.capacity.pages


def test_sequences_at_rest_give_up_their_slots(runner: Runner, whole: Tensor) -> None:
    ids = tokens(1, TOKENS)
    sequence = runner.open()
    runner.prefill(sequence, ids[:-1])
    others = [runner.open() for _ in range(CAPACITY.slots)]
    for other in others:
        runner.prefill(other, [7])
    assert sequence.holding.slot is None and runner.sequences.count == CAPACITY.slots
    assert same(runner.decode([sequence], ids[-1:]).logits[:1], whole[-1:])


def test_several_steps_without_the_host_are_the_same_as_one_by_one(runner: Runner) -> None:
    at_once, single = runner.open(seed=9, temperature=1.0), runner.open(seed=9, temperature=1.0)
    ids = tokens(4, 5)
    runner.prefill(at_once, ids)
    runner.prefill(single, ids)
    last = runner.decode([at_once], [3], steps=3)
    found = last.logits[0].clone(), int(last.ids[0])
    batch = runner.decode([single], [3])
    for _ in range(2):
        batch = runner.decode([single], [int(batch.ids[0])])
    assert torch.equal(batch.logits[0], found[0]) and int(batch.ids[0]) == found[1]


def test_room_is_given_back_and_refused_when_it_is_short(runner: Runner) -> None:
    state, sequences = runner.state, runner.sequences
    some = [runner.open() for _ in range(CAPACITY.slots + 1)]
    with pytest.raises(CacheFull, match="3 sequences cannot take part in one step; 2 can"):
        sequences.prepare(some, 1)
    with pytest.raises(ContextOverflow, match="0 \\+ 513 tokens exceed the 512"):
        sequences.prepare(some[:1], 513)
    sequences.prepare(some[:2], 512)
    assert state.free_pages == 0
    with pytest.raises(CacheFull, match="1 pages of 256 tokens are needed, 0 of 4 are free"):
        sequences.prepare(some[2:], 1)
    let_go: list[DeviceSequence] = some[:1]

    def make_room() -> bool:
        found = bool(let_go)
        for sequence in let_go:
            sequence.close()
        let_go.clear()
        return found

    sequences.make_room = make_room
    sequences.prepare(some[2:], 1)
    assert state.free_pages == 1
    del some
    sequences.prepare([], 0)
    assert state.free_pages == 4
