"""One training step of the mini model, its losses, its checkpoints and its compiled kernels."""

from __future__ import annotations

import math
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.train_mini.architecture import MiniConfig
from examples.train_mini.model import Layer, LayerCall, MiniModel
from examples.train_mini.optimizer import Optimizer, OptimizerConfig
from examples.train_mini.packing import Rows
from examples.train_mini.ranks import Ranks
from examples.train_mini.tensors import from_array
from examples.train_mini.tensors import seed as seed_everything

ASSISTANT, ENVIRONMENT = 2, 1


@dataclass(frozen=True)
class LossWeights:
    """How much the assistant's tokens, the environment's and the indexer's divergence count."""

    assistant: float = 1.0
    environment: float = 0.1
    indexer: float = 0.05


@dataclass(frozen=True)
class StepLosses:
    """Losses of one step as scalars on the device; reading one waits for the device."""

    assistant: Tensor
    environment: Tensor
    indexer: Tensor
    gradient_norm: Tensor


@dataclass(frozen=True)
class Schedule:
    """Rate factor and phases as functions of progress (0 to 1 of the time) and of the step.

    Warm-up over `warmup` steps, then constant, then from `anneal_from` linearly down to `final`. From
    `quantise_from` on the compute weights are rounded to their storage formats and sparse layers keep only
    the indexer's choice.
    """

    warmup: int = 100
    anneal_from: float = 0.5
    final: float = 0.02
    quantise_from: float = 0.75

    def factor(self, progress: float, step: int) -> float:
        """Return the factor of all rates."""
        rise = min(1.0, (step + 1) / self.warmup)
        if progress <= self.anneal_from:
            return rise
        left = max(0.0, 1 - progress) / (1 - self.anneal_from)
        return rise * (self.final + (1 - self.final) * left)


class Trainer:
    """A model, its optimizer and the device they are on."""

    def __init__(
        self,
        config: MiniConfig,
        *,
        device: str,
        seed: int = 1,
        optimizer: OptimizerConfig | None = None,
        losses: LossWeights | None = None,
        compiled: bool = False,
        initial: MiniModel | None = None,
        bias_rate: float = 1e-3,
        ranks: Ranks | None = None,
    ) -> None:
        """Make a new model, or take over `initial` (its parameters in fp32); the same on all `ranks`."""
        seed_everything(seed)
        self.ranks = ranks or Ranks()
        self.device = torch.device(device)
        self.model = (initial or MiniModel(config)).to(self.device).train()
        compute = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.optimizer = Optimizer(self.model, optimizer, compute=compute)
        self.weights = losses or LossWeights()
        self.bias_rate = bias_rate
        self._losses = token_losses
        if compiled:
            compile_layers(self.model)
            self._losses = compiled_function(token_losses)

    def set_quantised(self, quantised: bool) -> None:
        """Switch quantisation-aware training."""
        if quantised != self.optimizer.quantised:
            self.optimizer.quantised = quantised
            self.optimizer.write()

    def gradients(self, rows: Rows, *, sparse: bool) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Add the gradients of a batch to the optimizer's; return the three losses and the experts' loads."""
        ids, start, weight = (self._upload(part) for part in (rows.ids, rows.start, rows.weight))
        out = self.model(ids, start, sparse=sparse)
        targets, kinds = ids.roll(-1, 1), weight.roll(-1, 1)
        kinds[:, -1] = 0
        losses = self._losses(out.hidden, self.model.head, targets)
        assistant, environment = (
            mean_where(losses, kinds == ASSISTANT),
            mean_where(losses, kinds == ENVIRONMENT),
        )
        w = self.weights
        total = w.assistant * assistant + w.environment * environment + w.indexer * out.indexer_loss
        total.backward()
        return assistant.detach(), environment.detach(), out.indexer_loss.detach(), out.loads

    def step(self, rows: Rows, factor: float, *, sparse: bool) -> StepLosses:
        """Train on one batch."""
        assistant, environment, indexer, loads = self.gradients(rows, sparse=sparse)
        self.ranks.average([*self.optimizer.gradients(), *loads])
        norm = self.optimizer.step(factor)
        self.model.balance(loads, self.bias_rate * factor)
        return StepLosses(assistant, environment, indexer, norm)

    def warm_up(self, rows: Rows) -> None:
        """Compile everything the training will call, without changing the model."""
        for sparse in (False, True):
            self.gradients(rows, sparse=sparse)
        self.optimizer.clear()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def save(self, path: Path, **progress: Any) -> None:
        """Write a checkpoint whole (temporary file, rename)."""
        state = {
            "config": self.model.config.to_official(),
            "optimizer": self.optimizer.state_dict(),
            "buffers": {name: buffer.detach().clone() for name, buffer in self.model.named_buffers()},
            "progress": progress,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def restore(self, path: Path) -> dict[str, Any]:
        """Read a checkpoint; return the progress it was saved with."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.model.load_state_dict(state["buffers"], strict=False)
        return state["progress"]

    def _upload(self, part: Any) -> Tensor:
        tensor = from_array(part)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.long()


def token_losses(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of each target `[B, T]` given the states `[B, T, D]`, fp32."""
    logits = (hidden @ head.T).float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `values` where `mask` holds, 0 if nowhere."""
    counted = mask.float()
    return (values * counted).sum() / counted.sum().clamp(min=1)


def compile_layers(model: MiniModel, backend: str = "inductor") -> None:
    """Run the layers of `model` through torch.compile; layers of one kind share one compiled graph."""
    import torch._dynamo as dynamo

    dynamo.config.recompile_limit = 64
    model.layer_call = cast(LayerCall, compiled_function(Layer.forward, backend))


def compiled_function(function: Callable[..., Any], backend: str = "inductor") -> Callable[..., Any]:
    """Return a function compiled for fixed shapes, without graph breaks."""
    return cast(Any, torch).compile(function, dynamic=False, fullgraph=True, backend=backend)


def use_compile_cache(folder: Path, archive: Path | None = None) -> None:
    """Keep compiled kernels under `folder`, filled from `archive`; call before anything compiles."""
    folder.mkdir(parents=True, exist_ok=True)
    if archive is not None and archive.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")


def save_compile_cache(folder: Path, archive: Path) -> int:
    """Pack the kernels under `folder` for `use_compile_cache`; return the archive's size in bytes."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:xz", preset=1) as tar:
        for part in ("inductor", "triton"):
            if (folder / part).exists():
                tar.add(folder / part, part)
    return archive.stat().st_size


def forward_backward_flops(config: MiniConfig, tokens: int) -> float:
    """Return the matrix FLOPs of one step: 6 per weight and token, attention scores left out."""
    probe = MiniModel(config)
    weights = sum(
        math.prod(p.shape) for name, p in probe.named_parameters() if p.dim() > 1 and name != "embed"
    )
    return 6.0 * weights * tokens
