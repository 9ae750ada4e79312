"""Tokens in, tokens out: computes DeepSeek-V4 checkpoints. Knows nothing of chat, tools or agents."""

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.constraint import Constraint
from dsv4agent.engine.engine import Engine, EngineConfig, EngineStats
from dsv4agent.engine.errors import EngineError
from dsv4agent.engine.sampling import SamplingParams
from dsv4agent.engine.sequence import Sequence, Step, Usage

__all__ = [
    "Constraint",
    "Engine",
    "EngineConfig",
    "EngineError",
    "EngineStats",
    "ModelConfig",
    "SamplingParams",
    "Sequence",
    "Step",
    "Usage",
]
