r"""The grammar of tool calls: what an assistant turn may hold, token by token.

```
turn    := [reasoning </think>] content [block] end-of-sentence
content := text without any control id
block   := DSML marker behind "\n\n<", then calls of declared tools in the encoder's exact layout
```

Text is free: any ordinary id, also those that spell control tokens. Control ids stand only where the format
has them. A block is entered through the id of the DSML marker alone, and then it is whole and valid: declared
names, every required parameter, none twice, values by their schemas. Nested objects have their properties in
schema order. Only a tool that takes a map (`additionalProperties` without `properties`) may see one name
twice; validation catches that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from llguidance import LLMatcher
from torch import Tensor

from dsv4agent.encoding.grammar_errors import GrammarError
from dsv4agent.encoding.grammar_forcing import ForcedRuns
from dsv4agent.encoding.grammar_layout import ToolShape, block_grammar, tool_shape
from dsv4agent.encoding.grammar_vocabulary import Vocabulary, vocabulary
from dsv4agent.encoding.revision import DEFAULT_REVISION, DsmlTags, as_revision, dsml_tags
from dsv4agent.encoding.tokenizer import Tokenizer

_BEFORE_MARKER: Final = b"\n\n<"
"""What the encoder writes before the first marker of a block."""


class ToolCallGrammar:
    """The grammar of the assistant's turns in one session. Immutable, safe to share between threads."""

    def __init__(
        self,
        functions: Sequence[Mapping[str, Any]],
        tokenizer: Tokenizer,
        revision: str = DEFAULT_REVISION,
        thinking_mode: str = "thinking",
        *,
        vocab_size: int | None = None,
    ) -> None:
        """Compile the grammar; equal tools over the same tokenizer are compiled once.

        Args:
            functions: `function` objects (`name`, `parameters`) of the declared tools; may be none.
            tokenizer: The checkpoint's tokenizer.
            revision: The revision the prompt was rendered with.
            thinking_mode: `thinking` if turns begin behind an open `<think>`, otherwise `chat`.
            vocab_size: Length of the model's logits, if longer than the tokenizer's vocabulary.

        Raises:
            GrammarError: `invalid_tool`, `duplicate_tool` or `uncompilable_tool`; the message names the tool.
        """
        rev = as_revision(revision)
        tools = tuple(tool_shape(function, rev) for function in functions)
        names = [tool.name for tool in tools]
        for name in names:
            if names.count(name) > 1:
                raise GrammarError(f"Two tools have the name {name!r}; rename one.", reason="duplicate_tool")
        self._thinking = thinking_mode == "thinking"
        self._masks = _masks(vocabulary(tokenizer), vocab_size or tokenizer.vocab_size)
        self._block = _compile(tools, dsml_tags(rev), vocabulary(tokenizer)) if tools else None

    def constraint(self, written: Sequence[int] = ()) -> TurnConstraint:
        """Return the constraint of one turn.

        Args:
            written: Ids that the turn already has, behind the assistant header with its think tag.

        Raises:
            GrammarError: `rejected_token` if `written` breaks the grammar.
        """
        constraint = TurnConstraint(self._masks, self._block, self._thinking)
        constraint.commit(written)
        return constraint


@dataclass(frozen=True)
class _Masks:
    """The constant masks, bool [V]: ordinary ids and what else may stand at a place of free text."""

    vocabulary: Vocabulary
    size: int
    reasoning: Tensor
    content: Tensor
    before_block: Tensor
    nothing: Tensor


@dataclass(frozen=True)
class _Block:
    """A compiled block: a matcher at its beginning, to be copied, and its forced runs."""

    matcher: LLMatcher
    runs: ForcedRuns


@lru_cache(maxsize=8)
def _masks(words: Vocabulary, size: int) -> _Masks:
    return _Masks(
        vocabulary=words,
        size=size,
        reasoning=words.text_mask(size, words.think_close_id),
        content=words.text_mask(size, words.eos_id),
        before_block=words.text_mask(size, words.eos_id, words.marker_id),
        nothing=torch.zeros(size, dtype=torch.bool),
    )


@lru_cache(maxsize=64)
def _compile(tools: tuple[ToolShape, ...], tags: DsmlTags, words: Vocabulary) -> _Block:
    def compiled(*some: ToolShape) -> LLMatcher:
        return words.matcher(block_grammar(some, tags, words.marker_id))

    matcher = compiled(*tools)
    if (
        matcher.is_error()
    ):  # too large: the tools at fault, or else all, go without the inner parts of their schemas
        at_fault = [compiled(tool).is_error() for tool in tools]
        relaxed = [fault or not any(at_fault) for fault in at_fault]
        tools = tuple(tool.relaxed() if relax else tool for tool, relax in zip(tools, relaxed, strict=True))
        matcher = compiled(*tools)
    if matcher.is_error():
        names = [tool.name for tool in tools if compiled(tool).is_error()] or [tool.name for tool in tools]
        raise GrammarError(
            f"No grammar can be made of {', '.join(map(repr, names))}, simplify the schema: "
            f"{matcher.get_error():.500}",
            reason="uncompilable_tool",
        )
    return _Block(matcher, ForcedRuns(tools, tags, words))


class TurnConstraint:
    """The state of one turn; an engine `Constraint`.

    Free text is looked up in constant masks. Only inside a block the matcher runs.
    """

    def __init__(self, masks: _Masks, block: _Block | None, thinking: bool) -> None:
        self._masks = masks
        self._words = masks.vocabulary
        self._block = block
        self._ids: list[int] = []
        self._reasoning_end = None if thinking else 0
        """How many ids reasoning and its closing tag take; None while it goes on."""
        self._matcher: LLMatcher | None = None
        self._markers: list[tuple[int, str | None]] = []
        """Behind each marker of the block: how many ids the turn has, and which tool's call is open."""

    @property
    def finished(self) -> bool:
        """Whether the turn has ended; nothing may follow."""
        return bool(self._ids) and self._ids[-1] == self._words.eos_id

    @property
    def in_block(self) -> bool:
        """Whether the turn has begun a block of calls."""
        return self._matcher is not None

    def mask(self, logits: Tensor | None = None) -> Tensor:
        """Return what may come next: bool [V] on the CPU. Constant masks are shared, so do not write to it.

        Raises:
            GrammarError: `grammar_exhausted` if the value being written outgrew the grammar engine's limits.
        """
        if self.finished:
            return self._masks.nothing
        if self._matcher is not None:
            return self._block_mask(self._matcher)
        if self._reasoning_end is None:
            return self._masks.reasoning
        return self._masks.before_block if self._may_open_block() else self._masks.content

    def commit(self, tokens: Sequence[int]) -> None:
        """Advance over `tokens`, or over none of them if one does not fit.

        Raises:
            GrammarError: `rejected_token`; `grammar_exhausted` as `mask`, which ends the constraint's use.
        """
        for done, token in enumerate(tokens):
            if not self._accept(int(token)):
                if self._matcher is not None and self._matcher.is_error():
                    raise _exhausted(self._matcher)
                self.rollback(done)
                shown = self._words.tokenizer.decode([token]) if 0 <= token < self._words.size else ""
                raise GrammarError(
                    f"Token {token} {shown!r} may not stand here; sample under the mask.",
                    reason="rejected_token",
                )

    def rollback(self, count: int) -> None:
        """Take back the last `count` tokens.

        Raises:
            GrammarError: `rollback_too_far`.
        """
        length = len(self._ids) - count
        if count < 0 or length < 0:
            raise GrammarError(
                f"Cannot take back {count} of {len(self._ids)} tokens of the turn.", reason="rollback_too_far"
            )
        if self._matcher is not None:
            if length < self._markers[0][0]:
                self._matcher = None
            else:
                self._matcher.rollback(count - self.finished if count else 0)
        while self._markers and self._markers[-1][0] > length:
            self._markers.pop()
        if self._reasoning_end and self._reasoning_end > length:
            self._reasoning_end = None
        del self._ids[length:]

    def forced(self) -> Sequence[int]:
        """Return the ids that must come next, in the tokenizer's own split; the end of the turn included."""
        if self._matcher is None or self._block is None or self.finished:
            return ()
        start, tool = self._markers[-1]
        return self._block.runs.ahead(self._ids[start:], tool, self._matcher)

    def fork(self) -> TurnConstraint:
        """Return an independent copy at the same place."""
        copy = TurnConstraint(self._masks, self._block, thinking=False)
        copy._ids = self._ids.copy()
        copy._reasoning_end = self._reasoning_end
        copy._matcher = None if self._matcher is None else self._matcher.deep_copy()
        copy._markers = self._markers.copy()
        return copy

    def _accept(self, token: int) -> bool:
        """Advance over one token if it fits; otherwise leave everything as it is."""
        words = self._words
        if not 0 <= token < words.size or self.finished:
            return False
        if self._matcher is not None:
            if token == words.eos_id:
                fits = self._matcher.is_accepting()
            else:
                fits = self._matcher.try_consume_tokens([token]) == 1
            if not fits:
                return False
        elif token == words.marker_id:
            if self._block is None or not self._may_open_block():
                return False
            self._matcher = self._block.matcher.deep_copy()
        elif token == words.think_close_id:
            if self._reasoning_end is not None:
                return False
            self._reasoning_end = len(self._ids) + 1
        elif token == words.eos_id:
            if self._reasoning_end is None:
                return False
        elif not words.is_text[token]:
            return False
        self._ids.append(token)
        if token == words.marker_id:
            self._note_marker()
        return True

    def _note_marker(self) -> None:
        tool = None
        if self._markers and self._block is not None:
            start, before = self._markers[-1]
            tool = self._block.runs.open_call(self._ids[start:-1], before)
        self._markers.append((len(self._ids), tool))

    def _may_open_block(self) -> bool:
        """Whether the content so far ends with what stands before the marker of a block."""
        if self._block is None or self._reasoning_end is None:
            return False
        tail = b""
        for token in reversed(self._ids[max(self._reasoning_end, len(self._ids) - len(_BEFORE_MARKER)) :]):
            tail = self._words.tokenizer.id_bytes(token) + tail
            if len(tail) >= len(_BEFORE_MARKER):
                break
        return tail.endswith(_BEFORE_MARKER)

    def _block_mask(self, matcher: LLMatcher) -> Tensor:
        packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        if matcher.is_error():
            raise _exhausted(matcher)
        mask = torch.zeros(self._masks.size, dtype=torch.bool)
        allowed = np.unpackbits(packed, count=self._words.size, bitorder="little")
        mask[: self._words.size] = torch.frombuffer(allowed, dtype=torch.bool)
        return mask


def _exhausted(matcher: LLMatcher) -> GrammarError:
    return GrammarError(
        f"The grammar cannot follow this value, simplify its schema: {matcher.get_error():.300}",
        reason="grammar_exhausted",
    )
