"""The main model: a chunk of tokens in, hidden rows and logits out, state advanced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dsv4agent.engine.cache.state import SequenceState
from dsv4agent.engine.config import BLOCK, ModelConfig
from dsv4agent.engine.model.chunk import Chunk, Trace
from dsv4agent.engine.model.head import Head
from dsv4agent.engine.model.hyper_connections import spread
from dsv4agent.engine.model.layer import Layer
from dsv4agent.engine.model.parameters import Parameters
from dsv4agent.engine.model.precision import OfficialPrecision, Precision
from dsv4agent.engine.model.rope import RopeTables
from dsv4agent.engine.ops.tiling import Tiling
from dsv4agent.engine.sampling import Draw, SamplingParams, sample


class Transformer:
    """Weights and forward pass of one checkpoint; the same code serves prefill chunks and single tokens."""

    snapshot_interval = 4 * BLOCK
    patience = 0.0

    def __init__(
        self,
        config: ModelConfig,
        read: Callable[[str], Tensor],
        *,
        device: torch.device,
        official: bool,
    ) -> None:
        self.config = config
        self.device = device
        self.precision = OfficialPrecision() if official else Precision()
        self.tiling = Tiling()
        self.parameters = Parameters(config, read, device)
        self.ropes = RopeTables(config, device)
        self.embed = self.parameters.vector("embed.weight")
        self.layers = [Layer(self.parameters, layer, self.precision, self.tiling) for layer in config.layers]
        self.head = Head(self.parameters, "", self.precision)
        self._w_vocab = self.parameters.matrix("head.weight")
        borders = {border for layer in self.layers for border in layer.attention.regime_borders()}
        self._borders = tuple(sorted(borders))

    def calibrate(self) -> None:
        """Fit the row tiles to this machine and the calling thread's settings.

        Once, after all modules are built.
        """
        self.tiling.calibrate(
            self.parameters.shapes,
            device=self.device,
            key_shapes=self.parameters.key_shapes,
        )

    def empty_state(self) -> SequenceState:
        """Return the state before the first token."""
        return SequenceState.empty(self.config, self.device)

    def chunks(self, start: int, stop: int, cuts: Iterable[int] = ()) -> Iterator[tuple[int, int]]:
        """Cut [start, stop) into chunks (start, stop) at aligned blocks, regime borders and `cuts`."""
        points = {point for point in (*cuts, *self._borders) if start < point < stop}
        points.update(range(start // BLOCK * BLOCK + BLOCK, stop, BLOCK))
        edges = [start, *sorted(points), stop]
        return pairwise(edges)

    def step(self, state: SequenceState, token_ids: Sequence[int], trace: Trace | None = None) -> Tensor:
        """Process one chunk that `chunks` allows and advance `state`.

        Returns:
            Normalised hidden rows float32 [s, D]; the first `len(token_ids)` are valid.
        """
        hidden, _ = self.step_streams(state, token_ids, trace)
        return hidden

    def step_streams(
        self, state: SequenceState, token_ids: Sequence[int], trace: Trace | None = None
    ) -> tuple[Tensor, Tensor]:
        """Do as `step`, and also return the final streams float32 [s, 4, D] that a drafter reads."""
        chunk = self.make_chunk(state.position, token_ids, trace)
        streams = spread(self.embed[chunk.ids])
        for layer, layer_state in zip(self.layers, state.layers, strict=True):
            streams = layer(streams, layer_state, chunk)
        hidden = self.head.norm(self.head.collapse(streams))
        state.position += chunk.count
        state.hidden = hidden[chunk.count - 1].clone()
        return hidden, streams

    def advance(self, state: SequenceState, token_ids: Sequence[int]) -> None:
        """Process one chunk; see `step`."""
        self.step(state, token_ids)

    def advance_together(self, states: Sequence[SequenceState], token_ids: Sequence[int]) -> None:
        """Process one token of each sequence, one after the other."""
        for state, token in zip(states, token_ids, strict=True):
            self.step(state, (token,))

    def every_logits(self, state: SequenceState, token_ids: Sequence[int]) -> Tensor:
        """Process one chunk and return the logits after each token, float32 [len, V]."""
        return self.logits(self.step(state, token_ids))[: len(token_ids)]

    def make_chunk(self, position: int, token_ids: Sequence[int], trace: Trace | None = None) -> Chunk:
        """Return the chunk of `token_ids` at `position`, padded to a tile."""
        count = len(token_ids)
        assert 1 <= count <= BLOCK - position % BLOCK
        size = self.tiling.size(count)
        ids = torch.tensor(
            [*token_ids, *([token_ids[-1]] * (size - count))], dtype=torch.int64, device=self.device
        )
        return Chunk(position, count, size, ids, list(token_ids), self.ropes, trace)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 [s, V] of hidden rows [s, D]; `s` is a tile size."""
        return self.tiling.matmul(hidden, self._w_vocab)

    def last_logits(self, state: SequenceState) -> Tensor:
        """Return the logits float32 [V] after the last token of `state`."""
        assert state.hidden is not None
        return self.logits(state.hidden.expand(self.tiling.size(1), -1).contiguous())[0]

    def choose(self, logits: Tensor, params: SamplingParams, draw: Draw) -> int:
        """Choose a token on the host."""
        return sample(logits, params, seed=draw.seed, position=draw.position, allowed=draw.allowed)
