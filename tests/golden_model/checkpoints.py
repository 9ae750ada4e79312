"""Compares one recorded checkpoint, key by key."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dsv4agent.engine import Engine
from dsv4agent.engine.cache.state import LayerState
from dsv4agent.engine.model.hyper_connections import spread
from dsv4agent.engine.ops.hyper_connections import STREAMS
from dsv4agent.engine.ops.lists import integers
from dsv4agent.engine.ops.norms import row_norms
from dsv4agent.engine.scheduler import at_once
from tests.golden_model.report import Result, largest, load, mismatches, share

CUT_SEEDS = 4


def check_checkpoint(folder: Path, device: str = "cpu") -> Iterator[Result]:
    """Compare every key of `folder`/io.safetensors."""
    io = load(folder / "io.safetensors")
    with Engine.load(folder, device=device, precision="fp32") as engine:
        if "logits_prefill" in io:
            yield from _logits(engine, io)
            yield from _layers(engine, io)
        if "mtp_logits_sel" in io:
            ids = _ids(io)
            chosen = io["pos_sel"][io["pos_sel"] < len(ids) - 1]
            yield largest("mtp_logits_sel", engine.mtp_logits(ids)[chosen], io["mtp_logits_sel"])
        if "draft_logits" in io:
            yield from _drafts(engine, io)
    if any(key.startswith("qat.") for key in io):
        with Engine.load(folder, device=device, precision="official") as engine:
            yield from _official(engine, io)


def _ids(io: dict[str, Tensor]) -> list[int]:
    return integers(io["input_ids"])


def _logits(engine: Engine, io: dict[str, Tensor]) -> Iterator[Result]:
    ids = _ids(io)
    whole = engine.logits(ids)
    yield largest("logits_prefill", whole, io["logits_prefill"])
    single = engine.logits(ids, range(1, len(ids)))
    yield largest("logits_decode_sel", single[io["pos_sel"]], io["logits_decode_sel"])
    exact = engine.device.type == "cpu"
    if exact:
        yield mismatches("decode == prefill, bits", single, whole)
    for seed in range(CUT_SEEDS):
        draw = random.Random(seed)
        cuts = draw.sample(range(1, len(ids)), draw.randrange(1, min(40, len(ids) - 1)))
        cut = engine.logits(ids, cuts)
        yield largest(f"logits_prefill, cuts {seed}", cut, io["logits_prefill"])
        if exact:
            yield mismatches(f"cuts {seed} == prefill, bits", cut, whole)
    split: list[Tensor] = []
    for point in integers(io["split_points"]):
        rows = engine.logits(ids[: point + 5], range(point, point + 5))
        split.append(rows[point - 1 : point + 5])
    yield largest("logits_split", torch.stack(split), io["logits_split"])


def _layers(engine: Engine, io: dict[str, Tensor]) -> Iterator[Result]:
    ids = _ids(io)
    parts: dict[str, list[tuple[int, Tensor]]] = {}

    def keep(name: str, position: int, value: Tensor) -> None:
        parts.setdefault(name, []).append((position, value.cpu()))

    state = engine.trace(ids, keep)
    chosen = io["pos_sel"]
    for key in sorted(io):
        kind, _, number = key.partition(".")
        if kind in ("streams", "attn_out", "ffn_out"):
            rows = torch.cat([value for _, value in parts[f"{kind}.layers.{number}"]])
            yield largest(key, rows[chosen], io[key])
        elif kind == "route_idx":
            yield from _routes(number, parts, io)
        elif kind == "topk":
            selected = _selected(engine, int(number), parts.get(f"topk.layers.{number}", []), chosen)
            yield mismatches(key, selected, io[key].to(torch.int64))
        elif kind in ("ent", "idx_ent_hadamard", "win"):
            yield largest(key, _stored(kind, state.layers[int(number)], len(ids)), io[key])


def _routes(
    number: str, parts: dict[str, list[tuple[int, Tensor]]], io: dict[str, Tensor]
) -> Iterator[Result]:
    ids = torch.cat([value for _, value in parts[f"route_idx.layers.{number}"]])
    weights = torch.cat([value for _, value in parts[f"route_w.layers.{number}"]])
    expected_ids, order = io[f"route_idx.{number}"].to(torch.int64).sort(-1)
    yield mismatches(f"route_idx.{number}", ids, expected_ids)
    yield largest(f"route_w.{number}", weights, io[f"route_w.{number}"].gather(1, order))


def _selected(engine: Engine, number: int, parts: list[tuple[int, Tensor]], chosen: Tensor) -> Tensor:
    """Return sorted entry ids per chosen position, padded with -1 in front.

    All visible ones where none was left out.
    """
    width, ratio = engine.config.index_topk, engine.config.layers[number].ratio
    rows: list[list[int]] = []
    for position in integers(chosen):
        found = list(range(min(width, (position + 1) // ratio)))
        for start, mask in parts:
            if start <= position < start + mask.shape[0]:
                found = integers(mask[position - start].nonzero())
        rows.append([-1] * (width - len(found)) + found)
    return torch.tensor(rows)


def _stored(kind: str, state: LayerState, position: int) -> Tensor:
    if kind == "win":
        return state.ring.last(position)
    entries = state.entries if kind == "ent" else state.index_entries
    assert entries is not None
    return entries.dense()


def _drafts(engine: Engine, io: dict[str, Tensor]) -> Iterator[Result]:
    drafts = engine.dspark_drafts(_ids(io), integers(io["step_pos"]))
    ids = torch.tensor([draft.token_ids for draft in drafts])
    yield mismatches("draft_ids", ids, io["draft_ids"].to(torch.int64))
    yield largest("draft_logits", torch.stack([draft.logits for draft in drafts]), io["draft_logits"])
    yield largest("confidence", torch.stack([draft.confidence for draft in drafts]), io["confidence"])


def _official(engine: Engine, io: dict[str, Tensor]) -> Iterator[Result]:
    """Layers one by one on recorded inputs, then the whole model by direction of its logits."""
    ids = _ids(io)
    before: Tensor | None = None
    for number in range(len(engine.config.layers)):
        key = f"qat.streams.{number}"
        if key not in io:
            break
        expected = io[key].float()
        actual = _one_layer(engine, number, ids[: expected.shape[0]], before)
        error = row_norms((actual - expected).flatten(1)) / row_norms(expected.flatten(1))
        yield Result(f"{key} median", share(error, 0.5), 5e-3)
        yield Result(f"{key} 90 %", share(error, 0.9), 5e-2)
        before = expected
    if "qat.logits_prefill_sel" in io:
        logits = engine.logits(ids)[io["pos_sel"]]
        cosine = torch.nn.functional.cosine_similarity(logits, io["qat.logits_prefill_sel"], dim=-1).mean()
        yield Result("qat.logits, 1 - mean cosine", 1.0 - float(cosine), 0.05)


def _one_layer(engine: Engine, number: int, ids: list[int], before: Tensor | None) -> Tensor:
    """Return layer `number`'s output streams [n, 4, D] on input streams `before`, or on the embedding."""
    model = engine.reference

    def run() -> Tensor:
        layer = model.layers[number]
        state = LayerState.empty(model.config, layer.spec, model.device)
        out: list[Tensor] = []
        for start, stop in model.chunks(0, len(ids)):
            chunk = model.make_chunk(start, ids[start:stop])
            streams = spread(model.embed[chunk.ids])
            if before is not None:
                streams[: stop - start, :STREAMS] = before[start:stop].to(model.device)
            out.append(layer(streams, state, chunk)[: stop - start, :STREAMS].cpu())
        return torch.cat(out)

    return engine.scheduler.run(at_once(run)).clone()
