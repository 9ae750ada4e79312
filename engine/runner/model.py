"""The GPU path as the engine's sequences use it, and how it is loaded: plan, weights, state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dsv4agent.engine.config import BLOCK
from dsv4agent.engine.kernels.kv_rows import PAGE_TOKENS
from dsv4agent.engine.kernels.launch import ceil_div
from dsv4agent.engine.kernels.sampling import pack_bits, sample, signed
from dsv4agent.engine.memory import available_bytes, pinnable_bytes
from dsv4agent.engine.runner.runner import WIDTHS, Runner
from dsv4agent.engine.runner.sequences import DeviceSequence
from dsv4agent.engine.runner.state import Capacity
from dsv4agent.engine.runner.weights import pack_weights, scales_can_be_packed
from dsv4agent.engine.sampling import Draw, SamplingParams
from dsv4agent.engine.weights.loader import Checkpoint
from dsv4agent.engine.weights.memory_plan import MemoryPlan
from dsv4agent.engine.weights.plan import CHUNK, Part, plan_memory

_SPARE_PAGES = 16
"""For forks that write into a page others share; they fit into what the plan leaves alone."""


class RunnerModel:
    """One step for one sequence at a time, over a runner."""

    snapshot_interval = CHUNK
    patience = 0.0005

    def __init__(self, runner: Runner, plan: MemoryPlan | None = None) -> None:
        """Take over a runner, and the plan it was loaded by."""
        self.runner = runner
        self.plan = plan

    def empty_state(self) -> DeviceSequence:
        """Return a new sequence."""
        return self.runner.open()

    def chunks(self, start: int, stop: int, cuts: Iterable[int] = ()) -> Iterator[tuple[int, int]]:
        """Cut [start, stop) at `cuts`, and so that no piece is longer than a prefill step."""
        size = self.runner.chunk
        points = {point for point in cuts if start < point < stop}
        # Whole steps end at multiples of their size, where snapshots are smallest.
        points.update(range(start // size * size + size, stop, size))
        return pairwise([start, *sorted(points), stop])

    def advance(self, state: DeviceSequence, token_ids: Sequence[int]) -> None:
        """Process one step: a single token by a captured graph, more as a prefill."""
        if len(token_ids) == 1:
            self.advance_together([state], token_ids)
        else:
            self.runner.prefill(state, token_ids)

    def advance_together(self, states: Sequence[DeviceSequence], token_ids: Sequence[int]) -> None:
        """Process one token of each sequence, as many at once as there are slots."""
        most = min(WIDTHS[-1], self.runner.state.capacity.slots)
        for start in range(0, len(states), most):
            self.runner.decode(states[start : start + most], token_ids[start : start + most])

    def every_logits(self, state: DeviceSequence, token_ids: Sequence[int]) -> Tensor:
        """Process one step and return the logits after each token, float32 [len, V]."""
        return self.runner.prefill(state, token_ids, every=True)

    def last_logits(self, state: DeviceSequence) -> Tensor:
        """Return the logits after the last token processed, float32 [V]."""
        assert state.hidden is not None
        if state.logits is None:
            state.logits = self.runner.forward.logits(state.hidden)
        return state.logits[0]

    def choose(self, logits: Tensor, params: SamplingParams, draw: Draw) -> int:
        """Choose a token on the device; one number comes back."""
        device = self.runner.device
        mask = draw.mask(logits.shape[0])
        top_p = None if params.top_p == 1 else torch.tensor([params.top_p], dtype=torch.float64)
        token = sample(
            logits[None],
            torch.tensor([params.temperature], dtype=torch.float64).to(device),
            torch.tensor([signed(draw.seed)]).to(device),
            torch.tensor([draw.position]).to(device),
            top_p=None if top_p is None else top_p.to(device),
            allowed=None if mask is None else pack_bits(mask)[None].to(device),
        )
        chosen = int(token[0])
        if chosen < 0:
            raise draw.dead_end()
        return chosen


def load_model(
    checkpoint: Checkpoint,
    device: torch.device,
    *,
    context: int,
    sequences: int,
    make_room: Callable[[], bool],
    progress: Callable[[str], None] | None = None,
) -> RunnerModel:
    """Plan the memory, then load the weights to where the plan puts them, and allocate the state.

    Args:
        checkpoint: Opened.
        device: That computes.
        context: Most tokens of a sequence.
        sequences: Of that length at once.
        make_room: Lets go of sequences that nobody needs; see `Sequences`.
        progress: Told of the plan and of each part when it is loaded.

    Raises:
        ModelTooLarge: The plan fails; nothing was read.
        WrongDtype: A tensor is not stored as the kernels read it.
    """
    config = checkpoint.config
    packed_scales = scales_can_be_packed(checkpoint)
    plan = plan_memory(
        config,
        gpu_bytes=available_bytes(device),
        host_bytes=pinnable_bytes() if device.type == "cuda" else 0,
        context=context,
        sequences=sequences,
        chunk=min(CHUNK, ceil_div(context, BLOCK) * BLOCK),
        packed_scales=packed_scales,
    )
    if progress:
        for line in plan.describe():
            progress(line)
        progress(f"experts' scales take {'four bits' if packed_scales else 'a byte'} each")
    weights = pack_weights(
        checkpoint,
        device,
        on_host=lambda layer, expert: expert >= plan.resident[layer],
        embedding_on_host=plan.part(Part.EMBEDDING).host > 0,
        packed_scales=packed_scales,
        progress=progress,
    )
    pages = sequences * ceil_div(context, PAGE_TOKENS) + _SPARE_PAGES
    capacity = Capacity(sequences, context, min(CHUNK, ceil_div(context, BLOCK) * BLOCK), pages)
    runner = Runner(config, weights, capacity, device)
    runner.sequences.make_room = make_room
    return RunnerModel(runner, plan)
