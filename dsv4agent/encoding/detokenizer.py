"""Ids to text as they arrive, never cutting a character in two."""

from __future__ import annotations

import codecs
from typing import Protocol


class _Vocabulary(Protocol):
    def id_bytes(self, token_id: int) -> bytes: ...


class IncrementalDetokenizer:
    """Joins the bytes of ids and hands out whole characters.

    The concatenation of all `push` results and `flush` equals decoding all ids at once.
    """

    def __init__(self, vocabulary: _Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Take one id and return the characters it completes, possibly none."""
        return self._decoder.decode(self._vocabulary.id_bytes(token_id))

    def flush(self) -> str:
        """Return what is held back; an incomplete character becomes U+FFFD."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text
