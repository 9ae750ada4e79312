"""Completions as symbols: text in which each genuine control token is one character that text can never hold.

Lone surrogates cannot occur in decoded UTF-8, so they stand for control tokens. Behind this door the parser
is the same for ids (only a control id makes a symbol) and for text (a token's spelling makes one, for want of
anything better).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from dsv4agent.encoding.control_tokens import ASSISTANT, BOS, DSML, EOS, SYSTEM, THINK_CLOSE, THINK_OPEN, USER
from dsv4agent.encoding.tokenizer import Tokenizer

DSML_SYMBOL: Final = "\ud800"
THINK_OPEN_SYMBOL: Final = "\ud801"
THINK_CLOSE_SYMBOL: Final = "\ud802"
EOS_SYMBOL: Final = "\ud803"
_TURN_SYMBOLS: Final = {USER: "\ud804", ASSISTANT: "\ud805", SYSTEM: "\ud806", BOS: "\ud807"}

SYMBOLS: Final[dict[str, str]] = {
    DSML: DSML_SYMBOL,
    THINK_OPEN: THINK_OPEN_SYMBOL,
    THINK_CLOSE: THINK_CLOSE_SYMBOL,
    EOS: EOS_SYMBOL,
    **_TURN_SYMBOLS,
}
_TEXTS: Final = {ord(symbol): text for text, symbol in SYMBOLS.items()}
_ANY_SYMBOL: Final = re.compile("[\ud800-\ud807]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MARKER: Final = re.compile("|".join(map(re.escape, SYMBOLS)))
_LONGEST: Final = max(map(len, SYMBOLS))
_PREFIXES: Final = frozenset(text[:length] for text in SYMBOLS for length in range(1, len(text)))

END: Final = re.compile(f"[{EOS_SYMBOL}{''.join(_TURN_SYMBOLS.values())}]")
"""Matches a symbol that ends the turn."""


def to_text(symbols: str) -> str:
    """Return what the symbols stand for as plain text."""
    return symbols.translate(_TEXTS) if _ANY_SYMBOL.search(symbols) else symbols


class TextSource:
    """Text to symbols. A spelt control token counts as one, also when it comes in pieces."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """Take more text; what may be the beginning of a control token is held back."""
        if _SURROGATE.search(text):
            text = _SURROGATE.sub("\ufffd", text)
        symbols = _MARKER.sub(lambda match: SYMBOLS[match.group()], self._held + text)
        for start in range(max(len(symbols) - _LONGEST + 1, 0), len(symbols)):
            if symbols[start:] in _PREFIXES:
                self._held = symbols[start:]
                return symbols[:start]
        self._held = ""
        return symbols

    def flush(self) -> str:
        """Return what is held back, as the text it is."""
        held, self._held = self._held, ""
        return held


class IdSource:
    """Ids to symbols. Only control ids make symbols; text that spells one stays text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._text = tokenizer.incremental()

    def push(self, ids: Iterable[int]) -> str:
        """Take more ids; bytes of an unfinished character are held back."""
        pieces: list[str] = []
        for token_id in ids:
            symbol = SYMBOLS.get(self._tokenizer.control_text(token_id) or "")
            if symbol is None:
                pieces.append(self._text.push(token_id))
            else:
                pieces += (self._text.flush(), symbol)
        return "".join(pieces)

    def flush(self) -> str:
        """Return U+FFFD for a character that never finished."""
        return self._text.flush()
