"""Where the parts of a model go, before any of it is read: GPU or pinned host memory.

One rule: everything but routed experts and the embedding is on the GPU, and of several GPUs each has what it
cannot share. The embedding goes to the host if experts get more room by it. Then experts fill the GPU, as
many in every layer, and the rest stay in pinned host memory, where kernels read them through the same table
of addresses. Which ones are resident is decided by use, at run time; a plan only says how many.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NoReturn

from dsv4agent.engine.cache.sizes import page_bytes, pages, read_bytes, sequence_bytes
from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.errors import ModelTooLarge
from dsv4agent.engine.weights.memory_plan import GIB, MemoryPlan, PartPlan, TokenTraffic, gib
from dsv4agent.engine.weights.sizes import (
    DRAFTING,
    ROUTED,
    Part,
    WeightSize,
    expert_bytes,
    scales_may_be_packed,
    weight_sizes,
)

CHUNK = 4096
"""Tokens of a prefill chunk: with fewer, reading the weights takes longer than computing with them."""
RESERVE = GIB
"""Bytes left alone on each GPU: recorded graphs, what the allocator loses between pieces, and the buffers
through which experts come from the host (`runner.passage`).
"""

__all__ = [
    "CHUNK",
    "RESERVE",
    "MemoryPlan",
    "Part",
    "PartPlan",
    "TokenTraffic",
    "plan_memory",
    "prefill_workspace",
]


def plan_memory(
    config: ModelConfig,
    *,
    gpu_bytes: int,
    host_bytes: int,
    gpus: int = 1,
    context: int,
    sequences: int = 1,
    chunk: int = CHUNK,
    workspace: int | None = None,
    drafter: bool = False,
    packed_scales: bool = False,
    reserve: int = RESERVE,
) -> MemoryPlan:
    """Plan the memory of a model, from its configuration alone.

    Args:
        config: Of the model. Weights are taken to be FP4 and FP8 as in the official files.
        gpu_bytes: Free on each GPU.
        host_bytes: Of host memory that may be pinned, for all GPUs together.
        gpus: They divide experts, heads, shared experts and the head among them; the rest is on each.
        context: Tokens of each sequence.
        sequences: Sequences of that length at the same time.
        chunk: Most tokens of a prefill step.
        workspace: Bytes for a step on each GPU. Default: `prefill_workspace`.
        drafter: Load the draft module too.
        packed_scales: Plan with experts' scales of 4 bits, if the shapes allow it.
        reserve: Bytes of each GPU to leave alone.

    Raises:
        ModelTooLarge: A part does not fit; the message says which, and what would help.
        ValueError: A number has no meaning, or `gpus` does not divide experts and groups of heads.
    """
    if gpus < 1 or config.n_routed_experts % gpus or config.o_groups % gpus:
        raise ValueError(
            f"{gpus} GPUs cannot divide {config.n_routed_experts} experts and {config.o_groups} head groups."
        )
    if min(context, sequences, chunk) < 1 or min(gpu_bytes, host_bytes, workspace or 0, reserve) < 0:
        raise ValueError("context, sequences and chunk must be at least 1, and no size may be negative.")
    if context > config.max_position_embeddings:
        raise ValueError(f"The model has {config.max_position_embeddings} positions, not {context}.")
    order = _Order(
        config=config,
        gpu_bytes=gpu_bytes,
        host_bytes=host_bytes,
        gpus=gpus,
        context=context,
        sequences=sequences,
        chunk=chunk,
        workspace=workspace,
        drafter=drafter and bool(config.draft_layers),
        packed_scales=packed_scales and scales_may_be_packed(config),
        reserve=reserve,
    )
    try:
        return _plan(order)
    except _Shortfall as shortfall:
        _refuse(order, shortfall)


def prefill_workspace(config: ModelConfig, *, chunk: int = CHUNK, gpus: int = 1) -> int:
    """Return the bytes that a prefill step of `chunk` tokens holds at its widest: attention or experts."""
    c = config
    streams = 2 * c.hc_mult * c.hidden_size
    # Queries as projected, as finished, and what attention gives, bfloat16.
    heads = 3 * 2 * c.num_attention_heads * c.head_dim // gpus
    groups = 2 * c.o_groups * c.o_lora_rank // gpus
    index = 2 * 2 * c.index_n_heads * c.index_head_dim + 4 * c.index_topk
    raw = 4 * 4 * (c.head_dim + c.index_head_dim)
    # Between the products: bfloat16, then FP8. Behind them: a row for every chosen expert, and their sum.
    experts = c.num_experts_per_tok * (3 * c.moe_intermediate_size + 2 * c.hidden_size) + 4 * c.hidden_size
    return chunk * (streams + 4 * c.hidden_size + max(heads + groups + index + raw, experts))


@dataclass(frozen=True)
class _Order:
    """The arguments of `plan_memory`."""

    config: ModelConfig
    gpu_bytes: int
    host_bytes: int
    gpus: int
    context: int
    sequences: int
    chunk: int
    workspace: int | None
    drafter: bool
    packed_scales: bool
    reserve: int


class _Shortfall(Exception):
    """Raised when a part does not fit."""

    def __init__(self, part: Part, place: str, needed: int, available: int) -> None:
        super().__init__(part)
        self.part, self.place, self.needed, self.available = part, place, needed, available


def _plan(order: _Order) -> MemoryPlan:
    """Plan with the embedding where more experts become resident, on the GPU if both are alike."""
    try:
        on_gpu = _place(order, embedding_on_host=False)
    except _Shortfall:
        if order.host_bytes < _weights(order)[Part.EMBEDDING].copied:
            raise
        return _place(order, embedding_on_host=True)
    if on_gpu.resident_share == 1.0:
        return on_gpu
    try:
        on_host = _place(order, embedding_on_host=True)
    except _Shortfall:
        return on_gpu
    return on_host if sum(on_host.resident) > sum(on_gpu.resident) else on_gpu


def _place(order: _Order, *, embedding_on_host: bool) -> MemoryPlan:
    """Fill the GPU with what must be there, then with experts; the rest goes to the host."""
    gpu, host = _fixed(order), dict[Part, int]()
    if embedding_on_host:
        host[Part.EMBEDDING], gpu[Part.EMBEDDING] = gpu[Part.EMBEDDING], 0
    taken = 0
    for part, size in gpu.items():
        taken += size
        if taken > order.gpu_bytes:
            raise _Shortfall(part, "the GPU", sum(gpu.values()), order.gpu_bytes)

    layers, count = _routed_layers(order), order.config.n_routed_experts
    one = expert_bytes(order.config, packed_scales=order.packed_scales)
    room = min((order.gpu_bytes - taken) // one, len(layers) * count // order.gpus)
    each, extra = divmod(room, len(layers))
    resident = [order.gpus * (each + (index < extra)) for index in range(len(layers))]
    for part in set(layers):
        here = sum(n for n, owner in zip(resident, layers, strict=True) if owner is part)
        gpu[part] = here // order.gpus * one
        host[part] = (layers.count(part) * count - here) * one
    needed = sum(host.values())
    if needed > order.host_bytes:
        part = Part.EXPERTS if host[Part.EXPERTS] else Part.EMBEDDING
        raise _Shortfall(part, "pinned host memory", needed, order.host_bytes)
    return _finish(order, gpu, host, tuple(resident))


def _fixed(order: _Order) -> dict[Part, int]:
    """Return what each GPU must hold besides experts; what depends on the context last, easiest to cut."""
    config, workspace = order.config, order.workspace
    gpu = {part: size.on_each(order.gpus) for part, size in _weights(order).items() if part not in ROUTED}
    gpu[Part.RESERVE] = order.reserve
    if workspace is None:
        workspace = prefill_workspace(config, chunk=order.chunk, gpus=order.gpus)
    gpu[Part.WORKSPACE] = workspace
    # State is small beside weights, so each GPU has all of it.
    one = sequence_bytes(config, chunk=order.chunk, drafter=order.drafter)
    gpu[Part.SEQUENCES] = order.sequences * one
    gpu[Part.PAGES] = order.sequences * pages(order.context) * page_bytes(config)
    return gpu


def _finish(
    order: _Order, gpu: dict[Part, int], host: dict[Part, int], resident: tuple[int, ...]
) -> MemoryPlan:
    config, weights = order.config, _weights(order)
    rows = [
        PartPlan(part, weights.get(part, WeightSize()).stored, gpu.get(part, 0), host.get(part, 0))
        for part in Part
        if gpu.get(part, 0) or host.get(part, 0)
    ]
    layers = len(resident)
    plain, packed = (expert_bytes(config, packed_scales=choice) for choice in (False, True))
    dense = (part for part in weights if part not in ROUTED | DRAFTING | {Part.EMBEDDING})
    return MemoryPlan(
        gpus=order.gpus,
        context=order.context,
        sequences=order.sequences,
        drafter=order.drafter,
        packed_scales=order.packed_scales,
        scale_saving=(plain - packed) * config.n_routed_experts * layers
        if scales_may_be_packed(config)
        else 0,
        gpu_available=order.gpu_bytes,
        host_available=order.host_bytes,
        parts=tuple(rows),
        experts=config.n_routed_experts,
        resident=resident,
        expert_bytes=packed if order.packed_scales else plain,
        experts_per_token=config.num_experts_per_tok * len(config.layers),
        dense_read=sum(weights[part].on_each(order.gpus) - weights[part].unread for part in dense),
        state_read=read_bytes(config, order.context),
        embedding_row=2 * config.hidden_size,
    )


def _weights(order: _Order) -> dict[Part, WeightSize]:
    sizes = weight_sizes(order.config, packed_scales=order.packed_scales)
    return {part: size for part, size in sizes.items() if order.drafter or part not in DRAFTING}


def _routed_layers(order: _Order) -> list[Part]:
    """Return for each layer with experts the part that they belong to."""
    drafts = len(order.config.draft_layers) if order.drafter else 0
    return [Part.EXPERTS] * len(order.config.layers) + [Part.DRAFTER_EXPERTS] * drafts


def _refuse(order: _Order, shortfall: _Shortfall) -> NoReturn:
    part, needed, available = shortfall.part, shortfall.needed, shortfall.available
    helps = _remedies(order)
    advice = (
        f"What would help: {'; or '.join(helps)}." if helps else "Use a larger GPU, or a server over HTTP."
    )
    raise ModelTooLarge(
        f"not enough memory for {part}: {shortfall.place} would have to hold {gib(needed)} GiB, has "
        f"{gib(available)} GiB and lacks {gib(needed - available)} GiB. {advice}",
        needed_bytes=needed,
        available_bytes=available,
        part=str(part),
    ) from None


def _remedies(order: _Order) -> list[str]:
    """Return the changes that make the plan fit, each alone."""
    found: list[str] = []
    if order.drafter and _fits(replace(order, drafter=False)):
        found.append("no drafter")
    context = _first_fit(order, "context", _halves(order.context))
    if context:
        found.append(f"a context of {context} tokens")
    sequences = _first_fit(order, "sequences", _halves(order.sequences))
    if sequences:
        found.append(f"at most {sequences} sequences at a time")
    if enough := _fits(replace(order, host_bytes=1 << 62)):
        found.append(f"{gib(enough.host_bytes)} GiB of host memory that can be pinned")
    more = _first_fit(order, "gpus", [order.gpus * 2**power for power in range(1, 5)])
    if more:
        found.append(f"{more} GPUs of this size")
    return found or _joint_remedy(order)


def _joint_remedy(order: _Order) -> list[str]:
    """Return the one way in which all changes together fit, if there is one."""
    least = replace(order, drafter=False, sequences=1, host_bytes=1 << 62)
    context = _first_fit(least, "context", [order.context, *_halves(order.context)])
    if not context:
        return []
    plan = _plan(replace(least, context=context))
    drafter = ", no drafter" if order.drafter else ""
    return [
        f"all of this together: one sequence of {context} tokens{drafter}, "
        f"{gib(plan.host_bytes)} GiB of host memory that can be pinned"
    ]


def _first_fit(order: _Order, field: str, values: list[int]) -> int | None:
    return next((value for value in values if _fits(replace(order, **{field: value}))), None)


def _halves(count: int) -> list[int]:
    values: list[int] = []
    while count > 1:
        count //= 2
        values.append(count)
    return values


def _fits(order: _Order) -> MemoryPlan | None:
    config = order.config
    if config.n_routed_experts % order.gpus or config.o_groups % order.gpus:
        return None
    try:
        return _plan(order)
    except _Shortfall:
        return None
