"""The engine: a checkpoint on a device, sequences over it, and oracles for its parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Ids
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor

from dsv4agent.engine.cache.prefix import Lineage, PrefixRecords
from dsv4agent.engine.cache.state import SequenceState
from dsv4agent.engine.compute import Model
from dsv4agent.engine.config import DrafterKind, ModelConfig
from dsv4agent.engine.errors import (
    ContextOverflow,
    EmptySequence,
    InvalidToken,
    KernelsUnavailable,
    NoDrafter,
    ReferenceOnly,
)
from dsv4agent.engine.memory import check_fit, choose_device
from dsv4agent.engine.model.chunk import Trace
from dsv4agent.engine.model.drafter import DSparkDraft, DSparkDrafter, MTPDrafter, load_drafter
from dsv4agent.engine.model.transformer import Transformer
from dsv4agent.engine.scheduler import Scheduler, Steps, at_once
from dsv4agent.engine.sequence import Sequence
from dsv4agent.engine.weights.loader import Checkpoint
from dsv4agent.engine.weights.supported import unsupported

PrecisionName = Literal["auto", "fp32", "official"]
ComputeName = Literal["auto", "reference", "kernels"]
_SMALL_MODEL = 64_000_000
"""Hidden size squared times layers below which a second thread costs more in waiting than it saves."""


@dataclass(frozen=True)
class EngineConfig:
    """Everything `Engine.load` takes.

    Attributes:
        path: Folder of an official checkpoint.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`; `official`, with the rounding the weights were trained for; `auto` takes `fp32` on
            the CPU and
            `official` for quantised checkpoints on CUDA.
        threads: CPU threads of the device thread; None chooses by model size. Bits may differ between
            settings.
        max_context: Tokens a sequence may hold; None takes the model's.
        compute: `reference`, torch operations; `kernels`, for checkpoints of the published sizes on a GPU;
            `auto` takes the kernels where they can be used.
        sequences: Sequences of full length that the device has room for, with the kernels.
        progress: Told of the memory plan and of each part as it is loaded, with the kernels.
    """

    path: Path
    device: str = "auto"
    precision: PrecisionName = "auto"
    threads: int | None = None
    max_context: int | None = None
    compute: ComputeName = "auto"
    sequences: int = 1
    progress: Callable[[str], None] | None = None


@dataclass(frozen=True)
class EngineStats:
    """Counts since loading.

    Attributes:
        computed_tokens: Positions processed by forward passes for sequences.
        generated_tokens: Tokens that joined sequences by `generate`.
        decode_tokens_per_second: Speed of single-token steps, 0.0 before the first.
        prefill_tokens_per_second: Speed of longer chunks, 0.0 before the first.
    """

    computed_tokens: int
    reused_tokens: int
    generated_tokens: int
    decode_tokens_per_second: float
    prefill_tokens_per_second: float


class Meter:
    """Counts forward passes; written by the device thread."""

    def __init__(self) -> None:
        self.reused = 0
        self.generated = 0
        self._tokens = [0, 0]
        self._seconds = [0.0, 0.0]

    def count(self, tokens: int, seconds: float) -> None:
        """Add one chunk."""
        kind = 0 if tokens == 1 else 1
        self._tokens[kind] += tokens
        self._seconds[kind] += seconds

    def stats(self) -> EngineStats:
        """Return the counts so far."""
        speed = [n / s if s else 0.0 for n, s in zip(self._tokens, self._seconds, strict=True)]
        return EngineStats(sum(self._tokens), self.reused, self.generated, speed[0], speed[1])


class Engine:
    """Made by `Engine.load`; a context manager that closes itself.

    Attributes:
        settings: What it was loaded with.
        config: Of the model.
        scheduler: The thread that owns the device.
        max_context: Tokens a sequence may hold.
        records: States that sequences can start from.
        meter: Counts.
        precision: The path that computes.
        model: Weights, and one step.
    """

    model: Model[Any]

    def __init__(self, config: EngineConfig, model_config: ModelConfig, scheduler: Scheduler) -> None:
        self.settings = config
        self.config = model_config
        self.scheduler = scheduler
        self.device = choose_device(config.device)
        self.max_context = config.max_context or model_config.max_position_embeddings
        if self.max_context > model_config.max_position_embeddings:
            raise ContextOverflow(
                f"The model has {model_config.max_position_embeddings} positions, not {self.max_context}."
            )
        self.records = PrefixRecords()
        self.meter = Meter()
        checkpoint = Checkpoint(config.path, model_config)
        precision = config.precision
        if precision == "auto":
            precision = "official" if self.device.type == "cuda" and model_config.quantized else "fp32"
        self.precision: Literal["fp32", "official"] = precision
        self._drafter: MTPDrafter | DSparkDrafter | None = None
        if self._takes_kernels():
            self.precision = "official"
            self.model = self._load_kernels(checkpoint)
        else:
            check_fit(model_config, self.device)
            reference = Transformer(
                model_config, checkpoint.tensor, device=self.device, official=precision == "official"
            )
            self._drafter = load_drafter(reference)
            reference.calibrate()
            self.model = reference

    @classmethod
    def load(
        cls,
        path_or_config: str | Path | EngineConfig,
        *,
        device: str = "auto",
        precision: PrecisionName = "auto",
        threads: int | None = None,
        max_context: int | None = None,
        compute: ComputeName = "auto",
        sequences: int = 1,
        progress: Callable[[str], None] | None = None,
    ) -> Engine:
        """Load a checkpoint folder (the keywords are those of `EngineConfig`).

        Raises:
            ConfigError, CheckpointError: The folder cannot be used; the message names file and tensor.
            ModelTooLarge: The weights do not fit, with what they would take.
            DeviceUnavailable: There is no such device.
            KernelsUnavailable: The kernels were asked for and cannot compute this checkpoint.
        """
        if isinstance(path_or_config, EngineConfig):
            config = path_or_config
        else:
            config = EngineConfig(
                Path(path_or_config), device, precision, threads, max_context, compute, sequences, progress
            )
        model_config = ModelConfig.from_file(config.path)
        chosen = config.threads if config.threads is not None else _default_threads(model_config)
        scheduler = Scheduler(chosen)
        try:
            # On the device thread: the row tiles hold for its thread count.
            return scheduler.run(at_once(lambda: cls(config, model_config, scheduler)))
        except BaseException:
            scheduler.close()
            raise

    def open(self, token_ids: Iterable[int] = ()) -> Sequence:
        """Return a sequence with these tokens.

        Nothing is computed yet. When first needed, it attaches the longest prefix that a live or recently
        closed sequence has a state for, and processes the rest.
        """
        lineage = Lineage([])
        sequence = Sequence(self, lineage)
        sequence.append(token_ids)
        self.records.add(lineage)
        return sequence

    def logits(self, token_ids: Ids[int], cuts: Iterable[int] = ()) -> Tensor:
        """Return float32 [len, V], the logits after every token, from a cold state, prefill cut at `cuts`."""
        ids = self._checked(token_ids)
        return self.scheduler.run(self._logits(ids, tuple(cuts))).clone()

    def trace(self, token_ids: Ids[int], trace: Trace, cuts: Iterable[int] = ()) -> SequenceState:
        """Process tokens from a cold state, hand intermediate values to `trace`, return the final state."""
        ids = self._checked(token_ids)
        return self.scheduler.run(self._trace(ids, trace, tuple(cuts)))

    def mtp_logits(self, token_ids: Ids[int]) -> Tensor:
        """Return float32 [len-1, V]: after position t, the MTP block's logits for token t+2, given token t+1.

        Raises:
            NoDrafter: The checkpoint has no MTP block.
            ReferenceOnly: The engine computes with the GPU kernels.
        """
        drafter = self._own_drafter()
        if not isinstance(drafter, MTPDrafter):
            raise NoDrafter(f"this checkpoint's drafter is {self.config.drafter.value!r}, not 'mtp'.")
        ids = self._checked(token_ids)
        return self.scheduler.run(at_once(lambda: drafter.logits(ids))).clone()

    def dspark_draft(self, token_ids: Ids[int], position: int) -> DSparkDraft:
        """Draft greedily after committed `position`, given the token at `position + 1`.

        Raises:
            NoDrafter: The checkpoint has no DSpark module.
            ReferenceOnly: The engine computes with the GPU kernels.
        """
        return self.dspark_drafts(token_ids, (position,))[0]

    def dspark_drafts(self, token_ids: Ids[int], positions: Iterable[int]) -> list[DSparkDraft]:
        """Do as `dspark_draft` for several positions of one text, which is processed once."""
        drafter = self._own_drafter()
        if not isinstance(drafter, DSparkDrafter):
            raise NoDrafter(f"this checkpoint's drafter is {self.config.drafter.value!r}, not 'dspark'.")
        ids = self._checked(token_ids)
        chosen = list(positions)
        if any(not 0 <= position < len(ids) - 1 for position in chosen):
            raise ValueError(f"a draft position needs a following token; give 0 ... {len(ids) - 2}.")
        return self.scheduler.run(at_once(lambda: drafter.drafts(ids, chosen)))

    @property
    def reference(self) -> Transformer:
        """The reference path's model, whose parts can be looked at.

        Raises:
            ReferenceOnly: The engine computes with the GPU kernels.
        """
        if not isinstance(self.model, Transformer):
            raise _only_the_reference()
        return self.model

    @property
    def drafter(self) -> DrafterKind:
        """Which draft module the checkpoint has."""
        return self.config.drafter

    @property
    def stats(self) -> EngineStats:
        """Counts and speeds since loading."""
        return self.meter.stats()

    def _own_drafter(self) -> MTPDrafter | DSparkDrafter | None:
        """Return the draft module, which computes with the parts of the reference path."""
        if isinstance(self.model, Transformer):
            return self._drafter
        raise _only_the_reference()

    def _takes_kernels(self) -> bool:
        """Decide between the two ways to compute. Raises `KernelsUnavailable` if asked for what cannot be."""
        if self.settings.compute == "reference":
            return False
        reason = unsupported(self.config)
        if reason is None and self.settings.precision == "fp32":
            reason = "they compute in the official precision, not in fp32"
        if reason is None and find_spec("triton") is None:
            reason = "triton is not installed; run: pip install 'dsv4agent[gpu]'"
        if self.settings.compute == "kernels":
            if reason is not None:
                raise KernelsUnavailable(f"The GPU kernels cannot compute this checkpoint: {reason}.")
            return True
        return reason is None and self.device.type == "cuda"

    def _load_kernels(self, checkpoint: Checkpoint) -> Model[Any]:
        # Only here: the kernels need Triton, which a machine without a card need not have.
        from dsv4agent.engine.runner.model import load_model

        return load_model(
            checkpoint,
            self.device,
            context=self.max_context,
            sequences=self.settings.sequences,
            make_room=self.records.drop_oldest,
            progress=self.settings.progress,
        )

    def retire(self, lineage: Lineage) -> None:
        """Move a closed sequence's states among the recent ones."""
        self.scheduler.run(at_once(lambda: self.records.retire(lineage)), urgent=True)

    def forget(self) -> None:
        """Let go of the states of closed sequences, which are kept to start others from."""
        self.scheduler.run(at_once(self.records.clear), urgent=True)

    def close(self) -> None:
        """End the device thread; waiting calls fail with `EngineClosed`."""
        self.scheduler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def _checked(self, token_ids: Ids[int]) -> list[int]:
        ids = [int(token) for token in token_ids]
        if not ids:
            raise EmptySequence("give at least one token id.")
        if min(ids) < 0 or max(ids) >= self.config.vocab_size:
            raise InvalidToken(f"token ids must lie in 0 ... {self.config.vocab_size - 1}.")
        return ids

    def _logits(self, ids: list[int], cuts: tuple[int, ...]) -> Steps[Tensor]:
        state = self.model.empty_state()
        rows: list[Tensor] = []
        for start, stop in self.model.chunks(0, len(ids), cuts):
            rows.append(self.model.every_logits(state, ids[start:stop]).to("cpu"))
            yield
        return torch.cat(rows)

    def _trace(self, ids: list[int], trace: Trace, cuts: tuple[int, ...]) -> Steps[SequenceState]:
        model = self.reference
        state = model.empty_state()
        for start, stop in model.chunks(0, len(ids), cuts):
            hidden = model.step(state, ids[start:stop], trace)
            trace("logits", start, model.logits(hidden)[: stop - start].clone())
            yield
        return state


def _only_the_reference() -> ReferenceOnly:
    return ReferenceOnly("only the reference path has this; load with compute='reference'.")


def _default_threads(config: ModelConfig) -> int:
    """Return 1 for a model whose steps are too short to share, else the CPUs this process may use."""
    work = config.hidden_size * config.hidden_size * len(config.layers)
    return 1 if work < _SMALL_MODEL else len(os.sched_getaffinity(0))
