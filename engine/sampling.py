"""Sampling with a counter-based generator.

A token depends on seed, position and logits, on nothing else that runs.

The generator is Philox 4x32-10 (Salmon et al., 2011), keyed by the seed, its counter the absolute position of
the token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsv4agent.engine.errors import ConstraintDeadEnd, InvalidSampling

_MASK32 = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens and when to stop.

    Attributes:
        temperature: 0 is greedy, ties to the lower id.
        top_p: Mass of the most likely tokens to choose from, in (0, 1].
        seed: 64 bits; equal seeds give equal tokens. None draws one from the operating system.
        max_tokens: Tokens to generate at most; None up to the end of the context.
        stop_token_ids: Ids that end generation and belong to the result; None means the model's end of
            sequence.
        logprobs: Whether steps carry log-probabilities (of the model itself: temperature 1, no constraint).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None
    stop_token_ids: tuple[int, ...] | None = None
    logprobs: bool = False

    def check(self) -> None:
        """Raise `InvalidSampling` if a value has no meaning."""
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InvalidSampling(f"temperature is {self.temperature}; give a finite number of at least 0.")
        if not 0 < self.top_p <= 1:
            raise InvalidSampling(f"top_p is {self.top_p}; give a number in (0, 1].")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise InvalidSampling(f"max_tokens is {self.max_tokens}; give at least 1, or None.")


@dataclass(frozen=True)
class Draw:
    """One draw of the generator, and from what.

    Attributes:
        seed: The key of the generator.
        position: Absolute position of the new token, the counter of the generator.
        allowed: bool [V] or ids; None allows all.
    """

    seed: int
    position: int
    allowed: Tensor | Sequence[int] | None = None

    def mask(self, size: int) -> Tensor | None:
        """Return `allowed` as bool [size] on the CPU."""
        return None if self.allowed is None else _as_mask(self.allowed, size)

    def dead_end(self) -> ConstraintDeadEnd:
        """Return the error for a draw from nothing."""
        return ConstraintDeadEnd(
            f"no token may follow at position {self.position}; the constraint is contradictory."
        )


def sample(
    logits: Tensor,
    params: SamplingParams,
    *,
    seed: int,
    position: int,
    allowed: Tensor | Sequence[int] | None = None,
) -> int:
    """Choose the token at `position`. Arguments as in `Draw`; logits are float32 [V].

    Raises:
        ConstraintDeadEnd: `allowed` allows nothing.
    """
    draw = Draw(seed, position, allowed)
    z = logits.detach().to("cpu", torch.float64)
    mask = draw.mask(z.shape[0])
    if mask is not None:
        z = z.masked_fill(~mask, -math.inf)
        if math.isinf(float(z.max())):
            raise draw.dead_end()
    if params.temperature == 0:
        return int((z == z.max()).nonzero()[0])
    weights = torch.exp((z - z.max()) / params.temperature)
    if params.top_p < 1:
        weights = _nucleus(weights, params.top_p)
    cumulative = weights.cumsum(0)
    total = float(cumulative[-1])
    token = int(torch.searchsorted(cumulative, uniform(seed, position) * total, right=True))
    # The product may round up to the total itself: the last token with any weight then.
    return token if token < z.shape[0] else int(weights.nonzero()[-1])


def log_probability(logits: Tensor, token: int) -> float:
    """Return ln p(token) under float32 `logits` [V]."""
    z = logits.detach().to("cpu", torch.float64)
    return float(z[token] - torch.logsumexp(z, 0))


def uniform(seed: int, position: int) -> float:
    """Return a number in [0, 1) with 53 random bits, a function of both arguments only."""
    words = philox(
        (position & _MASK32, position >> 32 & _MASK32, 0, 0), (seed & _MASK32, seed >> 32 & _MASK32)
    )
    return (words[0] >> 5 << 26 | words[1] >> 6) * 2.0**-53


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the four 32-bit words of Philox 4x32-10."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        low = _MULTIPLIERS[0] * c0
        high = _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (high >> 32) ^ c1 ^ k0, high & _MASK32, (low >> 32) ^ c3 ^ k1, low & _MASK32
        k0 = k0 + _WEYL[0] & _MASK32
        k1 = k1 + _WEYL[1] & _MASK32
    return c0, c1, c2, c3


def _as_mask(allowed: Tensor | Sequence[int], size: int) -> Tensor:
    if isinstance(allowed, Tensor) and allowed.dtype is torch.bool:
        return allowed.to("cpu")
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.as_tensor(allowed, dtype=torch.int64)] = True
    return mask


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of largest weights whose mass reaches `top_p`; ties to the lower id."""
    ordered, order = torch.sort(weights, descending=True, stable=True)
    before = ordered.cumsum(0) - ordered
    kept = order[before < top_p * ordered.sum()]
    result = torch.zeros_like(weights)
    result[kept] = weights[kept]
    return result
