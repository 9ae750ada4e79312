from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsv4agent.encoding import Tokenizer, encode_tokens
from examples.train_mini.closed_loop import REVISION, THINKING_MODE, Ending, Limits, RepairRun
from examples.train_mini.evaluate import Result, tables
from examples.train_mini.export import export
from examples.train_mini.packing import StoredDocument, load_documents
from examples.train_mini.rollout import Rollout, Sampling
from examples.train_mini.rollout import main as rollout_main
from examples.train_mini.tensors import integers
from examples.train_mini.world_pool import Task, WorldPool, WorldPoolError
from tests.train_mini.training_fixtures import byte_tokenizer_json, tiny_model, write_byte_tokenizer
from tests.train_mini.training_worlds import OneLineWorld

WORLDS = "tests.train_mini.training_worlds:world"
LIMITS = Limits(steps=5, context=6000, turn=900)


def tokenizer() -> Tokenizer:
    return Tokenizer(byte_tokenizer_json())


def turn(content: str, *calls: tuple[str, dict[str, Any]]) -> list[int]:
    """Return the ids of an assistant turn, as the model would sample them."""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for name, arguments in calls
        ]
    opening = OneLineWorld("x").opening()
    prompt = encode_tokens(
        [message], tokenizer(), thinking_mode=THINKING_MODE, revision=REVISION, context=opening
    )
    return list(prompt.ids)


def edit(old: str, new: str) -> list[int]:
    arguments = {"command": "str_replace", "path": "add.py", "old_str": old, "new_str": new}
    return turn("", ("str_replace_editor", arguments), ("bash", {"command": "pytest"}))


WRONG = edit("    return a - b", "    return a * b")
RIGHT = edit("    return a * b", "    return a + b")
DONE = turn("Fixed `add` in add.py; all tests pass.")


def run_of(*turns: list[int], limits: Limits = LIMITS) -> tuple[RepairRun, list[Any]]:
    run = RepairRun(OneLineWorld("x"), tokenizer(), limits)
    return run, [run.advance(ids) for ids in turns]


def test_a_repair_from_prompt_to_outcome() -> None:
    run, replies = run_of(WRONG, RIGHT, DONE)
    texts = [tokenizer().decode(reply.ids) for reply in replies]
    assert tokenizer().decode(run.prompt).endswith("Fix x.<｜Assistant｜></think>")
    assert texts[0].startswith(
        "<｜User｜><tool_result>edited</tool_result>\n\n<tool_result>1 failed</tool_result>"
    )
    assert texts[0].endswith("<｜Assistant｜></think>")
    assert "1 passed" in texts[1]
    outcome = replies[2].outcome
    assert outcome.solved
    assert outcome.ending is Ending.DONE
    assert (outcome.steps, outcome.tries, outcome.first_try) == (3, 2, False)
    assert outcome.tokens == run.length


def test_ids_equal_the_whole_conversation_encoded_at_once() -> None:
    run, replies = run_of(WRONG)
    whole = encode_tokens(run.messages, tokenizer(), thinking_mode=THINKING_MODE, revision=REVISION)
    assert [*run.prompt, *WRONG, *replies[0].ids] == list(whole.ids)


@pytest.mark.parametrize(
    ("turns", "ending"),
    [
        ([DONE], Ending.CLAIMED),
        ([turn("I cannot find it.")], Ending.GAVE_UP),
        ([turn("", ("rm", {"command": "x"}))], Ending.INVALID_CALL),
        ([WRONG[:-1]], Ending.UNFINISHED_TURN),
        ([list[int]()], Ending.UNFINISHED_TURN),
        ([WRONG] * 5, Ending.STEPS),
    ],
)
def test_endings_of_failed_runs(turns: list[list[int]], ending: Ending) -> None:
    _, replies = run_of(*turns)
    assert all(reply.outcome is None for reply in replies[:-1])
    assert replies[-1].outcome.ending is ending
    assert not replies[-1].outcome.solved


def test_context_limit_ends_a_run() -> None:
    used = run_of()[0].length + len(WRONG)
    results = len(run_of(WRONG)[1][0].ids)
    for room, ending in ((0, None), (-1, Ending.CONTEXT)):
        limits = Limits(steps=5, context=used + results + 900 + room, turn=900)
        outcome = run_of(WRONG, limits=limits)[1][0].outcome
        assert (outcome and outcome.ending) is ending


def trained(document: StoredDocument) -> str:
    """Return the text that the assistant is trained on."""
    return tokenizer().decode(document.ids[document.weight == 2].tolist())


def test_solved_run_is_kept_without_its_wrong_tries() -> None:
    run, _ = run_of(WRONG, RIGHT, DONE)
    document = run.relabelled(6000)
    assert document is not None
    assert trained(document) == tokenizer().decode([*RIGHT, *DONE])
    assert len(document.ids) == run.length
    assert run.relabelled(1000) is None


@pytest.mark.parametrize("turns", [[WRONG, DONE], [WRONG] * 5, [WRONG, WRONG[:-1]], [DONE]])
def test_failed_run_is_continued_with_the_right_fix(turns: list[list[int]]) -> None:
    run, _ = run_of(*turns)
    document = run.relabelled(20000)
    assert document is not None
    text = trained(document)
    assert "return a + b" in text
    assert text.endswith("Fixed `add` in add.py; all tests pass.<｜end▁of▁sentence｜>")
    assert "return a * b" not in text.split("new_str")[1]
    whole = encode_tokens(_history(document), tokenizer(), thinking_mode=THINKING_MODE, revision=REVISION)
    assert document.ids.tolist() == list(whole.ids)


def _history(document: StoredDocument) -> list[dict[str, Any]]:
    """Parse a document back into messages with the strict parser."""
    from dsv4agent.encoding.completion import parse_message_from_completion_text

    messages = OneLineWorld("x").opening()
    text = tokenizer().decode(document.ids.tolist())
    for part in text.split("<｜Assistant｜></think>")[1:]:
        end = part.index("<｜end▁of▁sentence｜>") + len("<｜end▁of▁sentence｜>")
        messages.append(parse_message_from_completion_text(part[:end], THINKING_MODE, revision=REVISION))
        results = part[end:].split("<tool_result>")[1:]
        messages += [{"role": "tool", "content": result.split("</tool_result>")[0]} for result in results]
    return messages


def test_pool_runs_worlds_in_processes(tmp_path: Path) -> None:
    path = write_byte_tokenizer(tmp_path)
    with WorldPool(WORLDS, path, workers=2, limits=LIMITS) as pool:
        prompts = pool.open([Task("a", 0), Task("b", 1), Task("c", 2)])
        assert [tokenizer().decode(ids)[-40:] for ids in prompts] == [
            tokenizer().decode(RepairRun(OneLineWorld(name), tokenizer()).prompt)[-40:]
            for name in ("a-0", "b-1", "c-2")
        ]
        replies = pool.advance([(2, WRONG), (0, DONE), (1, WRONG)])
        assert replies[1].outcome is not None
        assert replies[1].outcome.name == "a-0"
        assert replies[0].outcome is None
        final = pool.advance([(1, RIGHT), (2, RIGHT)])
        assert all("1 passed" in tokenizer().decode(reply.ids) for reply in final)
        documents = pool.relabelled([0], 6000)
        assert documents[0] is not None
        with pytest.raises(WorldPoolError):
            pool.open([Task("broken", 0)])


def test_rollout_samples_what_the_model_would_alone(tmp_path: Path) -> None:
    path = write_byte_tokenizer(tmp_path)
    model = tiny_model(vocab_size=tokenizer().vocab_size)
    limits = Limits(steps=2, context=1024, turn=24)
    generator = torch.Generator().manual_seed(0)
    prompts = [integers(torch.randint(3, 64, (size,), generator=generator)) for size in (700, 30, 512)]
    with WorldPool(WORLDS, path, workers=1, limits=limits) as pool:
        rollout = Rollout(model, pool, batch=3, limits=limits)
        logits = rollout.decoder.extend([0, 1, 2], prompts)
        turns = rollout.sample_turns([0, 2], logits[[0, 2]], 0.0, generator)
    for ids, sampled in zip((prompts[0], prompts[2]), turns, strict=True):
        row = torch.full((1, 768), 2)
        row[0, : len(ids) + len(sampled)] = torch.tensor([*ids, *sampled])
        with torch.no_grad():
            out = model.logits(model(row, torch.zeros_like(row)).hidden)[0]
        for position, token in enumerate(sampled, len(ids) - 1):
            assert out[position, token] == pytest.approx(float(out[position].max()), abs=1e-4)
        assert len(sampled) == 24 or sampled[-1] == 1


def test_rollout_brings_every_run_to_an_end(tmp_path: Path) -> None:
    path = write_byte_tokenizer(tmp_path)
    model = tiny_model(vocab_size=tokenizer().vocab_size)
    limits = Limits(steps=2, context=1024, turn=8)
    tasks = [Task("a", index) for index in range(3)]
    with WorldPool(WORLDS, path, workers=1, limits=limits) as pool:
        rollout = Rollout(model, pool, batch=2, limits=limits)
        with pytest.raises(ValueError, match="do not fit"):
            rollout.run(tasks, Sampling())
    limits = Limits(steps=2, context=8192, turn=8)
    model = tiny_model(vocab_size=tokenizer().vocab_size, max_positions=8192)
    with WorldPool(WORLDS, path, workers=1, limits=limits) as pool:
        rollout = Rollout(model, pool, batch=2, limits=limits)
        first, again = (rollout.run(tasks, Sampling(1.0, seed=3)) for _ in range(2))
    assert first == again
    assert [outcome.name for outcome in first] == ["a-0", "a-1", "a-2"]
    assert {outcome.ending for outcome in first} <= {Ending.UNFINISHED_TURN, Ending.GAVE_UP, Ending.CONTEXT}
    assert not any(outcome.solved for outcome in first)


def test_collect_command_writes_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_byte_tokenizer(tmp_path)
    model = tiny_model(vocab_size=tokenizer().vocab_size, max_positions=8192)
    export(model, dict(model.named_parameters()), tmp_path / "model", tokenizer=path, check=False)
    command = [
        "rollout",
        "--model",
        str(tmp_path / "model"),
        "--collect",
        str(tmp_path / "extra.npz"),
        "--n",
        "2",
    ]
    command += ["--worlds", WORLDS, "--workers", "1", "--device", "cpu", "--context", "6000", "--turn", "8"]
    monkeypatch.setattr("sys.argv", command)
    rollout_main()
    documents = load_documents(tmp_path / "extra.npz")
    assert len(documents) == 2
    for document in documents:
        assert "return a + b" in trained(document)
        assert document.weight[0] == 1
        assert np.issubdtype(document.ids.dtype, np.uint16)


def test_tables_show_shares_families_and_reasons() -> None:
    run, replies = run_of(WRONG, RIGHT, DONE)
    failed, failures = run_of(DONE)
    result = Result("known", 0.0, [replies[-1].outcome, failures[-1].outcome], 1.5)
    text = tables([result])
    assert "known greedy" in text
    assert "1/2 50%" in text
    assert "arithmetic" in text
    assert "claimed_success" in text
    summary = result.summary()
    assert summary["families"] == {"arithmetic": [1, 2]}
    assert summary["failures"] == {"claimed_success": 1}
    assert run.length > failed.length
