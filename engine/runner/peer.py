"""Hugging Face transformers on the same weights and tokens, in the same run: what the speeds stand beside."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from dsv4agent.engine.bench_transformers import TransformersModel
from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.runner.runner import Runner
from dsv4agent.engine.runner.unpacked import unpacked
from dsv4agent.engine.runner.weights import ModelWeights
from dsv4agent.engine.weights.known_shapes import KNOWN

CHECKED = 256
"""Tokens whose logits are compared before anything is timed."""
MOST_DIFFERENT = 0.25
"""Relative difference of logits above which the two do not compute the same model.

The library computes in bfloat16 and does not round activations to FP8; one rounding more is worth some
percent of such logits, another model would be off by more than 1.
"""


@dataclass(frozen=True)
class Beside:
    """Milliseconds of one measurement, ours and theirs."""

    what: str
    tokens: int
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """How many times as fast this is."""
        return self.theirs / self.ours


class Peer:
    """The library's model with our weights, dequantised to bfloat16.

    Attributes:
        version: Of transformers.
    """

    def __init__(self, name: str, config: ModelConfig, weights: ModelWeights) -> None:
        """Build it beside ours; the card must have room for both.

        Args:
            name: Whose published configuration `config` is a part of.
            config: With fewer layers or experts.
            weights: Of it.
        """
        count = len(config.layers)
        raw = {
            **KNOWN[name],
            "num_hidden_layers": count,
            "compress_ratios": list(KNOWN[name]["compress_ratios"])[:count],
            "n_routed_experts": config.n_routed_experts,
            "num_nextn_predict_layers": 0,
        }
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = TransformersModel(raw, unpacked(weights, config), dtype=torch.bfloat16, device=device)
        self.version = self._model.version

    def difference(self, runner: Runner, ids: Sequence[int]) -> float:
        """Return the relative difference of the last token's logits after the same tokens."""
        theirs = self._model.prefill(ids).float()
        sequence = runner.open()
        ours = runner.prefill(sequence, ids)[0]
        sequence.close()
        return float((ours - theirs).norm() / theirs.norm())

    def compare(self, runner: Runner, ids: Sequence[int], steps: int) -> list[Beside]:
        """Time a prefill of `ids` and `steps` decode steps after it, in turns.

        Raises:
            ValueError: The two compute different models.
        """
        difference = self.difference(runner, ids[:CHECKED])
        if not difference < MOST_DIFFERENT:
            raise ValueError(f"the logits of transformers differ by {difference:.1%}")
        prefills: list[tuple[float, float]] = []
        decodes: list[tuple[float, float]] = []
        for _ in range(3):
            sequence = runner.open()
            ours = _milliseconds(partial(runner.prefill, sequence, ids))
            theirs = _milliseconds(partial(self._model.prefill, ids))
            prefills.append((ours, theirs))
            # What is compiled or captured at the first step is not counted.
            runner.decode([sequence], [1])
            self._model.decode(1)
            ours = _milliseconds(partial(runner.decode, [sequence], [1], steps)) / steps
            theirs = _milliseconds(partial(self._decode, steps)) / steps
            decodes.append((ours, theirs))
            sequence.close()
        return [_median("prefill", len(ids), prefills), _median("decode", len(ids), decodes)]

    def _decode(self, steps: int) -> None:
        token = 1
        for _ in range(steps):
            token = int(self._model.decode(token).argmax())


def _median(what: str, tokens: int, pairs: Sequence[tuple[float, float]]) -> Beside:
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Beside(what, tokens, ours, theirs)


def _milliseconds(work: Callable[[], object]) -> float:
    _synchronize()
    begin = time.monotonic()
    work()
    _synchronize()
    return (time.monotonic() - begin) * 1e3


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
