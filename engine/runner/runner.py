"""Prefill and decoding on one device: one step at a time, decoding as captured graphs.

A decode graph serves one width and all contexts up to a power of two. Its tokens, positions and sampled ids
live on the device and are advanced inside the graph, so nothing has to come back to the host between steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.kernels.kv_rows import Places
from dsv4agent.engine.kernels.sampling import sample, signed
from dsv4agent.engine.runner.forward import Forward, StepInput, padded_end
from dsv4agent.engine.runner.residency import Residency
from dsv4agent.engine.runner.sequences import DeviceSequence, Sequences
from dsv4agent.engine.runner.state import Capacity, DeviceState
from dsv4agent.engine.runner.weights import ModelWeights

WIDTHS = (1, 2, 4, 8, 16, 32)
"""Sequences of a decode step; fewer are padded."""


class DecodeBatch:
    """Some sequences that decode together: the inputs of their steps, on the device.

    Attributes:
        width: Rows, padding included.
        ids: int64 [width], the tokens of the next step.
        hidden: bfloat16 [width, D], the rows that gave the logits.
        logits: float32 [width, V], after the last step.
    """

    def __init__(self, forward: Forward, width: int) -> None:
        device, vocabulary = forward.state.device, forward.config.vocab_size
        self.width = width
        self.ids = torch.zeros(width, dtype=torch.int64, device=device)
        self.hidden = torch.zeros(width, forward.config.hidden_size, dtype=torch.bfloat16, device=device)
        self.logits = torch.zeros(width, vocabulary, device=device)
        self._sequences = torch.full((width,), forward.state.padding, dtype=torch.int32, device=device)
        self._positions = torch.zeros(width, dtype=torch.int32, device=device)
        self._none = torch.zeros(width, dtype=torch.int32, device=device)
        self._temperatures = torch.zeros(width, dtype=torch.float64, device=device)
        self._seeds = torch.zeros(width, dtype=torch.int64, device=device)
        self._forward = forward

    def load(self, members: Sequence[DeviceSequence], ids: Sequence[int]) -> None:
        """Set who takes part; the rest of the rows are padding."""
        rest = self.width - len(members)
        columns = (
            [*ids, *[0] * rest],
            [*(m.slot for m in members), *[self._forward.state.padding] * rest],
            [*(m.position for m in members), *[0] * rest],
            [*(m.temperature for m in members), *[0.0] * rest],
            [*(signed(m.seed) for m in members), *[0] * rest],
        )
        for target, values in zip(self.inputs(), columns, strict=True):
            target.copy_(torch.tensor(values, dtype=target.dtype), non_blocking=True)

    def inputs(self) -> tuple[Tensor, ...]:
        """Return what a step reads and advances."""
        return self.ids, self._sequences, self._positions, self._temperatures, self._seeds

    def step(self, end: int) -> None:
        """Process `ids`, sample the next ones in their place, and go on by one position."""
        places = Places(self._sequences, self._positions, self._none, self._none, self.width, 1)
        hidden = self._forward(StepInput(self.ids, places, end, beside=True))
        logits = self._forward.logits(hidden)
        self.hidden.copy_(hidden)
        self.logits.copy_(logits)
        following = self._positions.to(torch.int64) + 1
        self.ids.copy_(sample(logits, self._temperatures, self._seeds, following))
        self._positions.add_(1)
        # Padding rows stay where they are.
        self._positions.masked_fill_(self._sequences == self._forward.state.padding, 0)


class Runner:
    """A model on one device.

    Attributes:
        config: Of the model.
        state: Slots and pages.
        sequences: Who has them.
        chunk: Most tokens of a prefill step.
        decoded: Decode steps by the number of sequences in them.
        residency: Which experts are on the card.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        capacity: Capacity,
        device: torch.device,
        *,
        graphs: bool | None = None,
    ) -> None:
        """Allocate the state.

        Args:
            config: Of the model.
            weights: On `device`.
            capacity: Of the state.
            device: That computes.
            graphs: Whether decode steps are captured; by default on CUDA.
        """
        self.config = config
        self.chunk = capacity.chunk
        self.state = DeviceState(config, capacity, device)
        self.sequences = Sequences(self.state)
        # Before anything is captured: where choices are counted becomes part of a graph.
        self.residency = Residency([layer.moe.experts for layer in weights.layers], device)
        self.forward = Forward(config, weights, self.state)
        self.device = device
        self._captures = device.type == "cuda" if graphs is None else graphs
        self._stream: Any = torch.cuda.Stream(device) if self._captures else None
        self.decoded: Counter[int] = Counter()
        self._batches: dict[int, DecodeBatch] = {}
        self._graphs: dict[tuple[int, int], Any] = {}
        self._pool: Any = None

    def open(self, *, seed: int = 0, temperature: float = 0.0) -> DeviceSequence:
        """Return a new, empty sequence that samples with these."""
        sequence = self.sequences.open()
        sequence.seed, sequence.temperature = seed, temperature
        return sequence

    def prefill(
        self, sequence: DeviceSequence, ids: Sequence[int], *, chunk: int | None = None, every: bool = False
    ) -> Tensor:
        """Process tokens and return the logits float32 [1, V] after the last, or [len, V] after `every` one.

        Raises:
            CacheFull: No page is left.
            ContextOverflow: The sequence would be longer than there is room for.
        """
        self.sequences.prepare([sequence], len(ids))
        size = min(chunk or self.chunk, self.chunk)
        found: list[Tensor] = []
        hidden = torch.empty(0)
        for start in range(0, len(ids), size):
            part = torch.tensor(ids[start : start + size], dtype=torch.int64).to(self.device)
            count = part.shape[0]
            places = Places.of([(sequence.slot, sequence.position, count)], self.device)
            wanted = None if every else torch.tensor([count - 1], device=self.device)
            passage = self.forward.brings_experts(count)
            step = StepInput(part, places, sequence.position + count, wanted, passage)
            hidden = self.forward(step)
            sequence.position += count
            sequence.hidden, sequence.logits = hidden[-1:], None
            if every:
                found.append(self.forward.logits(hidden))
        return torch.cat(found) if every else self.forward.logits(hidden)

    def decode(self, sequences: Sequence[DeviceSequence], ids: Sequence[int], steps: int = 1) -> DecodeBatch:
        """Process one token of each sequence, then `steps - 1` times what was sampled after it.

        Returns:
            The batch: its `ids` are the tokens sampled last, its `logits` what they were sampled from. Row i
            is that of sequence i; the next call overwrites both.

        Raises:
            CacheFull: No page is left.
            ContextOverflow: A sequence would be longer than there is room for.
        """
        self.sequences.prepare(sequences, steps)
        width = next(w for w in WIDTHS if w >= len(sequences))
        batch = self._batches.get(width)
        if batch is None:
            batch = self._batches[width] = DecodeBatch(self.forward, width)
        batch.load(sequences, ids)
        self.decoded[len(sequences)] += steps
        longest = max(sequence.position for sequence in sequences)
        for step in range(steps):
            self._step(batch, padded_end(longest + step + 1, self.state.capacity.context))
        self.residency.note(steps)
        # The batch's own are overwritten by the next step.
        hidden = batch.hidden[: len(sequences)].clone().unsqueeze(1)
        logits = batch.logits[: len(sequences)].clone().unsqueeze(1)
        for sequence, row, scores in zip(sequences, hidden.unbind(0), logits.unbind(0), strict=True):
            sequence.position += steps
            sequence.hidden, sequence.logits = row, scores
        return batch

    def _step(self, batch: DecodeBatch, end: int) -> None:
        if not self._captures:
            batch.step(end)
            return
        key = (batch.width, end)
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = self._capture(batch, end)
        graph.replay()

    def _capture(self, batch: DecodeBatch, end: int) -> Any:
        """Capture a step; the batch's inputs are put back afterwards, and only padding rows are computed."""
        inputs = batch.inputs()
        kept = [x.clone() for x in inputs]
        batch.load([], [])
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            # Kernels compile, and the stream gets its counters, outside of the capture.
            batch.step(end)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            batch.step(end)
        self._pool = self._pool or graph.pool()
        current.wait_stream(self._stream)
        for target, value in zip(inputs, kept, strict=True):
            target.copy_(value)
        return graph
