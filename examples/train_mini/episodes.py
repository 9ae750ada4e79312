"""The stream of training documents: episodes of all pools in their mix, and plain code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Final

from dsv4agent.encoding import Tokenizer
from examples.train_mini.documents import CachingTokenizer, Document, DocumentEncoder
from examples.train_mini.library import library_sources
from examples.train_mini.limits import DOCUMENT_TOKENS
from examples.train_mini.mix import MIX, REFINING_MIX, draw_pool
from examples.train_mini.repository import make_repository
from examples.train_mini.teacher import Episode, Unteachable, teach
from examples.train_mini.tokenizer import ASSET

CODE_SHARE: Final = 0.08
"""Share of documents that are plain source text."""
SYSTEM_SHARE: Final = 0.45
"""Share of episodes that begin with the system prompt, as real sessions do."""
MAX_TOKENS: Final = DOCUMENT_TOKENS


def make_episode(rng: Random, pool: str | None = None, mix: Mapping[str, float] = MIX) -> Episode:
    """Return a new episode, of a pool drawn by `mix` unless one is given."""
    while True:
        chosen = pool or draw_pool(rng, mix)
        try:
            episode = teach(make_repository(rng, chosen), rng)
        except Unteachable:
            continue
        if episode.exact:
            return episode


def documents(
    seed: int,
    tokenizer: Tokenizer | str | Path = ASSET,
    *,
    max_tokens: int = MAX_TOKENS,
    code_share: float = CODE_SHARE,
    mix: Mapping[str, float] = MIX,
) -> Iterator[Document]:
    """Yield training documents without end.

    Args:
        seed: The same seed gives the same documents on the same machine; give each feeder its own.
        tokenizer: The mini model's tokenizer, or its file.
        max_tokens: Longer documents are left out (episodes) or cut (code).
        code_share: Share of documents that are plain code.
        mix: Shares of the pools among the episodes.

    Raises:
        MissingBank: The bank of library functions was not made on this machine yet.
    """
    rng = Random(seed)
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = CachingTokenizer.from_file(tokenizer)
    encoder = DocumentEncoder(tokenizer)
    sources = library_sources()
    while True:
        if rng.random() < code_share:
            yield _code(rng, sources, encoder, max_tokens)
            continue
        document = encoder.episode(make_episode(rng, mix=mix), system=rng.random() < SYSTEM_SHARE)
        if len(document) <= max_tokens:
            yield document


def refining_documents(seed: int, tokenizer: Tokenizer | str | Path = ASSET) -> Iterator[Document]:
    """Yield the documents for going on from trained weights, more of the known families among them."""
    return documents(seed, tokenizer, code_share=CODE_SHARE / 2, mix=REFINING_MIX)


def _code(rng: Random, sources: list[str], encoder: DocumentEncoder, max_tokens: int) -> Document:
    """Return some functions of the installed Python as one document."""
    text = "\n\n\n".join(rng.sample(sources, min(len(sources), rng.randint(2, 6))))
    document = encoder.code(text)
    return Document(document.ids[:max_tokens], document.weight[:max_tokens])
