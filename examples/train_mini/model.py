"""The trainable mini model: DeepSeek-V4 with every mechanism, over packed rows of documents.

In fp32 it computes what the engine computes; a test holds it to the official outputs. For training the
weights are bf16 copies of fp32 masters, and routed experts are computed densely: at six experts that is
faster than sorting tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.train_mini.architecture import STREAMS, MiniConfig, rope_table
from examples.train_mini.attention import Attention, Packing, matrix, rms_norm
from examples.train_mini.sinkhorn import sinkhorn
from examples.train_mini.tensors import split_axis


@dataclass(frozen=True)
class Output:
    """What a forward pass yields: states `[B, T, hidden]`, the indexer's loss, each router's load."""

    hidden: Tensor
    indexer_loss: Tensor
    loads: list[Tensor]


class HyperConnection(nn.Module):
    """Reads one input for a sublayer from the four residual streams and writes its output back to them."""

    def __init__(self, config: MiniConfig, read_stream: int) -> None:
        super().__init__()
        self.config = config
        self.fn = nn.Parameter(torch.zeros((2 + STREAMS) * STREAMS, STREAMS * config.hidden))
        # Mostly the identity between streams; each sublayer starts by reading and writing some streams more
        # than others.
        base = torch.zeros((2 + STREAMS) * STREAMS)
        base[:STREAMS] = -1.4
        base[read_stream % STREAMS] = 0.0
        base[STREAMS : 2 * STREAMS] = torch.randn(STREAMS) * 0.2
        base[2 * STREAMS :] = (torch.eye(STREAMS) * 3.0).flatten()
        self.base = nn.Parameter(base)
        self.scale = nn.Parameter(torch.full((3,), 0.1))

    def read(self, streams: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the input `[..., D]`, the write weights `[..., 4]` and the mixing matrix `[..., 4, 4]`."""
        c, n = self.config, STREAMS
        flat = streams.flatten(-2)
        norm = torch.rsqrt(flat.float().pow(2).mean(-1, keepdim=True) + c.eps)
        mixes = (flat @ self.fn.to(flat.dtype).T).float() * norm
        pre = torch.sigmoid(mixes[..., :n] * self.scale[0] + self.base[:n]) + c.hc_eps
        post = 2 * torch.sigmoid(mixes[..., n : 2 * n] * self.scale[1] + self.base[n : 2 * n])
        logits = split_axis(mixes[..., 2 * n :] * self.scale[2] + self.base[2 * n :], -1, (n, n))
        mixing = sinkhorn(logits, c.sinkhorn_iters)
        x = (pre.unsqueeze(-1) * streams.float()).sum(-2).to(streams.dtype)
        return x, post, mixing

    def write(self, y: Tensor, streams: Tensor, post: Tensor, mixing: Tensor) -> Tensor:
        """Return the new streams: the transposed mixing of the old ones plus the weighted sublayer output."""
        old = streams.float()
        new = post.unsqueeze(-1) * y.float().unsqueeze(-2)
        for source in range(STREAMS):
            new = new + mixing[..., source, :].unsqueeze(-1) * old[..., source, :].unsqueeze(-2)
        return new.to(streams.dtype)


class MixtureOfExperts(nn.Module):
    """Routed experts by token id (hash) or by score with a balancing bias, and one shared expert."""

    tid2eid: Tensor
    bias: Tensor
    load: Tensor

    def __init__(self, config: MiniConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.hashed = layer < config.hash_layers
        self.gate = matrix(config.experts, config.hidden)
        if self.hashed:
            generator = torch.Generator().manual_seed(layer)
            draws = torch.rand(config.vocab_size, config.experts, generator=generator)
            self.register_buffer("tid2eid", draws.argsort(-1)[:, : config.active_experts].contiguous())
        else:
            self.register_buffer("bias", torch.zeros(config.experts))
            self.register_buffer(
                "load", torch.full((config.experts,), config.active_experts / config.experts)
            )
        down = 0.3 * config.width**-0.5
        self.w1 = matrix(config.experts, config.width, config.hidden)
        self.w3 = matrix(config.experts, config.width, config.hidden)
        self.w2 = matrix(config.experts, config.hidden, config.width, std=down)
        self.shared_w1 = matrix(config.width, config.hidden)
        self.shared_w3 = matrix(config.width, config.hidden)
        self.shared_w2 = matrix(config.hidden, config.width, std=down)

    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output `[..., D]` and the share of tokens each expert got, `[experts]`."""
        c = self.config
        scores = torch.sqrt(F.softplus(x.float() @ self.gate.float().T))
        if self.hashed:
            chosen = self.tid2eid[ids]
        else:
            chosen = (scores.detach() + self.bias).topk(c.active_experts, -1).indices
        active = F.one_hot(chosen, c.experts).sum(-2).float()
        weights = scores * active
        weights = weights / weights.sum(-1, keepdim=True) * c.route_scale
        # The shared expert is one more column, with weight 1.
        weights = torch.cat((weights, torch.ones_like(weights[..., :1])), -1)
        gate = x @ torch.cat((self.w1.flatten(0, 1), self.shared_w1)).T
        up = x @ torch.cat((self.w3.flatten(0, 1), self.shared_w3)).T
        limit = c.swiglu_limit
        h = F.silu(gate.float().clamp(max=limit)) * up.float().clamp(-limit, limit)
        h = split_axis(h, -1, (c.experts + 1, c.width)) * weights.unsqueeze(-1)
        down = torch.cat((self.w2.permute(1, 0, 2).flatten(1), self.shared_w2), 1)
        return h.flatten(-2).to(x.dtype) @ down.T, active.detach().flatten(0, -2).mean(0)


class Layer(nn.Module):
    """One layer: attention and experts, each between a hyper-connection's read and write."""

    def __init__(self, config: MiniConfig, index: int) -> None:
        super().__init__()
        self.eps = config.eps
        self.ratio = config.ratios[index]
        self.attn_hc = HyperConnection(config, 2 * index)
        self.attn_norm = nn.Parameter(torch.ones(config.hidden))
        self.attn = Attention(config, self.ratio)
        self.ffn_hc = HyperConnection(config, 2 * index + 1)
        self.ffn_norm = nn.Parameter(torch.ones(config.hidden))
        self.ffn = MixtureOfExperts(config, index)

    def forward(
        self, streams: Tensor, ids: Tensor, starts: Tensor, cos: Tensor, sin: Tensor, sparse: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the new streams `[B, T, 4, D]`, the indexer's loss and the experts' load."""
        x, post, mixing = self.attn_hc.read(streams)
        y, loss = self.attn(rms_norm(x, self.attn_norm, self.eps), Packing(starts, cos, sin), sparse)
        streams = self.attn_hc.write(y, streams, post, mixing)
        streams, load = self.feed_forward(streams, ids)
        return streams, loss, load

    def feed_forward(self, streams: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the experts' half of the layer to streams of any leading shape."""
        x, post, mixing = self.ffn_hc.read(streams)
        y, load = self.ffn(rms_norm(x, self.ffn_norm, self.eps), ids)
        return self.ffn_hc.write(y, streams, post, mixing), load


LayerCall = Callable[[Layer, Tensor, Tensor, Tensor, Tensor, Tensor, bool], tuple[Tensor, Tensor, Tensor]]


class MiniModel(nn.Module):
    """The whole model: `forward` gives the final states, `logits` their scores of the vocabulary."""

    rope: dict[bool, tuple[Tensor, Tensor]]

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Parameter(torch.randn(config.vocab_size, config.hidden) * 0.5)
        self.layers = nn.ModuleList([Layer(config, index) for index in range(len(config.ratios))])
        self.hc_head_fn = nn.Parameter(torch.zeros(STREAMS, STREAMS * config.hidden))
        self.hc_head_base = nn.Parameter(torch.full((STREAMS,), -1.0))
        self.hc_head_scale = nn.Parameter(torch.full((1,), 0.1))
        self.norm = nn.Parameter(torch.ones(config.hidden))
        self.head = matrix(config.vocab_size, config.hidden, std=0.5 * config.hidden**-0.5)
        for name, ratio in (("plain", 0), ("compress", 4)):
            cos, sin = rope_table(config, ratio)
            self.register_buffer(f"cos_{name}", cos, persistent=False)
            self.register_buffer(f"sin_{name}", sin, persistent=False)
        self.layer_call: LayerCall = Layer.forward

    @property
    def blocks(self) -> list[Layer]:
        """The layers, typed."""
        return cast("list[Layer]", list(self.layers))

    def angles(self, ratio: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines of a layer with this ratio at integer positions."""
        name = "compress" if ratio else "plain"
        cos, sin = cast(Tensor, getattr(self, f"cos_{name}")), cast(Tensor, getattr(self, f"sin_{name}"))
        return cos[positions], sin[positions]

    def streams(self, ids: Tensor) -> Tensor:
        """Return the embeddings of `ids` copied into four streams, `[..., 4, D]`, in the compute type."""
        x = F.embedding(ids, self.embed).to(self.head.dtype)
        return x.unsqueeze(-2).expand(*ids.shape, STREAMS, -1).contiguous()

    def collapse(self, streams: Tensor) -> Tensor:
        """Merge the streams into one normalised state `[..., D]`."""
        c = self.config
        flat = streams.flatten(-2)
        norm = torch.rsqrt(flat.float().pow(2).mean(-1, keepdim=True) + c.eps)
        mixes = (flat @ self.hc_head_fn.to(flat.dtype).T).float() * norm
        weights = torch.sigmoid(mixes * self.hc_head_scale[0] + self.hc_head_base) + c.hc_eps
        return rms_norm((weights.unsqueeze(-1) * streams.float()).sum(-2).to(flat.dtype), self.norm, c.eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return vocabulary scores `[..., V]` of final states, in their type."""
        return hidden @ self.head.T

    def forward(self, ids: Tensor, starts: Tensor, *, sparse: bool = True) -> Output:
        """Run packed rows.

        Args:
            ids: Token ids, int64 `[B, T]`, T a multiple of 128 and at most `max_positions`.
            starts: Row index where each token's document starts, int64 `[B, T]`, multiples of 128.
            sparse: Whether sparse layers keep only the indexer's choice of entries.
        """
        positions = torch.arange(ids.shape[1], device=ids.device) - starts
        plain, compress = self.angles(0, positions), self.angles(4, positions)
        x = self.streams(ids)
        losses: list[Tensor] = []
        loads: list[Tensor] = []
        for layer in self.blocks:
            cos, sin = compress if layer.ratio else plain
            x, loss, load = self.layer_call(layer, x, ids, starts, cos, sin, sparse and layer.ratio == 4)
            if layer.ratio == 4:
                losses.append(loss)
            if not layer.ffn.hashed:
                loads.append(load)
        total = torch.stack(losses).sum() if losses else torch.zeros((), device=ids.device)
        return Output(self.collapse(x), total, loads)

    @torch.no_grad()
    def balance(self, loads: list[Tensor], rate: float) -> None:
        """Move each routing bias by `rate` towards an even load (V4 report, load balancing)."""
        routers = [layer.ffn for layer in self.blocks if not layer.ffn.hashed]
        target = self.config.active_experts / self.config.experts
        seen = [router.load for router in routers]
        many = cast(Any, torch)
        many._foreach_lerp_(seen, loads, 0.1)
        direction = many._foreach_sign(many._foreach_neg(many._foreach_sub(seen, target)))
        many._foreach_add_([router.bias for router in routers], direction, alpha=rate)
