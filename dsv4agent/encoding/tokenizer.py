"""The tokenizer: foreign text to ids that are never control ids, control texts to ids, ids to bytes.

The library's own switch (`encode_special_tokens`) leaves added tokens that are not `special` active, and
almost all control tokens of V4 are such. So foreign text goes through a second tokenizer that has no added
tokens and whose merges cannot spell one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Self, cast

from tokenizers import Tokenizer as LibraryTokenizer

from dsv4agent.encoding.control_tokens import EOS, REQUIRED
from dsv4agent.encoding.detokenizer import IncrementalDetokenizer
from dsv4agent.encoding.errors import TokenizerError


class Tokenizer:
    """A byte-level BPE tokenizer read from a `tokenizer.json`.

    Safe to share between threads: nothing changes after construction.
    """

    def __init__(self, definition: str, *, source: str = "tokenizer.json") -> None:
        """Build from the text of a `tokenizer.json`.

        Args:
            definition: The JSON text.
            source: Where it came from, for messages.

        Raises:
            TokenizerError: `tokenizer_broken`, `not_byte_level`, `missing_control_token` or
                `control_token_reachable`.
        """
        try:
            parsed = cast("dict[str, Any]", json.loads(definition))
            added = cast("list[dict[str, Any]]", parsed.get("added_tokens") or [])
            model = cast("dict[str, Any]", parsed["model"])
            vocab = cast("dict[str, int]", model["vocab"])
            self._controls: dict[str, int] = {str(token["content"]): int(token["id"]) for token in added}
            decoder = cast("dict[str, Any]", parsed.get("decoder") or {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TokenizerError(
                f"{source} is not a usable tokenizer definition ({error!r}); fetch the file again.",
                reason="tokenizer_broken",
            ) from error
        missing = [token for token in REQUIRED if token not in self._controls]
        if missing:
            raise TokenizerError(
                f"{source} lacks the control tokens {', '.join(missing)}; it is not a DeepSeek-V4 tokenizer.",
                reason="missing_control_token",
            )
        if decoder.get("type") != "ByteLevel" or parsed.get("normalizer") not in (None, _NO_NORMALIZER):
            raise TokenizerError(
                f"{source} is not byte-level without normaliser; ids could not give back the same bytes.",
                reason="not_byte_level",
            )
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._control_pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self._foreign = self._without_added_tokens(parsed, model, vocab, source)
        self._ids_to_controls: dict[int, str] = {token_id: text for text, token_id in self._controls.items()}
        size = max([*vocab.values(), *self._controls.values()]) + 1
        table: list[bytes] = [b""] * size
        for text, token_id in vocab.items():
            if token_id not in self._ids_to_controls:
                table[token_id] = _piece_bytes(text)
        for text, token_id in self._controls.items():
            table[token_id] = text.encode()
        self._bytes: tuple[bytes, ...] = tuple(table)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a `tokenizer.json`.

        Raises:
            TokenizerError: `tokenizer_missing`, or as the constructor.
        """
        try:
            definition = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise TokenizerError(
                f"{path} is not UTF-8; fetch the file again.", reason="tokenizer_broken"
            ) from error
        except OSError as error:
            raise TokenizerError(
                f"Cannot read {path}: {error.strerror}. A checkpoint needs its tokenizer.json.",
                reason="tokenizer_missing",
            ) from error
        return cls(definition, source=str(path))

    @classmethod
    def from_checkpoint(cls, folder: str | Path) -> Self:
        """Read the `tokenizer.json` of a checkpoint folder; errors as `from_file`."""
        return cls.from_file(Path(folder) / "tokenizer.json")

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return len(self._bytes)

    @property
    def eos_id(self) -> int:
        """The id that ends a completion."""
        return self._controls[EOS]

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids of all added tokens; foreign text never yields one."""
        return frozenset(self._ids_to_controls)

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of foreign text; no control id among them, whatever the text spells.

        Raises:
            TokenizerError: `not_unicode` if the text holds lone surrogates.
        """
        try:
            ids = self._foreign.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError) as error:
            raise TokenizerError(
                "The text holds lone surrogates; decode bytes with errors='replace' first.",
                reason="not_unicode",
            ) from error
        return ids

    def encode_trusted(self, text: str) -> list[int]:
        """Return the ids of text in which every spelt control token is meant, as the official tokenizer does.

        Never pass text that anyone else can influence.

        Raises:
            TokenizerError: `not_unicode`.
        """
        ids: list[int] = []
        for number, piece in enumerate(self._control_pattern.split(text)):
            if number % 2:
                ids.append(self._controls[piece])
            elif piece:
                ids += self.encode_text(piece)
        return ids

    def count(self, text: str) -> int:
        """Return the number of ids of foreign text."""
        return len(self.encode_text(text))

    def control_id(self, text: str) -> int:
        """Return the id of a control token given by its exact text.

        Raises:
            TokenizerError: `missing_control_token`.
        """
        try:
            return self._controls[text]
        except KeyError:
            raise TokenizerError(
                f"The tokenizer has no control token {text!r}; this checkpoint cannot express that.",
                reason="missing_control_token",
            ) from None

    def has_control(self, text: str) -> bool:
        """Whether the tokenizer has this control token."""
        return text in self._controls

    def is_control(self, token_id: int) -> bool:
        """Whether an id is that of an added token."""
        return token_id in self._ids_to_controls

    def control_text(self, token_id: int) -> str | None:
        """Return the text of a control id, or None for an ordinary id."""
        return self._ids_to_controls.get(token_id)

    def id_bytes(self, token_id: int) -> bytes:
        """Return the bytes an id stands for; control ids stand for their text.

        Raises:
            TokenizerError: `unknown_id`.
        """
        if not 0 <= token_id < len(self._bytes):
            raise TokenizerError(f"Id {token_id} is not in the vocabulary.", reason="unknown_id")
        return self._bytes[token_id]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of a sequence of ids; errors as `id_bytes`."""
        return b"".join(map(self.id_bytes, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, control tokens included; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def incremental(self) -> IncrementalDetokenizer:
        """Return a detokenizer that takes ids one at a time."""
        return IncrementalDetokenizer(self)

    @staticmethod
    def _without_added_tokens(
        parsed: dict[str, Any], model: dict[str, Any], vocab: dict[str, int], source: str
    ) -> LibraryTokenizer:
        added = cast("list[dict[str, Any]]", parsed["added_tokens"])
        ids = {int(token["id"]) for token in added}
        names = {text for text, token_id in vocab.items() if token_id in ids}
        products = {_merge_product(merge) for merge in cast("list[object]", model.get("merges") or [])}
        reachable = sorted(name for name in names if name in products or len(name) == 1)
        if reachable or model.get("ignore_merges"):
            raise TokenizerError(
                f"{source}: plain text could turn into control tokens ({reachable or 'ignore_merges'}).",
                reason="control_token_reachable",
            )
        try:
            return LibraryTokenizer.from_str(
                json.dumps({**parsed, "added_tokens": [], "truncation": None, "padding": None})
            )
        except Exception as error:  # the library raises bare Exception for every fault of a file
            raise TokenizerError(f"{source} cannot be loaded: {error}", reason="tokenizer_broken") from error


_NO_NORMALIZER: Final[dict[str, object]] = {"type": "Sequence", "normalizers": []}


def _merge_product(merge: object) -> str:
    if isinstance(merge, str):
        return merge.replace(" ", "", 1)
    return "".join(cast("Sequence[str]", merge))


def _byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for.

    Printable Latin-1 characters stand for themselves; the other bytes follow from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return alphabet | {chr(0x100 + offset): byte for offset, byte in enumerate(others)}


_ALPHABET: Final = _byte_alphabet()


def _piece_bytes(piece: str) -> bytes:
    try:
        return bytes([_ALPHABET[character] for character in piece])
    except KeyError:
        return piece.encode()
