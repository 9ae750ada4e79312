from __future__ import annotations

from collections.abc import Sequence as Ids

import pytest
import torch
from torch import Tensor

from dsv4agent.engine import Engine, SamplingParams, Step
from dsv4agent.engine.errors import (
    ConstraintDeadEnd,
    ContextOverflow,
    EmptySequence,
    InvalidSampling,
    InvalidToken,
    SequenceBusy,
    SequenceClosed,
)
from dsv4agent.engine.sequence import Sequence
from tests.engine.test_bits import draw_ids

FREE = SamplingParams(seed=5, stop_token_ids=(), max_tokens=12)


def tokens_of(steps: Ids[Step]) -> list[int]:
    return [token for step in steps for token in step.tokens]


def test_ledger_is_exact_at_every_step(engine: Engine) -> None:
    sequence = engine.open(draw_ids(50))
    assert (sequence.pending, sequence.usage.computed_tokens) == (50, 0)
    expected = 50
    for turn in range(3):
        for number, _ in enumerate(sequence.stream(FREE), 1):
            # The prompt is computed with the first step, then one token per step: the one before.
            assert sequence.usage.computed_tokens == expected + number - 1
            assert sequence.pending == 1
            assert sequence.usage.computed_tokens + sequence.pending == len(sequence)
        expected = len(sequence) + 7
        sequence.append(draw_ids(7, seed=turn))
        assert sequence.pending == 8
    assert sequence.usage.reused_tokens == 0
    assert sequence.usage.generated_tokens == 36
    assert engine.stats.computed_tokens == sequence.usage.computed_tokens
    assert engine.stats.generated_tokens == 36
    assert engine.stats.decode_tokens_per_second > 0


def test_all_tokens_belong_to_the_sequence(engine: Engine) -> None:
    sequence = engine.open(draw_ids(20))
    steps = list(sequence.stream(FREE))
    assert sequence.tokens == (*draw_ids(20), *tokens_of(steps))
    assert [step.finish_reason for step in steps] == [None] * 11 + ["length"]


def test_a_stop_token_ends_generation_and_is_kept(engine: Engine) -> None:
    first = tokens_of(list(engine.open(draw_ids(20)).stream(FREE)))
    stop = first[4]
    sequence = engine.open(draw_ids(20))
    params = SamplingParams(seed=5, stop_token_ids=(stop,), max_tokens=12)
    steps = list(sequence.stream(params))
    assert tokens_of(steps) == first[: first.index(stop) + 1]
    assert steps[-1].finish_reason == "stop"
    assert sequence.tokens[-1] == stop


def test_seeds(engine: Engine) -> None:
    def run(seed: int | None, length: int = 20) -> list[int]:
        params = SamplingParams(seed=seed, stop_token_ids=(), max_tokens=12)
        return tokens_of(list(engine.open(draw_ids(length)).stream(params)))

    assert run(5) == run(5)
    assert run(5) != run(6)
    assert run(None) != run(None)


def test_interrupted_generation_continues_identically(engine: Engine) -> None:
    whole = tokens_of(list(engine.open(draw_ids(20)).stream(FREE)))
    sequence = engine.open(draw_ids(20))
    for _ in sequence.stream(SamplingParams(seed=5, stop_token_ids=(), max_tokens=5)):
        pass
    assert (
        tokens_of(list(sequence.stream(SamplingParams(seed=5, stop_token_ids=(), max_tokens=7)))) == whole[5:]
    )


def test_logprobs(engine: Engine) -> None:
    params = SamplingParams(seed=5, stop_token_ids=(), max_tokens=3, logprobs=True)
    sequence = engine.open(draw_ids(20))
    steps = list(sequence.stream(params))
    logits = engine.logits(sequence.tokens)
    for number, step in enumerate(steps):
        expected = torch.log_softmax(logits[19 + number].double(), 0)[step.tokens[0]]
        assert step.logprobs is not None
        assert step.logprobs[0] == pytest.approx(float(expected), abs=1e-9)


def test_the_context_ends_generation(engine: Engine) -> None:
    sequence = engine.open(draw_ids(695))
    steps = list(sequence.stream(SamplingParams(seed=1, stop_token_ids=())))
    assert len(sequence) == 700 and steps[-1].finish_reason == "context"
    with pytest.raises(ContextOverflow, match="rewind"):
        next(sequence.stream(FREE))
    with pytest.raises(ContextOverflow, match="700"):
        sequence.append([1])
    sequence.rewind(690)
    sequence.append([1])
    assert len(sequence) == 691


def test_a_refused_append_changes_nothing(engine: Engine) -> None:
    sequence = engine.open([1, 2])
    for bad in ([3, 96], [-1]):
        with pytest.raises(InvalidToken):
            sequence.append(bad)
    assert sequence.tokens == (1, 2)


def test_empty_and_closed(engine: Engine) -> None:
    sequence = engine.open()
    with pytest.raises(EmptySequence):
        next(sequence.stream(FREE))
    sequence.append([1])
    sequence.close()
    sequence.close()
    with pytest.raises(SequenceClosed):
        sequence.append([1])
    with pytest.raises(SequenceClosed):
        next(sequence.stream(FREE))
    with pytest.raises(InvalidSampling):
        next(engine.open([1]).stream(SamplingParams(top_p=2)))


def test_changing_a_sequence_while_it_generates(engine: Engine) -> None:
    sequence = engine.open(draw_ids(20))
    stream = sequence.stream(FREE)
    next(stream)
    sequence.append([3])
    with pytest.raises(SequenceBusy):
        next(stream)


def test_rewind_recomputes_only_behind_the_nearest_kept_state(engine: Engine) -> None:
    sequence = engine.open(draw_ids(100))
    list(sequence.stream(FREE))
    sequence.append(draw_ids(30, seed=1))
    list(sequence.stream(FREE))
    computed = sequence.usage.computed_tokens
    assert computed == 153
    sequence.rewind(112)
    assert sequence.pending == 0, "a border keeps a state"
    sequence.append(draw_ids(30, seed=2))
    list(sequence.stream(SamplingParams(seed=1, max_tokens=1)))
    assert sequence.usage.computed_tokens == computed + 30
    sequence.rewind(120)
    assert sequence.pending == 8
    sequence.rewind(40)
    assert sequence.pending == 40, "nothing is kept inside a message shorter than 512 tokens"
    with pytest.raises(ValueError, match="41"):
        sequence.rewind(41)
    sequence.rewind(0)
    assert sequence.tokens == ()


def test_long_runs_keep_states_every_512_tokens(engine: Engine) -> None:
    sequence = engine.open(draw_ids(690))
    list(sequence.stream(SamplingParams(seed=1, max_tokens=1)))
    sequence.rewind(600)
    assert sequence.pending == 88


def test_open_attaches_the_longest_known_prefix(engine: Engine) -> None:
    first = engine.open(draw_ids(100))
    list(first.stream(FREE))
    other = engine.open([*draw_ids(100), 1, 2, 3])
    list(other.stream(SamplingParams(seed=1, max_tokens=1)))
    assert (other.usage.reused_tokens, other.usage.computed_tokens) == (100, 3)
    transcript = first.tokens
    first.close()
    again = engine.open([*transcript, 4])
    list(again.stream(SamplingParams(seed=1, max_tokens=1)))
    assert (again.usage.reused_tokens, again.usage.computed_tokens) == (111, 2)
    different = engine.open([draw_ids(1)[0] ^ 1, *draw_ids(100)[1:]])
    list(different.stream(SamplingParams(seed=1, max_tokens=1)))
    assert different.usage.reused_tokens == 0
    assert engine.stats.reused_tokens == 211


def test_fork_computes_nothing(engine: Engine) -> None:
    sequence = engine.open(draw_ids(60))
    steps = sequence.stream(FREE)
    next(steps)
    branch = sequence.fork()
    assert branch.tokens == sequence.tokens
    assert (branch.pending, branch.usage.reused_tokens, branch.usage.computed_tokens) == (1, 60, 0)
    assert tokens_of(list(steps)) == tokens_of(
        list(branch.stream(SamplingParams(seed=5, stop_token_ids=(), max_tokens=11)))
    )


class EvenThenForced:
    """Allows even ids, forces 7 8 9 after the third token, then only id 2 for ever."""

    def __init__(self) -> None:
        self.committed: list[int] = []

    def mask(self, logits: Tensor) -> Tensor | Ids[int] | None:
        assert logits.shape == (96,)
        if len(self.committed) < 3:
            return torch.arange(96) % 2 == 0
        return [2] if len(self.committed) < 8 else []

    def commit(self, tokens: Ids[int]) -> None:
        self.committed.extend(tokens)

    def rollback(self, count: int) -> None:
        del self.committed[len(self.committed) - count :]

    def forced(self) -> Ids[int]:
        return (7, 8, 9) if len(self.committed) == 3 else ()

    def fork(self) -> EvenThenForced:
        other = EvenThenForced()
        other.committed = list(self.committed)
        return other


def generate(sequence: Sequence, constraint: EvenThenForced, **options: int) -> list[Step]:
    params = SamplingParams(seed=2, stop_token_ids=(options.pop("stop", 95),), logprobs=True, **options)
    return list(sequence.stream(params, constraint))


def test_constraints_mask_force_and_commit(engine: Engine) -> None:
    sequence = engine.open(draw_ids(20))
    constraint = EvenThenForced()
    steps = generate(sequence, constraint, max_tokens=8)
    assert [len(step.tokens) for step in steps] == [1, 1, 1, 3, 1, 1]
    assert all(token % 2 == 0 for token in tokens_of(steps)[:3])
    assert tokens_of(steps)[3:] == [7, 8, 9, 2, 2]
    assert constraint.committed == tokens_of(steps)
    assert steps[3].logprobs == (0.0, 0.0, 0.0)
    # Forced tokens are computed together, once, with the step that needs their logits.
    assert sequence.usage.computed_tokens == 27 and sequence.pending == 1


def test_forced_tokens_respect_budget_and_stop(engine: Engine) -> None:
    assert tokens_of(generate(engine.open(draw_ids(20)), EvenThenForced(), max_tokens=5))[3:] == [7, 8]
    steps = generate(engine.open(draw_ids(20)), EvenThenForced(), stop=8)
    if len(steps) == 4:
        assert steps[-1].tokens == (7, 8) and steps[-1].finish_reason == "stop"


def test_a_dead_end_leaves_the_sequence_usable(engine: Engine) -> None:
    sequence = engine.open(draw_ids(20))
    with pytest.raises(ConstraintDeadEnd, match="position 28"):
        generate(sequence, EvenThenForced())
    assert len(sequence) == 28
    assert len(list(sequence.stream(FREE))) == 12


def test_rewind_of_an_attached_sequence_starts_from_the_attached_state(engine: Engine) -> None:
    first = engine.open(draw_ids(90, seed=8))
    list(first.stream(SamplingParams(seed=1, max_tokens=1)))
    second = engine.open([*draw_ids(90, seed=8), *draw_ids(20, seed=9)])
    list(second.stream(SamplingParams(seed=1, max_tokens=4)))
    assert second.usage.reused_tokens == 90
    second.rewind(95)
    assert second.pending == 5
