"""What a stored session says about itself: written once, when the session is made, and never changed."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

FORMAT = 1


def new_session_id() -> str:
    """Return an id that sorts by time and does not repeat."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class Sampling(BaseModel):
    """How ids are drawn; stored, so that a resumed turn continues exactly as it would have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=1.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    seed: int = Field(default_factory=lambda: secrets.randbits(53), ge=0)


class ModelRecord(BaseModel):
    """Which checkpoint wrote the session; `fingerprint` must match for its ids to mean the same again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: str
    fingerprint: str
    revision: str
    context_window: int


class Parent(BaseModel):
    """Where a forked session left its parent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    session_id: str
    position: int


class Header(BaseModel):
    """Identity, model, encoding, tools, place and origin of a session.

    Attributes:
        instructions: The system text.
        mode: Reasoning mode (`non-think`, `think-high`, `think-max`).
        profile: Name of the set of tools, or `custom` if the program chose its own.
        tools: The `function` objects that the model was shown, in order.
        sandbox: Name of the provider that was asked for, and the enforcement report of the first opening.
        created: ISO 8601 time in UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    session_id: str = Field(default_factory=new_session_id)
    model: ModelRecord
    mode: str
    instructions: str
    sampling: Sampling
    profile: str = "minimal"
    tools: tuple[dict[str, Any], ...]
    sandbox: dict[str, Any]
    workspace: str
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    parent: Parent | None = None
