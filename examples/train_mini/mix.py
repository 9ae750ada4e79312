"""How training draws from the pools of functions."""

from __future__ import annotations

from random import Random
from typing import Final

MIX: Final = {"library": 0.27, "program": 0.13, "known": 0.60}
"""Shares of the pools among episodes."""


def draw_pool(rng: Random) -> str:
    """Draw a pool by `MIX`."""
    return rng.choices(list(MIX), list(MIX.values()))[0]
