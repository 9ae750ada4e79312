"""How training draws from the pools of functions."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

MIX: Final[Mapping[str, float]] = {"library": 0.27, "program": 0.13, "known": 0.60}
"""Shares of the pools among episodes."""
REFINING_MIX: Final[Mapping[str, float]] = {"library": 0.12, "program": 0.06, "known": 0.82}
"""Shares for going on from trained weights: what a general reading of code gives is there by then, the known
families are what the model is used for."""


def draw_pool(rng: Random, mix: Mapping[str, float] = MIX) -> str:
    """Draw a pool by its share."""
    return rng.choices(list(mix), list(mix.values()))[0]
