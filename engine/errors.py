"""What can go wrong between a checkpoint on disk and a sampled token.

```
EngineError
├── ConfigError                  config.json cannot be used
│   ├── MissingConfigKey         a key that the forward pass needs is absent
│   ├── ContradictoryConfig      two keys exclude each other, or a value has no meaning
│   └── UnsupportedArchitecture  another model type
├── CheckpointError              a file of the checkpoint cannot be used
│   ├── MissingShard             the index names a file that is not there
│   ├── TruncatedFile            a file ends before the data its header promises
│   ├── CorruptHeader            the safetensors header or the index is not what the format says
│   ├── MissingTensor            the architecture needs a tensor that no file holds
│   ├── UnknownTensor            a file holds a tensor that the architecture does not have
│   ├── WrongShape               a tensor has another shape than the config implies
│   └── WrongDtype               a tensor is stored in a number format that has no meaning at its place
├── ModelTooLarge                the weights do not fit the memory of the device
├── DeviceUnavailable            the device asked for does not exist here
├── KernelsUnavailable           the GPU kernels were asked for and cannot compute this checkpoint
├── ReferenceOnly                the GPU kernels were asked for what only the reference path has
├── EngineClosed                 the engine was closed before or during the call
├── SequenceClosed               the sequence was closed before the call
├── SequenceBusy                 two calls want to change one sequence at the same time
├── EmptySequence                logits were asked for before any token
├── ContextOverflow              more tokens than the context holds
├── CacheFull                    the device has no room left for another sequence or page
├── InvalidToken                 a token id outside the vocabulary
├── InvalidSampling              sampling parameters that have no meaning
├── NoDrafter                    the checkpoint has no draft module of the kind asked for
├── ConstraintDeadEnd            the constraint allows no token at all
└── WorkerFailed                 the engine's thread met an unexpected exception (its cause)
```
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of everything the engine raises on purpose."""


class ConfigError(EngineError):
    """Raised when config.json cannot be used."""


class MissingConfigKey(ConfigError):
    """Raised when a key that the forward pass needs is absent."""


class ContradictoryConfig(ConfigError):
    """Raised when two keys exclude each other or a value has no meaning."""


class UnsupportedArchitecture(ConfigError):
    """Raised when the config describes another model type."""


class CheckpointError(EngineError):
    """Raised when a file of the checkpoint cannot be used."""


class MissingShard(CheckpointError):
    """Raised when a weight file is not there."""


class TruncatedFile(CheckpointError):
    """Raised when a file ends before the data its header promises."""


class CorruptHeader(CheckpointError):
    """Raised when a safetensors header or the index is not what the format says."""


class MissingTensor(CheckpointError):
    """Raised when no file holds a tensor that the architecture needs."""


class UnknownTensor(CheckpointError):
    """Raised when a file holds a tensor that the architecture does not have."""


class WrongShape(CheckpointError):
    """Raised when a tensor has another shape than the config implies."""


class WrongDtype(CheckpointError):
    """Raised when a tensor is stored in a number format that has no meaning at its place."""


class UnsupportedScale(CheckpointError):
    """Raised when a tensor has a scale with which the kernels' products would not be exact."""


class ModelTooLarge(EngineError):
    """Raised when the weights do not fit the memory of the device.

    Attributes:
        needed_bytes: What the weights take in the form the engine computes with.
        available_bytes: What the device has free.
        part: What did not fit, if the memory was planned part by part; else empty.
    """

    def __init__(self, message: str, *, needed_bytes: int, available_bytes: int, part: str = "") -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes
        self.part = part


class DeviceUnavailable(EngineError):
    """Raised when the device asked for does not exist here."""


class KernelsUnavailable(EngineError):
    """Raised when the GPU kernels were asked for and cannot compute this checkpoint."""


class ReferenceOnly(EngineError):
    """Raised when the GPU kernels are asked for what only the reference path has."""


class EngineClosed(EngineError):
    """Raised when the engine was closed before or during the call."""


class SequenceClosed(EngineError):
    """Raised when the sequence was closed before the call."""


class SequenceBusy(EngineError):
    """Raised when two calls want to change one sequence at the same time."""


class EmptySequence(EngineError):
    """Raised when logits are asked for before any token."""


class ContextOverflow(EngineError):
    """Raised when more tokens are given than the context holds."""


class CacheFull(EngineError):
    """Raised when the device has no room left for another sequence, or for more tokens of one."""


class InvalidToken(EngineError):
    """Raised when a token id lies outside the vocabulary."""


class InvalidSampling(EngineError):
    """Raised when sampling parameters have no meaning."""


class NoDrafter(EngineError):
    """Raised when the checkpoint has no draft module of the kind asked for."""


class ConstraintDeadEnd(EngineError):
    """Raised when a constraint allows no token at all."""


class WorkerFailed(EngineError):
    """Raised when the engine's thread met an unexpected exception; that exception is the cause."""
