"""The engine's sequences over the kernels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import torch

from dsv4agent.engine import Engine, SamplingParams
from dsv4agent.engine.errors import (
    ConstraintDeadEnd,
    ContextOverflow,
    KernelsUnavailable,
    MissingTensor,
    ModelTooLarge,
    ReferenceOnly,
)
from dsv4agent.engine.runner.model import RunnerModel
from dsv4agent.engine.sampling import Draw, sample
from dsv4agent.engine.weights.loader import Checkpoint
from dsv4agent.engine.weights.synthetic import write_random_checkpoint
from tests.engine.runner.measures import same, tokens

GREEDY = SamplingParams(temperature=0.0, max_tokens=3, stop_token_ids=())


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint, device: torch.device) -> Iterator[Engine]:
    lines: list[str] = []
    with Engine.load(
        checkpoint.folder,
        device=device.type,
        compute="kernels",
        max_context=512,
        sequences=2,
        progress=lines.append,
    ) as loaded:
        assert lines[0].startswith("needs ") and lines[-2:] == ["layers.0", "layers.1"]
        yield loaded


def test_a_sequence_is_prefilled_forked_rewound_and_attached(engine: Engine) -> None:
    ids = tokens(5, 9)
    expected = engine.logits([*ids, 1])
    sequence = engine.open(ids)
    said = [token for step in sequence.stream(GREEDY) for token in step.tokens]
    assert said[0] == int(expected[-2].argmax()) and len(said) == 3
    branch = sequence.fork()
    sequence.rewind(len(ids))
    assert [token for step in sequence.stream(GREEDY) for token in step.tokens] == said
    # What the fork goes on from is its own.
    branch.rewind(len(ids))
    branch.append([1])
    assert next(branch.stream(GREEDY)).tokens == (int(expected[-1].argmax()),)
    assert branch.usage.reused_tokens >= len(ids)
    sequence.close()
    branch.close()
    other = engine.open([*ids, 2])
    next(other.stream(GREEDY))
    assert other.usage.reused_tokens == len(ids) and other.usage.computed_tokens == 1
    other.close()


@pytest.mark.anyio
async def test_sequences_decode_together(engine: Engine) -> None:
    sequences = [engine.open(tokens(seed, 3)) for seed in (7, 8)]
    alone = [next(sequence.fork().stream(GREEDY)).tokens for sequence in sequences]
    assert isinstance(engine.model, RunnerModel)
    # The interpreter leaves other threads little time.
    engine.model.patience = 0.5
    before = engine.model.runner.decoded[2]
    said: dict[int, list[int]] = {0: [], 1: []}

    async def generate(index: int) -> None:
        async for step in sequences[index].generate(GREEDY):
            said[index] += step.tokens

    async with anyio.create_task_group() as group:
        group.start_soon(generate, 0)
        group.start_soon(generate, 1)
    assert engine.model.runner.decoded[2] > before
    assert [(said[0][0],), (said[1][0],)] == alone and len(said[0]) == len(said[1]) == 3


def test_draws_are_those_of_the_host(engine: Engine) -> None:
    logits = engine.logits(tokens(9, 2))[1].to(engine.device)
    allowed = torch.rand(96, generator=torch.Generator().manual_seed(1)) < 0.2
    for position, params in enumerate(
        (
            SamplingParams(temperature=0.0),
            SamplingParams(temperature=1.0),
            SamplingParams(temperature=0.7, top_p=0.8),
        )
    ):
        for mask in (None, allowed, [3, 50, 95]):
            draw = Draw(2**63 + 5, position, mask)
            expected = sample(logits, params, seed=draw.seed, position=position, allowed=mask)
            assert engine.model.choose(logits, params, draw) == expected
    with pytest.raises(ConstraintDeadEnd, match="position 7"):
        engine.model.choose(logits, SamplingParams(), Draw(1, 7, []))


def test_cuts_give_the_same_logits(engine: Engine) -> None:
    ids = tokens(6, 7)
    assert same(engine.logits(ids, cuts=[2, 3]), engine.logits(ids))


def test_oracles_belong_to_the_reference(engine: Engine) -> None:
    with pytest.raises(ReferenceOnly, match="compute='reference'"):
        engine.trace([1, 2], lambda _name, _position, _value: None)
    with pytest.raises(ReferenceOnly):
        engine.mtp_logits([1, 2, 3])
    with pytest.raises(ReferenceOnly):
        engine.dspark_draft([1, 2, 3], 1)


def test_other_shapes_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "mini")
    with pytest.raises(KernelsUnavailable, match="heads are not of 512 dimensions"):
        Engine.load(folder, device="cpu", compute="kernels")


def test_what_is_wrong_is_said_before_anything_is_loaded(
    checkpoint: Checkpoint, tmp_path: Path, device: torch.device
) -> None:
    whole = checkpoint.folder
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((whole / "config.json").read_bytes())
    weights = (whole / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights.replace(b"layers.1.attn.wo_b", b"layers.9.attn.wo_b"))
    with pytest.raises(MissingTensor, match=r"layers\.1\.attn\.wo_b"):
        Engine.load(broken, device=device.type, compute="kernels")
    with pytest.raises(ModelTooLarge, match=r"at most \d+ sequences at a time"):
        Engine.load(whole, device=device.type, compute="kernels", sequences=10**8)
    with pytest.raises(ContextOverflow, match="1024 positions, not 1025"):
        Engine.load(whole, device=device.type, compute="kernels", max_context=1025)
