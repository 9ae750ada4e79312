"""How one session speaks with its model: revision, reasoning mode, tools and tokenizer in one place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from dsv4agent.context import system_message
from dsv4agent.encoding import ProtocolError, Revision, Tokenizer, encode_tokens
from dsv4agent.encoding.control_tokens import TURN_STARTERS
from dsv4agent.encoding.modes import encoder_mode
from dsv4agent.encoding.stream_parser import StreamParser
from dsv4agent.progress import Message
from dsv4agent.transcript import Header, NewSpan
from dsv4agent.turns import TurnReader, openai_tools

if TYPE_CHECKING:
    from dsv4agent.encoding.grammar import ToolCallGrammar
    from dsv4agent.engine import Constraint


class Dialect:
    """Encoder and parser, as the session's header fixes them."""

    def __init__(self, header: Header, tokenizer: Tokenizer, *, vocab_size: int | None) -> None:
        """Fix how to speak.

        Args:
            header: The session's header.
            tokenizer: The checkpoint's tokenizer.
            vocab_size: Length of the logits that the grammar masks; None if the backend takes no constraint.
        """
        self._header = header
        self._vocab_size = vocab_size
        self._tokenizer = tokenizer
        self._revision = Revision(header.model.revision)
        self._mode = encoder_mode(header.mode, self._revision)
        self._system = system_message(header.tools, header.instructions)

    @property
    def eos_id(self) -> int:
        """The id that ends a turn."""
        return self._tokenizer.eos_id

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids at which sampling ends: the end token, and all that would begin someone else's turn."""
        starters = (text for text in TURN_STARTERS if self._tokenizer.has_control(text))
        return frozenset({self.eos_id, *map(self._tokenizer.control_id, starters)})

    def encode(self, messages: Sequence[Message], *, first: bool) -> list[NewSpan]:
        """Return the ids of new messages, up to where the model's turn begins.

        After the first step only the new messages are rendered. The context that stands in for all before
        them is the system message, which keeps reasoning in place, and an assistant message, which is what
        new messages follow: so prefix and suffix together are what rendering the whole conversation gives.
        """
        context = None if first else [self._system, {"role": "assistant", "content": ""}]
        prompt = encode_tokens(
            [self._system, *messages] if first else messages,
            self._tokenizer,
            thinking_mode=self._mode.thinking_mode,
            revision=self._revision,
            context=context,
            drop_thinking=False,
            reasoning_effort=self._mode.reasoning_effort,
        )
        return [NewSpan(span.ids, span.kind.value, span.provenance) for span in prompt.spans]

    def constraint(self, written: Sequence[int]) -> Constraint | None:
        """Return the grammar of a turn that already has these ids, or None if sampling is not constrained.

        A turn whose ids break the grammar (sampled before there was one) goes on without it; its calls are
        validated all the same.
        """
        if self._grammar is None:
            return None
        try:
            return self._grammar.constraint(written)
        except ProtocolError as error:
            if error.reason != "rejected_token":
                raise
            return None

    @cached_property
    def _grammar(self) -> ToolCallGrammar | None:
        if self._vocab_size is None:
            return None
        # It brings torch, which a session over a server's model need not load.
        from dsv4agent.encoding.grammar import ToolCallGrammar

        mode = self._mode.thinking_mode
        return ToolCallGrammar(
            self._header.tools, self._tokenizer, self._revision, mode, vocab_size=self._vocab_size
        )

    def reader(self) -> TurnReader:
        """Return a reader for one turn of the model."""
        parser = StreamParser(
            self._revision,
            self._mode.thinking_mode,
            openai_tools(self._header.tools),
            tokenizer=self._tokenizer,
        )
        return TurnReader(parser, [str(function["name"]) for function in self._header.tools])
