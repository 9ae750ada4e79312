"""Muon for matrices and AdamW for the rest, over stacked tensors, with bf16 compute copies of fp32 masters.

All matrices of one shape lie in one stack, as do all other parameters of one type, so a step is a few large
operations for the whole model. The model's parameters become views of the stacks' compute copies, and their
gradients views of the stacks' gradients: nothing is gathered or scattered.

At 23.6 M parameters a step must move about 1 GB (masters, momenta, gradients, copies) and compute about 0.15
TFLOP in Newton-Schulz iterations: under 1 ms on an H200 by bandwidth; the launches of about 400 kernels come
on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from examples.train_mini.model import MiniModel
from examples.train_mini.official_names import Storage, storage_of
from examples.train_mini.quantization import rounded
from examples.train_mini.tensors import norm, transposed

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
ALIGNMENT = 64
"""Elements between which views in a flat stack start, so that compiled kernels find them aligned."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Rates of the two rules; a step scales all of them by the schedule's factor.

    Attributes:
        muon_rate: Rate of orthogonalised updates, per unit of spectral norm.
        adam_rate: Rate of AdamW's default parameters; embedding and hyper-connections have their own
            multiples.
        weight_decay: Decoupled decay of matrices.
        clip: Largest norm of the gradient of AdamW's parameters.
        momentum_warmup: Steps over which Muon's momentum rises from 0.85 to 0.95.
    """

    muon_rate: float = 0.02
    adam_rate: float = 2e-3
    weight_decay: float = 0.02
    clip: float = 1.0
    momentum: float = 0.95
    momentum_warmup: int = 300
    adam_betas: tuple[float, float] = (0.9, 0.95)


class Optimizer:
    """Owns the fp32 masters of a model and writes its compute weights after each step."""

    def __init__(
        self,
        model: MiniModel,
        config: OptimizerConfig | None = None,
        *,
        compute: torch.dtype = torch.bfloat16,
    ) -> None:
        """Take over a model whose parameters hold the starting values in fp32."""
        self.config = config or OptimizerConfig()
        self.steps = 0
        self.quantised = False
        parameters = dict(model.named_parameters())
        shapes: dict[tuple[int, int], list[str]] = {}
        flat: dict[torch.dtype, list[str]] = {}
        for name, parameter in parameters.items():
            if _is_matrix(name):
                shapes.setdefault((parameter.shape[-2], parameter.shape[-1]), []).append(name)
            else:
                # Routing, embeddings and small parameters stay in fp32: their products are cheap or fp32
                # anyway.
                wide = name == "head" or name.endswith("index_weights")
                flat.setdefault(compute if wide else torch.float32, []).append(name)
        self.matrices = [_MatrixStack(names, parameters, compute) for names in shapes.values()]
        self.vectors = [_FlatStack(names, parameters, dtype) for dtype, names in flat.items()]
        self.write()

    @torch.no_grad()
    def step(self, factor: float) -> Tensor:
        """Apply and clear the gradients; return the norm of AdamW's gradient (on the device, fp32 scalar)."""
        c = self.config
        self.steps += 1
        momentum = 0.85 + (c.momentum - 0.85) * min(1.0, self.steps / c.momentum_warmup)
        for stack in self.matrices:
            stack.step(c.muon_rate * factor, momentum, c.weight_decay)
        length = norm(torch.stack([norm(stack.gradient.float()) for stack in self.vectors]))
        scale = (c.clip / (length + 1e-6)).clamp(max=1.0)
        for flat in self.vectors:
            flat.step(c.adam_rate * factor, c.adam_betas, self.steps, scale)
        self.write()
        return length

    @torch.no_grad()
    def write(self) -> None:
        """Refresh the compute weights from the masters, rounded to storage formats if `quantised` is set."""
        for stack in (*self.matrices, *self.vectors):
            stack.write(self.quantised)

    @torch.no_grad()
    def clear(self) -> None:
        """Forget the gradients."""
        for gradient in self.gradients():
            gradient.zero_()

    def gradients(self) -> list[Tensor]:
        """Return the stacks' gradients: a few large tensors that hold those of all parameters."""
        return [stack.gradient for stack in (*self.matrices, *self.vectors)]

    def masters(self) -> dict[str, Tensor]:
        """Return the fp32 master of every parameter, by name (views)."""
        return {
            name: view
            for stack in (*self.matrices, *self.vectors)
            for name, view in stack.views(stack.master)
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything `load_state_dict` needs, by parameter name."""
        state: dict[str, Any] = {"steps": self.steps, "master": _copies(self.masters())}
        state["momentum"] = _copies({n: v for stack in self.matrices for n, v in stack.views(stack.momentum)})
        state["first"] = _copies({n: v for stack in self.vectors for n, v in stack.views(stack.first)})
        state["second"] = _copies({n: v for stack in self.vectors for n, v in stack.views(stack.second)})
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.steps = int(state["steps"])
        for name, view in self.masters().items():
            view.copy_(state["master"][name])
        for stack in self.matrices:
            for name, view in stack.views(stack.momentum):
                view.copy_(state["momentum"][name])
        for flat in self.vectors:
            for name, view in flat.views(flat.first):
                view.copy_(state["first"][name])
            for name, view in flat.views(flat.second):
                view.copy_(state["second"][name])
        self.write()


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return nearly orthogonal matrices with the singular vectors of `[N, rows, columns]`, in bf16 on a GPU.

    Five steps of the quintic Newton-Schulz iteration of the Muon optimiser.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = transposed(x).contiguous()
    x = x / (norm(x.float(), (-2, -1), keepdim=True) + 1e-7).to(x.dtype)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ transposed(x)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return transposed(x) if tall else x


class _MatrixStack:
    """All matrices of one shape: Muon's state and the parameters' storage."""

    def __init__(self, names: list[str], parameters: dict[str, nn.Parameter], compute: torch.dtype) -> None:
        # Neighbours of one format and stored shape are rounded together.
        self.names = sorted(names, key=lambda name: (storage_of(name), parameters[name].shape, name))
        self.shapes = {name: parameters[name].shape for name in self.names}
        self.rows, self.columns = parameters[self.names[0]].shape[-2:]
        values = [
            parameters[name].detach().float().reshape(-1, self.rows, self.columns) for name in self.names
        ]
        self.counts = [len(value) for value in values]
        self.master = torch.cat(values)
        self.momentum = torch.zeros_like(self.master)
        self.compute = self.master.to(compute)
        self.gradient = torch.zeros_like(self.compute)
        self.runs = self._runs()
        for name, view in self.views(self.compute):
            parameters[name].data = view
        for name, view in self.views(self.gradient):
            parameters[name].grad = view

    def views(self, stack: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's part of one of the stacks, in its own shape."""
        start = 0
        for name, count in zip(self.names, self.counts, strict=True):
            yield name, stack[start : start + count].view(self.shapes[name])
            start += count

    def step(self, rate: float, momentum: float, decay: float) -> None:
        gradient = self.gradient.float()
        self.momentum.lerp_(gradient, 1 - momentum)
        update = orthogonalise(gradient.lerp_(self.momentum, momentum))
        self.master.mul_(1 - rate * decay)
        self.master.add_(update, alpha=-rate * max(1.0, self.rows / self.columns) ** 0.5)
        self.gradient.zero_()

    def write(self, quantised: bool) -> None:
        if not quantised:
            self.compute.copy_(self.master)
            return
        for first, last, storage, stored_rows in self.runs:
            stored = self.master[first:last].view(-1, stored_rows, self.columns)
            self.compute[first:last].view_as(stored).copy_(rounded(stored, storage))

    def _runs(self) -> list[tuple[int, int, Storage, int]]:
        """Return slices of the stack with one format, and the rows of the matrices that are stored as one."""
        runs: list[tuple[int, int, Storage, int]] = []
        start = 0
        for name, count in zip(self.names, self.counts, strict=True):
            storage = storage_of(name)
            # The output groups are stored as one tall matrix, whose FP8 blocks may span groups.
            rows = self.rows * count if name.endswith("wo_a") else self.rows
            if runs and runs[-1][2:] == (storage, rows):
                runs[-1] = (runs[-1][0], start + count, storage, rows)
            else:
                runs.append((start, start + count, storage, rows))
            start += count
        return runs


class _FlatStack:
    """Parameters that AdamW updates, in one flat tensor of one compute type."""

    def __init__(self, names: list[str], parameters: dict[str, nn.Parameter], dtype: torch.dtype) -> None:
        self.names = names
        self.shapes = {name: parameters[name].shape for name in names}
        self.offsets: list[int] = []
        size = 0
        for name in names:
            self.offsets.append(size)
            size += -(-parameters[name].numel() // ALIGNMENT) * ALIGNMENT
        device = parameters[names[0]].device
        self.master = torch.zeros(size, device=device)
        self.rates = torch.zeros(size, device=device)
        stored_bf16 = torch.zeros(size, device=device, dtype=torch.bool)
        for name, view in self.views(self.master):
            view.copy_(parameters[name].detach())
        for name, view in self.views(self.rates):
            view.fill_(_rate_multiple(name))
        for name, view in self.views(stored_bf16):
            view.fill_(storage_of(name) is Storage.BF16)
        self.stored_bf16 = stored_bf16
        self.first = torch.zeros_like(self.master)
        self.second = torch.zeros_like(self.master)
        self.compute = self.master.to(dtype, copy=True)
        self.gradient = torch.zeros_like(self.compute)
        for name, view in self.views(self.compute):
            parameters[name].data = view
        for name, view in self.views(self.gradient):
            parameters[name].grad = view

    def views(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's part of one of the flat tensors, in its own shape."""
        for name, offset in zip(self.names, self.offsets, strict=True):
            shape = self.shapes[name]
            yield name, flat[offset : offset + shape.numel()].view(shape)

    def step(self, rate: float, betas: tuple[float, float], steps: int, scale: Tensor) -> None:
        gradient = self.gradient.float() * scale
        self.first.lerp_(gradient, 1 - betas[0])
        self.second.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        deviation = (self.second / (1 - betas[1] ** steps)).sqrt_().add_(1e-10)
        update = self.first.div(deviation).mul_(self.rates)
        self.master.add_(update, alpha=-rate / (1 - betas[0] ** steps))
        self.gradient.zero_()

    def write(self, quantised: bool) -> None:
        if quantised:
            self.compute.copy_(torch.where(self.stored_bf16, self.master.bfloat16().float(), self.master))
        else:
            self.compute.copy_(self.master)


def _is_matrix(name: str) -> bool:
    return storage_of(name) in (Storage.FP4, Storage.FP8) or name.endswith(
        ("compressor.wkv", "compressor.wgate")
    )


def _rate_multiple(name: str) -> float:
    """Rarely seen embedding rows want larger steps, hyper-connections, which act everywhere, smaller ones."""
    if name.endswith(("_hc.fn", "hc_head_fn")):
        return 0.25
    return 1.5 if name == "embed" else 1.0


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
