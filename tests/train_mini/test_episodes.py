from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest

from dsv4agent.encoding import Tokenizer
from examples.train_mini.documents import ASSISTANT_TEXT, NONE, DocumentEncoder
from examples.train_mini.environment import Environment
from examples.train_mini.episodes import MAX_TOKENS, documents, make_episode
from examples.train_mini.limits import MAX_STEPS
from examples.train_mini.repository import make_repository
from examples.train_mini.teacher import (
    FIRST_COMMAND,
    TEST_COMMAND,
    Call,
    Episode,
    edit_arguments,
    teach,
)
from examples.train_mini.tokenizer import ASSET, runs_of_text, train_tokenizer


@pytest.fixture(scope="module")
def encoder() -> DocumentEncoder:
    return DocumentEncoder.from_file(ASSET)


def test_episodes_end_with_green_tests_and_a_sentence(library_bank: Path) -> None:
    rng = Random("episodes")
    tries = 0
    for _ in range(20):
        episode = make_episode(rng)
        last, final = episode.turns[-2], episode.turns[-1]
        assert last.calls[-1].args["command"] == TEST_COMMAND and " passed in " in last.calls[-1].result
        assert final.content.startswith("Fixed `") and not final.calls
        assert len(episode.turns) <= 20
        commands = [call.args["command"] for turn in episode.turns for call in turn.calls]
        assert FIRST_COMMAND in commands[:2]
        wrong = [c for t in episode.turns for c in t.calls if not c.trained and c.result.startswith("Edited")]
        assert len(wrong) == episode.wrong_tries + episode.repeats
        assert all(c.args["new_str"] != episode.repository.bug.good_line for c in wrong)
        tries += episode.wrong_tries
    assert tries > 0


def test_replaying_an_episode_gives_the_same_results_and_solves(library_bank: Path) -> None:
    rng = Random("replay")
    episode = teach(make_repository(rng, "program"), rng, wrong_tries=2)
    environment = Environment(episode.repository)
    assert not environment.solved()
    for turn in episode.turns:
        for call in turn.calls:
            result = environment.call(call.name, call.args)
            assert result.split(" in 0.")[0] == call.result.split(" in 0.")[0]
    assert environment.solved() and environment.tests_untouched()


def test_changing_the_tests_does_not_solve(library_bank: Path) -> None:
    repository = make_repository(Random("cheat"), "program")
    environment = Environment(repository)
    for path in repository.test_paths:
        environment.call("str_replace_editor", {"command": "view", "path": path})
        environment.call(
            "str_replace_editor",
            {"command": "create", "path": path, "file_text": "def test_a():\n    pass\n"},
        )
    assert environment.bash(TEST_COMMAND).endswith("s")
    assert not environment.tests_untouched() and not environment.solved()


@pytest.mark.parametrize(
    "command, expected",
    [
        ("pwd", "/srv/demo"),
        ("ls", "a.py\ntests"),
        ("cat a.py | head -1", "x = 1"),
        ("sed -n 2,3p a.py", "y = 2\nz = 3"),
        ("grep -n '= [12]' a.py", "1:x = 1\n2:y = 2"),
        ('grep -rn "x" --include=*.py . | sort', "./a.py:1:x = 1"),
        ("cd tests && pwd; git ls-files", "/srv/demo/tests\na.py\ntests/test_a.py"),
        ("cd nowhere", "bash: line 1: cd: nowhere: No such file or directory\n[exit code: 1]"),
        ("frobnicate", "bash: line 1: frobnicate: command not found\n[exit code: 127]"),
        ("true", "(no output)"),
    ],
)
def test_simple_commands(command: str, expected: str) -> None:
    from dsv4agent.tools import render_output
    from examples.train_mini.simulated_shell import SimulatedShell

    files = {"a.py": "x = 1\ny = 2\nz = 3\n", "tests/test_a.py": "def test_a():\n    pass\n"}
    shell = SimulatedShell("/srv/demo", lambda: files, sorted(files), lambda: "0.01")
    assert render_output(*shell.run(command)) == expected


def test_documents_are_encoded_as_the_whole_conversation(
    encoder: DocumentEncoder, library_bank: Path
) -> None:
    rng = Random("encode")
    for _ in range(10):
        episode = make_episode(rng)
        document = encoder.episode(episode)
        assert document.ids.tolist() == encoder.reference_ids(episode)
        assert document.weight[0] == NONE and document.weight[-1] == ASSISTANT_TEXT


def test_wrong_edits_carry_no_loss_and_the_fix_does(encoder: DocumentEncoder, library_bank: Path) -> None:
    rng = Random("weights")
    episode = teach(make_repository(rng, "program"), rng, wrong_tries=1, slips=False)
    document = encoder.episode(episode)
    kept = encoder.tokenizer.decode(document.ids[document.weight == ASSISTANT_TEXT].tolist())
    masked = encoder.tokenizer.decode(document.ids[document.weight == NONE].tolist())
    wrong = next(c for t in episode.turns for c in t.calls if not c.trained)
    assert wrong.args["new_str"] in masked
    assert f'name="new_str" string="true">{wrong.args["new_str"]}' not in kept
    assert episode.repository.bug.good_line.strip() in kept
    assert FIRST_COMMAND in kept and episode.turns[-1].content in kept


def edits_of(episode: Episode) -> list[tuple[int, Call]]:
    """Return the wrong and the empty edits with the numbers of their turns."""
    return [
        (number, call)
        for number, turn in enumerate(episode.turns)
        for call in turn.calls
        if not call.trained and call.result.startswith(("Edited", "no_change"))
    ]


def test_wrong_tries_are_repeated_and_edits_change_nothing(
    encoder: DocumentEncoder, library_bank: Path
) -> None:
    rng = Random("standing still")
    episodes = [make_episode(rng, "program") for _ in range(150)]
    repeating = [episode for episode in episodes if episode.repeats]
    unchanged = [episode for episode in episodes if episode.unchanged]
    assert 25 < len(repeating) < 90 and 7 < len(unchanged) < 35
    assert all(len(episode.turns) <= MAX_STEPS for episode in episodes)
    lengths = sorted(len(encoder.episode(episode)) for episode in episodes)
    assert lengths[-4] <= MAX_TOKENS
    for episode in repeating:
        again = [
            (first, second)
            for first, second in pairwise(edits_of(episode))
            if first[1].args == second[1].args and first[1].result.startswith("Edited")
        ]
        assert len(again) == episode.repeats
        for (number, _), (following, _) in again:
            assert following == number + 1
            assert episode.turns[following].content == episode.turns[number].content
            undo = episode.turns[following].calls[0]
            assert undo.trained and undo.result.startswith("Edited")
    for episode in unchanged:
        empty = [(n, call) for n, call in edits_of(episode) if call.args["old_str"] == call.args["new_str"]]
        assert len(empty) == episode.unchanged
        for number, call in empty:
            assert call.result == "no_change: old_str and new_str are the same; nothing was edited"
            assert episode.turns[number].content.startswith("Change `")
            assert " failed" in episode.turns[number].calls[-1].result
        right = [call for call in episode.turns[empty[-1][0] + 1].calls if call.name == "str_replace_editor"]
        good = episode.repository.bug.good_line
        # A slip of the fix, which is refused, may come before it.
        assert all(good.strip() in call.args["new_str"] for call in right if call.trained)
        assert len(episode.turns) - empty[-1][0] <= 4


def test_standing_still_is_reproducible_and_exact(library_bank: Path) -> None:
    first, second = ([make_episode(rng, "program") for _ in range(25)] for rng in (Random(5), Random(5)))
    assert [episode.turns for episode in first] == [episode.turns for episode in second]
    still = [episode for episode in first if episode.repeats or episode.unchanged]
    assert any(episode.repeats for episode in still) and any(episode.unchanged for episode in still)
    for episode in still:
        environment = Environment(episode.repository)
        for call in (call for turn in episode.turns for call in turn.calls):
            result = environment.call(call.name, call.args)
            assert result.split(" in 0.")[0] == call.result.split(" in 0.")[0]
        assert environment.solved()


def test_repeats_and_empty_edits_carry_no_loss(encoder: DocumentEncoder, library_bank: Path) -> None:
    rng = Random("masked")
    found = 0
    while found < 6:
        episode = make_episode(rng, "program")
        if not (episode.repeats and episode.unchanged):
            continue
        found += 1
        document = encoder.episode(episode)
        kept = encoder.tokenizer.decode(document.ids[document.weight == ASSISTANT_TEXT].tolist())
        good = episode.repository.bug.good_line
        for number, call in edits_of(episode):
            said = episode.turns[number].content
            # The right fix, and the undo of another try, may hold the same texts and are trained.
            trained = [c for t in episode.turns for c in t.calls if c.trained and "new_str" in c.args]
            count = sum(c.args["new_str"] == call.args["new_str"] for c in trained)
            assert kept.count(f'name="new_str" string="true">{call.args["new_str"]}</') == count
            sayings = [t.content for t in episode.turns if all(c.trained for c in t.calls)]
            assert kept.count(said) == sum(said in text for text in sayings)
        assert good.strip() in kept


def test_streams_are_reproducible_and_bounded(library_bank: Path) -> None:
    first = list(islice(documents(3), 12))
    second = list(islice(documents(3), 12))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.ids, b.ids) and np.array_equal(a.weight, b.weight)
        assert a.ids.dtype == np.uint16 and a.weight.dtype == np.uint8 and len(a) <= MAX_TOKENS


def test_edits_are_unique_in_the_file() -> None:
    text = "def f(x):\n    return x\n\n\ndef g(x):\n    return x\n"
    args = edit_arguments(text, "a.py", 6, "    return x + 1")
    assert args["old_str"] == "def g(x):\n    return x" and text.count(args["old_str"]) == 1
    assert text.replace(args["old_str"], args["new_str"]).endswith("def g(x):\n    return x + 1\n")


def test_the_shipped_tokenizer_reads_any_text() -> None:
    tokenizer = Tokenizer.from_file(ASSET)
    for text in ("def f(x):\n\treturn x\n", "Grüße ｜DSML｜ <think> 1234", "\x00\x7f", "    12\tif x:"):
        ids = tokenizer.encode_text(text)
        assert tokenizer.decode(ids) == text and not any(map(tokenizer.is_control, ids))
    assert tokenizer.vocab_size == 2560


def test_a_tokenizer_can_be_trained(tmp_path: Path) -> None:
    trained = train_tokenizer(list(runs_of_text("a<｜User｜>def f(x): return x" * 50)), 400)
    trained.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_file(tmp_path / "tokenizer.json").control_id("<｜User｜>") == 3
