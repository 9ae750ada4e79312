"""The control tokens of the chat protocol: texts, and which of them a tokenizer must have."""

from __future__ import annotations

from typing import Final

BOS: Final = "<｜begin▁of▁sentence｜>"
EOS: Final = "<｜end▁of▁sentence｜>"
PAD: Final = "<｜▁pad▁｜>"
SYSTEM: Final = "<｜System｜>"
USER: Final = "<｜User｜>"
ASSISTANT: Final = "<｜Assistant｜>"
THINK_OPEN: Final = "<think>"
THINK_CLOSE: Final = "</think>"
DSML: Final = "｜DSML｜"
LATEST_REMINDER: Final = "<｜latest_reminder｜>"
IMAGE: Final = "<｜deepseek_image｜>"

TASKS: Final[dict[str, str]] = {
    name: f"<｜{name}｜>" for name in ("action", "query", "authority", "domain", "title", "read_url")
}

REQUIRED: Final[tuple[str, ...]] = (BOS, EOS, USER, ASSISTANT, THINK_OPEN, THINK_CLOSE, DSML)
"""Without these no conversation with tools can be rendered. The others are needed only by those who use
them."""

ALL: Final[tuple[str, ...]] = (*REQUIRED, PAD, SYSTEM, LATEST_REMINDER, IMAGE, *TASKS.values())

TURN_STARTERS: Final[tuple[str, ...]] = (USER, ASSISTANT, SYSTEM, BOS)
"""Tokens that a completion can hold only if the model plays another speaker."""
