"""Which experts a token goes to: sqrt(softplus) of a float32 gate, a bias for the choice, the largest k.

Ties go to the lower id; ids come out ascending, with weights normalised to sum `scale`. In the first layers a
table by token id makes the choice, and the scores still give the weights. The product with the gate is
`linear` with float32 result: bfloat16 operands are multiplied exactly, and its parts are added in a fixed
order. One warp of a second launch does a token.

Needs E D bfloat16 weights, 2.1 MB in Flash (0.5 us at 4.3 TB/s) and 5.5 MB in Pro (1.3 us), and 2 E D M
operations; the choice reads E floats per token: latency alone.

measured, H200, 2026-12-01: one token 4.9 us; 4096 tokens 20.2 us.
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from dsv4agent.engine.kernels import tuning
from dsv4agent.engine.kernels.launch import next_power_of_two, on_device
from dsv4agent.engine.kernels.linear import PackedLinear, linear
from dsv4agent.engine.kernels.numerics import log1p
from dsv4agent.engine.kernels.overlap import overlapping, wait_for_previous
from dsv4agent.engine.ops.lists import doubles
from dsv4agent.engine.ops.routing import expert_scores, expert_weights, route_by_score


@dataclass(frozen=True)
class Uses:
    """Where choices are counted.

    Attributes:
        counts: int32 [E].
        owners: int32 [m], of each row.
        nobody: Owner of rows that do not count.
    """

    counts: Tensor
    owners: Tensor
    nobody: int


def route(
    x: Tensor, gate: PackedLinear, bias: Tensor, *, chosen: int, scale: float, uses: Uses | None = None
) -> tuple[Tensor, Tensor]:
    """Choose experts by score.

    Args:
        x: bfloat16 [m, D].
        gate: bfloat16 weights [E, D].
        bias: float32 [E].
        chosen: Experts per token.
        scale: What the weights of a token sum to.
        uses: Counts of choices to add to.

    Returns:
        Ids int32 [m, chosen], ascending, and weights float32 [m, chosen].
    """
    logits = linear(x, gate, dtype=torch.float32)
    return choose(logits, bias=bias, chosen=chosen, scale=scale, uses=uses)


def route_by_table(
    x: Tensor,
    gate: PackedLinear,
    table: Tensor,
    token_ids: Tensor,
    *,
    scale: float,
    uses: Uses | None = None,
) -> tuple[Tensor, Tensor]:
    """Take the experts of row `token_ids` of `table`, int32 [V, chosen], each row ascending; else as `route`.

    Token ids are int32 or int64 [m].
    """
    logits = linear(x, gate, dtype=torch.float32)
    return choose(logits, table=table, token_ids=token_ids, chosen=table.shape[1], scale=scale, uses=uses)


def choose(
    logits: Tensor,
    *,
    chosen: int,
    scale: float,
    bias: Tensor | None = None,
    table: Tensor | None = None,
    token_ids: Tensor | None = None,
    uses: Uses | None = None,
) -> tuple[Tensor, Tensor]:
    """Do as `route` with `bias`, or as `route_by_table`, from the gate's float32 logits [m, E]."""
    assert (bias is None) != (table is None) and (table is None) == (token_ids is None)
    m, experts = logits.shape
    ids = torch.empty(m, chosen, dtype=torch.int32, device=logits.device)
    weights = torch.empty(m, chosen, dtype=torch.float32, device=logits.device)
    if m:
        with on_device(logits):
            _choose_kernel[(m,)](
                logits,
                logits if bias is None else bias,
                ids if table is None else table,
                ids if token_ids is None else token_ids,
                ids,
                weights,
                ids if uses is None else uses.counts,
                ids if uses is None else uses.owners,
                0 if uses is None else uses.nobody,
                experts,
                scale,
                COUNTED=uses is not None,
                CHOSEN=chosen,
                SLOTS=next_power_of_two(chosen),
                EXPERTS=next_power_of_two(experts),
                BY_SCORE=table is None,
                num_warps=tuning.ROWS.router_warps,
                enable_fp_fusion=False,
                **overlapping(),
            )
    return ids, weights


@triton.jit
def _choose_kernel(
    logits,
    bias,
    table,
    token_ids,
    ids,
    weights,
    counts,
    owners,
    nobody,
    experts,
    scale,
    COUNTED: tl.constexpr,
    CHOSEN: tl.constexpr,
    SLOTS: tl.constexpr,
    EXPERTS: tl.constexpr,
    BY_SCORE: tl.constexpr,
):
    wait_for_previous()
    row = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, SLOTS)
    if BY_SCORE:
        expert = tl.arange(0, EXPERTS)
        inside = expert < experts
        score = _score(tl.load(logits + row * experts + expert, mask=inside, other=0.0))
        left = tl.where(inside, score + tl.load(bias + expert, mask=inside, other=0.0), float("-inf"))
        taken = tl.zeros([EXPERTS], tl.int32)
        for _ in tl.static_range(CHOSEN):
            best = tl.max(left, axis=0)
            lowest = tl.min(tl.where((left == best) & (taken == 0), expert, EXPERTS), axis=0)
            taken = tl.where(expert == lowest, 1, taken)
            left = tl.where(expert == lowest, float("-inf"), left)
        rank = tl.cumsum(taken, 0) - 1
        here = (taken != 0)[:, None] & (rank[:, None] == slot[None, :])
        chosen = tl.sum(tl.where(here, expert[:, None], 0), axis=0)
    else:
        token = tl.load(token_ids + row).to(tl.int64)
        chosen = tl.load(table + token * CHOSEN + slot, mask=slot < CHOSEN, other=0)
    used = slot < CHOSEN
    score = _score(tl.load(logits + row * experts + chosen, mask=used, other=0.0))
    share = tl.where(used, score, 0.0)
    weight = tl.div_rn(share, tl.sum(share, axis=0)) * scale
    tl.store(ids + row * CHOSEN + slot, chosen, mask=used)
    tl.store(weights + row * CHOSEN + slot, weight, mask=used)
    if COUNTED:
        counted = tl.where(tl.load(owners + row) == nobody, 0, CHOSEN)
        tl.atomic_add(counts + chosen, 1, mask=slot < counted, sem="relaxed")


@triton.jit
def _score(z):
    return tl.sqrt_rn(tl.maximum(z, 0.0) + log1p(tl.exp(-tl.abs(z))))


def choose_reference(
    logits: Tensor,
    *,
    chosen: int,
    scale: float,
    bias: Tensor | None = None,
    table: Tensor | None = None,
    token_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Do as `choose` with the host's routines, in float64."""
    scores = expert_scores(logits)
    if bias is not None:
        ids, weights = route_by_score(scores, doubles(bias), chosen, scale)
    else:
        assert table is not None and token_ids is not None
        ids = table[token_ids.long()].long().cpu().numpy()
        weights = expert_weights(scores, ids, scale)
    return (
        torch.from_numpy(ids).to(logits.device, torch.int32),
        torch.from_numpy(weights).to(logits.device, torch.float32),
    )
