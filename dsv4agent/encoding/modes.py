"""The three reasoning modes of the report, and what each means to an encoder revision."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dsv4agent.encoding.effort import effort_text
from dsv4agent.encoding.errors import EncodingError
from dsv4agent.encoding.revision import as_revision

THINK_MAX_WINDOW: Final = 384 * 1024
"""Tokens of context the report asks for with think-max."""


class ContextWindowWarning(UserWarning):
    """Warns that the window is too small for the reasoning that the mode asks for."""


class ThinkingMode(StrEnum):
    """How much the model reasons before it answers."""

    NON_THINK = "non-think"
    THINK_HIGH = "think-high"
    THINK_MAX = "think-max"

    @property
    def effort(self) -> str | None:
        """The effort name of every revision for this mode."""
        return {"think-high": "high", "think-max": "max"}.get(self.value)


@dataclass(frozen=True)
class EncoderMode:
    """A mode in the encoder's own terms: arguments of `encode_messages`."""

    thinking_mode: str
    reasoning_effort: str | None


@dataclass(frozen=True)
class SamplingDefaults:
    """The sampling parameters the model was made for, in every mode."""

    temperature: float = 1.0
    top_p: float = 1.0


def encoder_mode(mode: ThinkingMode | str, revision: str, *, window: int | None = None) -> EncoderMode:
    """Return the encoder arguments for a mode.

    Both thinking modes go by the names of the checkpoint's own revision, `high` and `max`. The same name
    renders another text in each (the July 2026 revision moved every tier up by one), so the revision must be
    the checkpoint's.

    Args:
        mode: The mode or its name.
        revision: The checkpoint's revision.
        window: Context window in tokens; think-max warns below 384K.

    Raises:
        EncodingError: `unknown_mode` or `unknown_revision`.
    """
    try:
        mode = ThinkingMode(mode)
    except ValueError:
        known = ", ".join(item.value for item in ThinkingMode)
        raise EncodingError(
            f"Unknown thinking mode {mode!r}; use one of {known}.", reason="unknown_mode"
        ) from None
    effort_text(mode.effort, as_revision(revision))  # the revision knows the name, or says so
    if mode is ThinkingMode.NON_THINK:
        return EncoderMode("chat", None)
    if mode is ThinkingMode.THINK_HIGH:
        return EncoderMode("thinking", mode.effort)
    if window is not None and window < THINK_MAX_WINDOW:
        warnings.warn(
            f"think-max wants a window of {THINK_MAX_WINDOW} tokens, here are {window}. "
            "Use think-high, or a larger window.",
            ContextWindowWarning,
            stacklevel=2,
        )
    return EncoderMode("thinking", mode.effort)
