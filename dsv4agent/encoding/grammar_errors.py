"""The error of the tool-call grammar."""

from __future__ import annotations

from dsv4agent.encoding.errors import ProtocolError


class GrammarError(ProtocolError):
    """Raised when tools cannot be made a grammar, or a constraint is driven against it.

    Reasons: `invalid_tool`, `duplicate_tool` and `uncompilable_tool` when a grammar is made;
    `rejected_token`, `rollback_too_far` and `grammar_exhausted` while a turn is written.
    """
