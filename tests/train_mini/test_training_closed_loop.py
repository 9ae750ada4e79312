from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsv4agent.encoding import Tokenizer, encode_tokens
from examples.train_mini.closed_loop import REVISION, THINKING_MODE, Ending, Limits, RepairRun, Transcript
from examples.train_mini.evaluate import Result, save_transcripts, tables
from examples.train_mini.export import export
from examples.train_mini.packing import StoredDocument, load_documents
from examples.train_mini.repetition import EditHistory
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


def test_a_stopped_run_is_continued_after_its_last_results() -> None:
    run, replies = run_of(WRONG)
    assert replies[-1].outcome is None
    outcome = run.stop()
    assert outcome.ending is Ending.STOPPED
    assert (outcome.steps, outcome.tries, outcome.solved) == (1, 1, False)
    document = run.relabelled(20000)
    assert document is not None
    assert "return a + b" in trained(document)
    assert "return a * b" not in trained(document).split("new_str")[1]
    whole = encode_tokens(_history(document), tokenizer(), thinking_mode=THINKING_MODE, revision=REVISION)
    assert document.ids.tolist() == list(whole.ids)


UNDO = edit("    return a * b", "    return a - b")
EMPTY = edit("    return a - b", "    return a - b")


@pytest.mark.parametrize(
    ("turns", "repeats"),
    [
        ([DONE], 0),
        ([WRONG, UNDO, WRONG], 1),
        ([WRONG, UNDO, WRONG, UNDO, WRONG, UNDO, WRONG], 3),
        ([WRONG, WRONG], 1),
        ([EMPTY] * 5, 4),
        ([WRONG, UNDO, EMPTY, EMPTY, EMPTY], 2),
    ],
)
def test_repeated_edits_are_counted_but_not_undos(turns: list[list[int]], repeats: int) -> None:
    run, _ = run_of(*turns, limits=Limits(steps=20, context=20000, turn=900))
    assert run.stop().repeats == repeats


@pytest.mark.parametrize(
    ("turns", "again"),
    [
        ([], False),
        ([WRONG, UNDO], True),
        ([WRONG], True),
        (
            [edit("    return a - b", "    return a // b"), edit("    return a // b", "    return a - b")],
            False,
        ),
    ],
)
def test_a_turn_is_drawn_again_if_its_edit_was_made_from_the_same_state(
    turns: list[list[int]], again: bool
) -> None:
    run, _ = run_of(*turns, limits=Limits(steps=20, context=20000, turn=900))
    assert run.repeats(WRONG) is again
    assert run.repeats(EMPTY)
    assert not run.repeats(DONE)
    assert not run.repeats(WRONG[:-1]), "a turn that was cut off ends the run, as in the loop"


def test_undo_with_other_lines_around_it_is_still_one() -> None:
    history = EditHistory()
    there = {"command": "str_replace", "path": "a.py", "old_str": "x\ny", "new_str": "x\nz"}
    back = {"command": "str_replace", "path": "a.py", "old_str": "z\nw", "new_str": "y\nw"}
    for arguments in (there, back, there, back, there, back):
        history.add(arguments)
    assert history.repeats == 2
    history.add({**back, "path": "b.py"})
    history.add({**back, "path": "b.py"})
    assert history.repeats == 2


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
        assert pool.repeats([(2, EMPTY), (0, DONE), (1, WRONG)]) == [True, False, False]
        replies = pool.advance([(2, WRONG), (0, DONE), (1, WRONG)])
        assert replies[1].outcome is not None
        assert replies[1].outcome.name == "a-0"
        assert replies[0].outcome is None
        final = pool.advance([(1, RIGHT), (2, RIGHT)])
        assert all("1 passed" in tokenizer().decode(reply.ids) for reply in final)
        documents = pool.relabelled([0], 6000)
        assert documents[0] is not None
        assert [outcome.ending for outcome in pool.stop([1, 2])] == [Ending.STOPPED] * 2
        pool.prepare([Task("d", 3, steps=1)])
        with pytest.raises(ValueError, match="other tasks"):
            pool.open([Task("a", 0)])
        assert len(pool.open([Task("d", 3, steps=1)])) == 1
        (reply,) = pool.advance([(0, WRONG)])
        assert reply.outcome is not None
        assert reply.outcome.ending is Ending.STEPS
        (transcript,) = pool.transcripts([0])
        assert (transcript.name, transcript.bug_line.strip()) == ("d-3", "return a - b")
        assert transcript.text.startswith("<｜begin▁of▁sentence｜>")
        assert "return a * b" in transcript.text
        with pytest.raises(WorldPoolError):
            pool.open([Task("broken", 0)])


def test_a_worker_that_does_not_answer_counts_as_dead(tmp_path: Path) -> None:
    path = write_byte_tokenizer(tmp_path)
    factory = "tests.train_mini.training_worlds:sleeping"
    with WorldPool(factory, path, workers=1, limits=LIMITS, patience=0.5) as pool:
        with pytest.raises(WorldPoolError, match="answer within"):
            pool.open([Task("a", 0)])


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


class Scripted(Rollout):
    """Takes turns from a list and notes for which runs, from which lengths and how hot they were drawn."""

    def script(self, *draws: list[list[int]]) -> list[tuple[list[int], list[int], float]]:
        self._draws = list(draws)
        self._asked: list[tuple[list[int], list[int], float]] = []
        return self._asked

    def sample_turns(
        self,
        runs: list[int],
        first: torch.Tensor,
        temperature: float,
        generator: torch.Generator,
        greedy: torch.Tensor | None = None,
    ) -> list[list[int]]:
        assert len(first) == len(runs)
        self._asked.append((runs, integers(self.decoder.lengths[runs]), temperature))
        turns = self._draws.pop(0)
        for run, turn in zip(runs, turns, strict=True):
            self.decoder.lengths[run] += len(turn) - 1
        return turns


def test_rollout_draws_vain_turns_again(tmp_path: Path) -> None:
    path = write_byte_tokenizer(tmp_path)
    limits = Limits(steps=9, context=8192, turn=900)
    model = tiny_model(vocab_size=tokenizer().vocab_size, max_positions=8192)
    with WorldPool(WORLDS, path, workers=1, limits=limits) as pool:
        rollout = Scripted(model, pool, batch=2, limits=limits)
        asked = rollout.script([EMPTY, WRONG], [EMPTY], [WRONG], [RIGHT, DONE], [DONE])
        outcomes = rollout.run([Task("a", 0), Task("a", 1)], Sampling(redraws=2))
    assert [outcome.ending for outcome in outcomes] == [Ending.DONE, Ending.CLAIMED]
    assert [runs for runs, _, _ in asked] == [[0, 1], [0], [0], [0, 1], [0]]
    assert asked[0][1][0] == asked[1][1][0] == asked[2][1][0]
    assert asked[3][1][1] > asked[0][1][1]
    assert [temperature for _, _, temperature in asked] == [0.0, 1.0, 1.0, 0.0, 0.0]
    assert outcomes[0].tries == 2, "what was drawn again was not done"


def test_rollout_collects_from_runs_that_time_ends(tmp_path: Path) -> None:
    path = write_byte_tokenizer(tmp_path)
    limits = Limits(steps=2, context=8192, turn=8)
    model = tiny_model(vocab_size=tokenizer().vocab_size, max_positions=8192)
    tasks = [Task("a", index) for index in range(5)]
    looks = iter((60.0, 60.0, 60.0, -1.0, -1.0))
    with WorldPool(WORLDS, path, workers=1, limits=limits) as pool:
        rollout = Rollout(model, pool, batch=2, limits=limits)
        sampling = Sampling(1.0, seed=3, every_other=True)
        whole = rollout.collect(tasks, sampling, 20000)
        assert len(whole.outcomes) == len(whole.documents) == 5
        assert whole.tokens == sum(len(document.ids) for document in whole.documents)
        part = rollout.collect(tasks, sampling, 20000, time_left=lambda: next(looks))
        assert part.outcomes[:2] == whole.outcomes[:2]
        # The second group is ended before its first turn, the third does not begin.
        assert [outcome.ending for outcome in part.outcomes[2:]] == [Ending.STOPPED] * 2
        assert len(part.documents) == 4
        none = rollout.collect(tasks, sampling, 20000, time_left=lambda: -1.0)
        assert none.outcomes == none.documents == []
        short = rollout.collect(tasks, sampling, 100)
        assert len(short.outcomes) == 5 and not short.documents


def test_half_of_the_runs_can_be_greedy(tmp_path: Path) -> None:
    path = write_byte_tokenizer(tmp_path)
    model = tiny_model(vocab_size=tokenizer().vocab_size)
    limits = Limits(steps=2, context=1024, turn=24)
    generator = torch.Generator()
    prompts = [integers(torch.arange(3, 40)), integers(torch.arange(3, 40))]
    turns: list[list[list[int]]] = []
    with WorldPool(WORLDS, path, workers=1, limits=limits) as pool:
        for temperature, greedy in ((0.0, None), (1.0, torch.tensor([True, False]))):
            rollout = Rollout(model, pool, batch=2, limits=limits)
            logits = rollout.decoder.extend([0, 1], prompts)
            generator.manual_seed(1)
            turns.append(rollout.sample_turns([0, 1], logits, temperature, generator, greedy))
    assert turns[0][0] == turns[0][1] == turns[1][0]
    assert turns[1][1] != turns[1][0]


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
    assert summary["stuck"] == 0
    stuck = run_of(*[EMPTY] * 4, limits=Limits(steps=4, context=20000, turn=900))[1]
    again = Result("known", 0.0, [failures[-1].outcome, stuck[-1].outcome], 1.5)
    assert again.summary()["stuck"] == 1
    assert "same edit 3+ times more" in tables([again])
    assert run.length > failed.length


def test_transcripts_are_written_as_json_lines(tmp_path: Path) -> None:
    model = tiny_model(vocab_size=tokenizer().vocab_size, max_positions=8192)
    limits = Limits(steps=2, context=8192, turn=8)
    found: list[Transcript] = []
    with WorldPool(WORLDS, write_byte_tokenizer(tmp_path), workers=1, limits=limits) as pool:
        rollout = Rollout(model, pool, batch=2, limits=limits)
        rollout.run([Task("a", index) for index in range(3)], Sampling(), transcripts=found)
    for temperature in (0.0, 1.0):
        save_transcripts(tmp_path / "runs.jsonl", temperature, found)
    save_transcripts(None, 0.0, found)
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["name"], line["temperature"]) for line in lines] == [
        (f"a-{index}", temperature) for temperature in (0.0, 1.0) for index in range(3)
    ]
    assert {line["family"] for line in lines} == {"arithmetic"}
    assert all(line["bug_line"].strip() == "return a - b" for line in lines)
    assert all(line["good_line"].strip() == "return a + b" for line in lines)
    assert all("Fix a-" in line["text"] for line in lines)
