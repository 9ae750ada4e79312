"""Trains the mini model's byte-level BPE tokenizer.

Control tokens have the official texts, with begin, end and padding at ids 0, 1 and 2. The pieces that every
conversation repeats (markup of tool calls, line numbers of the file viewer, lines of signs) are kept whole,
so that they can become single tokens; digits stand alone.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from dsv4agent.encoding.control_tokens import (
    ALL,
    ASSISTANT,
    BOS,
    DSML,
    EOS,
    LATEST_REMINDER,
    PAD,
    SYSTEM,
    TASKS,
    THINK_CLOSE,
    THINK_OPEN,
    USER,
)

CONTROL_TOKENS = (
    BOS,
    EOS,
    PAD,
    USER,
    ASSISTANT,
    THINK_OPEN,
    THINK_CLOSE,
    DSML,
    LATEST_REMINDER,
    *TASKS.values(),
    SYSTEM,
)
VOCABULARY = 2560
ASSET = Path(__file__).resolve().parents[2] / "dsv4agent" / "assets" / "mini" / "tokenizer.json"

_PIECES = (
    r"parameter name=\"(?:command|path|old_str|new_str|view_range)\" string=\"(?:true|false)\">",
    r"invoke name=\"(?:bash|str_replace_editor)\">\n<",
    r"parameter>\n</?|invoke>\n</?|tool_calls>(?:\n<)?",
    r"</tool_result>\n\n<tool_result>|</?tool_result>",
    r"\n\n<(?=\z)",
    r"git ls-files; python -m pytest -q --tb=short|python -m pytest -q -x --tb=short",
    r"\n(?:=+ short test summary info =+|=+ FAILURES =+|!+ stopping after 1 failures !+)\n",
    r"\n? {3,5}\d{1,3}\t",
    r" {4,}\[100%\]\n?|\n\[exit code: (?=\d)",
    r"={6,}|_{6,}|!{6,}|-{6,}|\^+",
    r"\nE {3,}(?= )|\nE {3,}|\nFAILED ",
    r"</|\n|\t|\d| ?[A-Za-z]+| ?_+|[ ]+(?= )| ?(?:(?!</)[^\sA-Za-z_0-9])+| +|\s",
)
PATTERN = "|".join(_PIECES)


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """Train on texts that hold no control tokens.

    Args:
        texts: Runs of text between control tokens.
        vocabulary: Number of ids, control tokens included.
    """
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    specials = {BOS, EOS, PAD}
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(t, special=t in specials, normalized=False) for t in CONTROL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=80,
        min_frequency=3,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def runs_of_text(prompt: str) -> Iterator[str]:
    """Yield what stands between the control tokens of a rendered conversation."""
    yield from (run for run in re.split("|".join(map(re.escape, ALL)), prompt) if run)


def training_texts(episodes: int, seed: int) -> Iterator[str]:
    """Yield the runs of text of generated episodes, of library functions and of vocabulary words.

    The tools' declarations, which stand in every conversation, come once in forty.
    """
    from dsv4agent.encoding import encode_messages
    from examples.train_mini.documents import REVISION, THINKING_MODE, messages_of
    from examples.train_mini.episodes import make_episode
    from examples.train_mini.library import library_sources
    from examples.train_mini.vocabulary import ADJECTIVES, COMMON_WORDS, NOUNS, VERBS

    rng = Random(seed)
    for number in range(episodes):
        messages = messages_of(make_episode(rng))
        if number % 40:
            messages[0] = {"role": "system", "content": ""}
        yield from runs_of_text(encode_messages(messages, THINKING_MODE, revision=REVISION))
    yield from library_sources()
    yield from (f" {word} {word}_" for word in (*NOUNS, *VERBS, *ADJECTIVES, *COMMON_WORDS))


def main() -> None:
    """Train the tokenizer from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSET, help="file to write")
    parser.add_argument("--episodes", type=int, default=6000)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    texts = list(training_texts(arguments.episodes, arguments.seed))
    tokenizer = train_tokenizer(texts, arguments.vocabulary)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(arguments.out))
    print(f"{tokenizer.get_vocab_size()} tokens: {arguments.out}")


if __name__ == "__main__":
    main()
