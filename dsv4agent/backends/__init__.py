"""Backends: what can stand behind an agent as its model."""

from dsv4agent.backends.checkpoint import Checkpoint
from dsv4agent.backends.embedded import EmbeddedBackend
from dsv4agent.backends.protocol import (
    Backend,
    BackendSequence,
    Chunk,
    Defaults,
    GenerationRequest,
    Usage,
)

__all__ = [
    "Backend",
    "BackendSequence",
    "Checkpoint",
    "Chunk",
    "Defaults",
    "EmbeddedBackend",
    "GenerationRequest",
    "Usage",
]
