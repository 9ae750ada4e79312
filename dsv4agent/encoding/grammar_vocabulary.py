"""A tokenizer's vocabulary as constraints need it: for the grammar engine, as masks, for canonical splits."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper
from torch import Tensor

from dsv4agent.encoding.control_tokens import BOS, DSML, THINK_CLOSE
from dsv4agent.encoding.tokenizer import Tokenizer

# An object with a thousand optional properties has thousands of ways to go on behind its first brace.
_LIMITS: Final = LLParserLimits(max_items_in_row=20_000, step_max_items=500_000, verbose_errors=False)


class Vocabulary:
    """What all grammars over one tokenizer share. Half a second for the 129,280 ids of V4: made once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.size = tokenizer.vocab_size
        self.eos_id = tokenizer.eos_id
        self.marker_id = tokenizer.control_id(DSML)
        self.think_close_id = tokenizer.control_id(THINK_CLOSE)
        pieces = [tokenizer.id_bytes(token) for token in range(self.size)]
        # Gaps of the vocabulary stand for nothing; as unreachable as control ids are.
        gaps = {token for token, piece in enumerate(pieces) if not piece}
        barred = tokenizer.control_ids | gaps
        self.is_text = bytearray(token not in barred for token in range(self.size))
        self._sorted = sorted(piece for token, piece in enumerate(pieces) if self.is_text[token])
        self._engine = LLTokenizer(
            TokenizerWrapper(_Source(tokenizer, pieces, sorted(barred))), n_vocab=self.size
        )

    def text_mask(self, size: int, *also: int) -> Tensor:
        """Return a mask, bool [size], of all ordinary ids and of `also`."""
        mask = torch.zeros(size, dtype=torch.bool)
        mask[: self.size] = torch.frombuffer(self.is_text, dtype=torch.uint8).to(torch.bool)
        mask[list(also)] = True
        return mask

    def matcher(self, grammar: str) -> LLMatcher:
        """Return a matcher at the beginning of a Lark grammar; it may be in its error state."""
        return LLMatcher(self._engine, grammar, log_level=0, limits=_LIMITS)

    def stable_ids(self, text: str) -> list[int]:
        """Return the ids with which the tokenizer's own split of every text that begins with `text` begins.

        The token that crosses the end of `text` in such a split begins at one of the places from where on
        `text` is the beginning of a token. What stands before that place is split as if it stood alone.
        """
        whole = text.encode()
        stable = self.tokenizer.encode_text(text)
        for start in range(len(whole)):
            if self._begins_token(whole[start:]):
                before = self.tokenizer.encode_text(whole[:start].decode("utf-8", "ignore"))
                stable = stable[: _common_length(stable, before)]
        return stable

    def _begins_token(self, piece: bytes) -> bool:
        """Whether a longer ordinary token begins with `piece`."""
        position = bisect_right(self._sorted, piece)
        return position < len(self._sorted) and self._sorted[position].startswith(piece)


class _Source:
    """The shape in which the grammar engine takes a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, tokens: list[bytes], special_token_ids: list[int]) -> None:
        self.tokens = tokens
        self.special_token_ids = special_token_ids
        self.eos_token_id = tokenizer.eos_id
        self.bos_token_id = tokenizer.control_id(BOS)
        self._tokenizer = tokenizer

    def __call__(self, text: bytes | str) -> list[int]:
        return self._tokenizer.encode_text(text if isinstance(text, str) else text.decode())


@lru_cache(maxsize=4)
def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Return the vocabulary of a tokenizer, made at the first call."""
    return Vocabulary(tokenizer)


def _common_length(one: Sequence[int], other: Sequence[int]) -> int:
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
