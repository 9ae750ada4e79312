"""Attention over packed rows of documents: window, compressed entries, indexer, sinks and grouped output.

The parallel form here and the incremental form in `decoding.py` share `Compressor` and the projections of
`Attention`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.train_mini.architecture import MiniConfig
from examples.train_mini.tensors import split_axis

MASKED = -1e30


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Scale the last axis to unit mean square in fp32, multiply by `weight`, return the type of `x`."""
    y = x.float()
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)
    if weight is not None:
        y = y * weight.float()
    return y.to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the interleaved pairs of the last `2 * cos.shape[-1]` channels, in fp32."""
    width = 2 * cos.shape[-1]
    plain, rotary = x[..., :-width], x[..., -width:].float()
    a, b = rotary[..., 0::2], rotary[..., 1::2]
    turned = torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    return torch.cat((plain, turned.to(x.dtype)), -1)


def matrix(*shape: int, std: float | None = None) -> nn.Parameter:
    """Return a normally distributed parameter; the default deviation keeps the scale of its input."""
    return nn.Parameter(torch.randn(*shape) * (shape[-1] ** -0.5 if std is None else std))


@dataclass(frozen=True)
class Packing:
    """Where documents lie in packed rows `[B, T]`, and the rotary angles of one kind of layer.

    Attributes:
        starts: Row index of the first token of each token's document, int64 `[B, T]`, multiples of 128.
        cos: Cosines at each token's position in its document, fp32 `[B, T, rope_dim / 2]`.
        sin: The sines.
    """

    starts: Tensor
    cos: Tensor
    sin: Tensor


class Compressor(nn.Module):
    """Pools each group of `ratio` tokens into one entry, with a softmax over tokens in every channel."""

    def __init__(self, config: MiniConfig, ratio: int, dim: int) -> None:
        super().__init__()
        self.ratio, self.dim, self.eps = ratio, dim, config.eps
        channels = dim * (2 if ratio == 4 else 1)
        self.wkv = matrix(channels, config.hidden)
        self.wgate = matrix(channels, config.hidden, std=0.3 * config.hidden**-0.5)
        self.ape = nn.Parameter(torch.zeros(ratio, channels))
        self.norm = nn.Parameter(torch.ones(dim))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and gates of every token, each `[..., T, channels]`."""
        return x @ self.wkv.T, x @ self.wgate.T

    def pool(self, values: Tensor, gates: Tensor, first: Tensor) -> Tensor:
        """Pool groups `[B, N, ratio, channels]` into normalised, unrotated entries `[B, N, dim]`.

        `first` (bool `[B, N]`) marks groups whose predecessor is not in the same document. With ratio 4 an
        entry also covers the first half of the channels of the group before it, so entry 0 of a call is only
        right where `first` holds or when the caller drops it.
        """
        g = gates.float() + self.ape.float()
        v = values.float()
        if self.ratio == 4:
            v, g = self._overlap(v), self._overlap(g)
            unseen = torch.zeros_like(g[..., :1], dtype=torch.bool)
            unseen[:, :, :4] = first[:, :, None, None]
            g = g.masked_fill(unseen, MASKED)
        return rms_norm((torch.softmax(g, 2) * v).sum(2), self.norm, self.eps)

    def _overlap(self, x: Tensor) -> Tensor:
        earlier, own = x[..., : self.dim], x[..., self.dim :]
        shifted = torch.cat((torch.zeros_like(earlier[:, :1]), earlier[:, :-1]), 1)
        return torch.cat((shifted, own), 2)

    def entries(self, values: Tensor, gates: Tensor, packing: Packing) -> Tensor:
        """Return the rotated entries of packed rows, `[B, T / ratio, dim]`."""
        rows = values.shape[1]
        group_start = torch.arange(0, rows, self.ratio, device=values.device)
        first = packing.starts[:, :: self.ratio] == group_start
        shape = (rows // self.ratio, self.ratio)
        pooled = self.pool(split_axis(values, 1, shape), split_axis(gates, 1, shape), first)
        pooled = pooled.to(values.dtype)
        return rotate(pooled, packing.cos[:, :: self.ratio], packing.sin[:, :: self.ratio])


class Attention(nn.Module):
    """Shared-key attention of one layer; `ratio` 0, 4 or 128 chooses which compressed entries there are."""

    def __init__(self, config: MiniConfig, ratio: int) -> None:
        super().__init__()
        self.config, self.ratio = config, ratio
        query_width = config.heads * config.head_dim
        self.wq_a = matrix(config.q_lora, config.hidden)
        self.q_norm = nn.Parameter(torch.ones(config.q_lora))
        self.wq_b = matrix(query_width, config.q_lora)
        self.wkv = matrix(config.head_dim, config.hidden)
        self.kv_norm = nn.Parameter(torch.ones(config.head_dim))
        self.attn_sink = nn.Parameter(torch.zeros(config.heads))
        self.wo_a = matrix(config.o_groups, config.o_lora, query_width // config.o_groups)
        output_width = config.o_groups * config.o_lora
        self.wo_b = matrix(config.hidden, output_width, std=0.3 * output_width**-0.5)
        if ratio:
            self.compressor = Compressor(config, ratio, config.head_dim)
        if ratio == 4:
            self.index_compressor = Compressor(config, 4, config.index_dim)
            self.index_wq_b = matrix(config.index_heads * config.index_dim, config.q_lora)
            self.index_weights = matrix(config.index_heads, config.hidden)

    def queries_and_keys(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return latent `[..., q_lora]`, queries `[..., heads, head_dim]` and keys `[..., head_dim]`."""
        c = self.config
        latent = rms_norm(x @ self.wq_a.T, self.q_norm, c.eps)
        q = rms_norm(split_axis(latent @ self.wq_b.T, -1, (c.heads, c.head_dim)), None, c.eps)
        q = rotate(q, cos.unsqueeze(-2), sin.unsqueeze(-2))
        return latent, q, rotate(rms_norm(x @ self.wkv.T, self.kv_norm, c.eps), cos, sin)

    def output(self, o: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Undo the rotation of head outputs `[..., heads, head_dim]` and project them to `[..., hidden]`."""
        c = self.config
        o = rotate(o, cos.unsqueeze(-2), -sin.unsqueeze(-2))
        grouped = split_axis(o, -2, (c.o_groups, c.heads // c.o_groups)).flatten(-2)
        return torch.einsum("...gi,goi->...go", grouped, self.wo_a).flatten(-2) @ self.wo_b.T

    def index_scores(self, latent: Tensor, x: Tensor, keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Score entries for queries: latent `[B, Q, q_lora]`, keys `[B, N, index_dim]` to fp32 `[B, Q, N]`.

        The Hadamard transform of the reference is orthogonal and so changes nothing without rounding.
        """
        c = self.config
        q = split_axis(latent @ self.index_wq_b.T, -1, (c.index_heads, c.index_dim))
        q = rotate(q, cos.unsqueeze(-2), sin.unsqueeze(-2))
        weights = (x @ self.index_weights.T).float() * (c.index_dim * c.index_heads) ** -0.5
        scores = torch.zeros((), device=x.device)
        for head in range(c.index_heads):
            relevance = F.relu(q[..., head, :] @ keys.transpose(1, 2)).float()
            scores = scores + weights[..., head, None] * relevance
        return scores

    def select(self, scores: Tensor, visible: Tensor) -> Tensor:
        """Return which visible entries are among the `index_topk` best; the lower index wins a tie.

        Ties are common: a score is zero where the query is orthogonal or opposed to the entry in every head.
        """
        scores = scores.masked_fill(~visible, MASKED)
        threshold = scores.topk(self.config.index_topk, -1).values[..., -1:]
        above, equal = scores > threshold, scores == threshold
        left = self.config.index_topk - above.sum(-1, keepdim=True)
        return visible & (above | (equal & (equal.cumsum(-1, dtype=torch.int32) <= left)))

    def forward(self, x: Tensor, packing: Packing, sparse: bool) -> tuple[Tensor, Tensor]:
        """Attend in packed rows `[B, T, hidden]`; return the output and the indexer's loss.

        With `sparse` false a sparse layer attends to all its visible entries, as if `index_topk` were
        unlimited. The loss is the Kullback-Leibler divergence of the indexer's distribution from the
        attention over entries.
        """
        c = self.config
        rows = x.shape[1]
        chunk = c.chunk if rows % c.chunk == 0 else 128
        batch, chunks = x.shape[0], rows // chunk
        latent, q, kv = self.queries_and_keys(x, packing.cos, packing.sin)
        q = split_axis(q, 1, (chunks, chunk)).permute(0, 1, 3, 2, 4)
        q = q.reshape(batch * chunks, c.heads * chunk, c.head_dim)
        near, window_scores = self._window(q, kv, packing.starts, chunk)
        sink = self.attn_sink.float().view(1, 1, c.heads, 1, 1)
        loss = torch.zeros((), device=x.device)
        if not self.ratio:
            peak = torch.maximum(window_scores.amax(-1, keepdim=True), sink).detach()
            p = torch.exp(window_scores - peak)
            p = (p / (p.sum(-1, keepdim=True) + torch.exp(sink - peak))).to(x.dtype)
            o = p.view(batch * chunks, c.heads * chunk, -1) @ near
        else:
            values, gates = self.compressor.project(x)
            entries = self.compressor.entries(values, gates, packing)
            count = rows // self.ratio
            shape = (batch, chunks, c.heads, chunk, count)
            scores = (q.view(batch, -1, c.head_dim) @ entries.transpose(1, 2)).view(shape)
            visible = self._visible_entries(packing.starts, count)
            # The indexer learns only from its own loss, never through the model's.
            keys, x_index, latent_index = entries, x.detach(), latent.detach()
            if self.ratio == 4:
                keys = self.index_compressor.entries(*self.index_compressor.project(x_index), packing)
                if sparse and c.index_topk < count:
                    with torch.no_grad():
                        scored = self.index_scores(latent_index, x_index, keys, packing.cos, packing.sin)
                        visible = self.select(scored, visible)
            seen = visible.view(batch, chunks, 1, chunk, count)
            scores = torch.where(seen, scores.float() * c.head_dim**-0.5, MASKED)
            highest = torch.maximum(window_scores.amax(-1, keepdim=True), scores.amax(-1, keepdim=True))
            peak = torch.maximum(highest, sink).detach()
            p, p_entries = torch.exp(window_scores - peak), torch.exp(scores - peak)
            total = p.sum(-1, keepdim=True) + p_entries.sum(-1, keepdim=True) + torch.exp(sink - peak)
            p, p_entries = (p / total).to(x.dtype), (p_entries / total).to(x.dtype)
            o = (p.view(batch * chunks, c.heads * chunk, -1) @ near).view(batch, -1, c.head_dim)
            o = o + p_entries.view(batch, -1, count) @ entries
            if self.ratio == 4 and self.training:
                stride = slice(c.index_stride - 1, None, c.index_stride)
                target = p_entries.detach()[:, :, :, stride].float().sum(2).flatten(1, 2)
                scored = self.index_scores(
                    latent_index[:, stride],
                    x_index[:, stride],
                    keys,
                    packing.cos[:, stride],
                    packing.sin[:, stride],
                )
                loss = indexer_loss(scored, target, visible[:, stride])
        o = o.view(batch, chunks, c.heads, chunk, c.head_dim).permute(0, 1, 3, 2, 4)
        o = o.reshape(batch, rows, c.heads, c.head_dim)
        return self.output(o, packing.cos, packing.sin), loss

    def _window(self, q: Tensor, kv: Tensor, starts: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        """Return keys near each chunk `[B * chunks, K, head_dim]`, scores `[B, chunks, H, chunk, K]`."""
        c = self.config
        batch, rows, _ = kv.shape
        chunks = rows // chunk
        reach = -(-c.window // chunk) * chunk
        # Neighbouring chunks are joined by slices: unlike that of `unfold`, their gradient needs no atomic
        # additions.
        blocks = split_axis(F.pad(kv, (0, 0, reach, 0)), 1, (-1, chunk))
        near = torch.cat([blocks[:, k : k + chunks] for k in range(reach // chunk + 1)], 2)
        near = near.reshape(batch * chunks, reach + chunk, c.head_dim)
        scores = (q @ near.transpose(1, 2)).view(batch, chunks, c.heads, chunk, reach + chunk)
        query = torch.arange(rows, device=kv.device).view(1, chunks, 1, chunk, 1)
        chunk_start = torch.arange(chunks, device=kv.device).view(1, chunks, 1, 1, 1) * chunk
        key = chunk_start - reach + torch.arange(reach + chunk, device=kv.device)
        start = starts.view(batch, chunks, 1, chunk, 1)
        seen = (key <= query) & (key > query - c.window) & (key >= start)
        return near, torch.where(seen, scores.float() * c.head_dim**-0.5, MASKED)

    def _visible_entries(self, starts: Tensor, count: int) -> Tensor:
        """Return bool `[B, T, count]`: complete groups of the query's own document."""
        entry = torch.arange(count, device=starts.device)
        query = torch.arange(starts.shape[1], device=starts.device)[:, None]
        return (entry < (query + 1) // self.ratio) & (entry >= starts[..., None] // self.ratio)


def indexer_loss(scores: Tensor, attention: Tensor, visible: Tensor) -> Tensor:
    """Return the mean KL divergence of softmax(scores) from the attention over entries, all `[B, Q, N]`.

    Queries that put less than a thousandth of their attention on entries say nothing about them and are left
    out.
    """
    mass = attention.sum(-1, keepdim=True)
    counted = (mass > 1e-3).float()
    target = attention / mass.clamp(min=1e-3)
    log_p = torch.log_softmax(torch.where(visible, scores, MASKED), -1)
    difference = target.clamp(min=1e-20).log() - log_p
    divergence = (torch.where(visible, target * difference, 0.0)).sum(-1, keepdim=True)
    return (divergence * counted).sum() / counted.sum().clamp(min=1)
