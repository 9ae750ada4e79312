"""What a checkpoint folder says about itself, read without loading its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, cast

from dsv4agent.backends.protocol import Defaults
from dsv4agent.encoding import Revision, revision_for_checkpoint
from dsv4agent.errors import ModelNotFound
from dsv4agent.transcript import ModelRecord

BUNDLED = ("mini",)
"""Models that come with the package."""

_WHOLE_FILE = 256 << 20
"""Weight files up to this size enter the fingerprint whole, larger ones by samples."""
_SAMPLES = 16
_SAMPLE_BYTES = 64 << 10


@dataclass(frozen=True)
class Checkpoint:
    """A folder in the official layout: config.json, tokenizer.json, *.safetensors, perhaps more."""

    name: str
    path: Path
    config: Mapping[str, Any]

    @classmethod
    def find(cls, model: str | Path) -> Checkpoint:
        """Return the checkpoint of a bundled name or a folder.

        Raises:
            ModelNotFound: The folder does not exist or has no config.json, no tokenizer or no weights.
        """
        name = str(model)
        path = _bundled(name) if name in BUNDLED else Path(model).expanduser().resolve()
        for needed in ("config.json", "tokenizer.json"):
            if not (path / needed).is_file():
                raise ModelNotFound(
                    f"No model at {path}: {needed} is missing. Give the name {' or '.join(BUNDLED)}, or a "
                    "folder with config.json, tokenizer.json and *.safetensors."
                )
        if not any(path.glob("*.safetensors")):
            raise ModelNotFound(f"No model at {path}: it has no *.safetensors file.")
        return cls(name if name in BUNDLED else path.name, path, _read_object(path / "config.json"))

    @property
    def revision(self) -> Revision:
        """The chat encoding that the checkpoint was trained with."""
        return revision_for_checkpoint(self.path)

    @property
    def context_window(self) -> int:
        """Longest sequence in tokens."""
        return int(self.config.get("max_position_embeddings") or 0) or 1_048_576

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights."""
        return sum(file.stat().st_size for file in self.path.glob("*.safetensors"))

    @cached_property
    def defaults(self) -> Defaults:
        """Mode and limits from the `dsv4agent` object of config.json, sampling from generation_config."""
        own = cast("Mapping[str, Any]", self.config.get("dsv4agent") or {})
        file = self.path / "generation_config.json"
        generation: Mapping[str, Any] = _read_object(file) if file.is_file() else {}
        plain = Defaults()
        return Defaults(
            mode=str(own.get("mode", plain.mode)),
            temperature=float(generation.get("temperature", plain.temperature)),
            top_p=float(generation.get("top_p", plain.top_p)),
            max_steps=int(own.get("max_steps", plain.max_steps)),
            command_seconds=float(own.get("command_seconds", plain.command_seconds)),
            redraws=int(own.get("redraws", plain.redraws)),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Digest over configuration, tokenizer and weights; stored ids are only valid under the same."""
        digest = hashlib.sha256()
        for file in (self.path / "config.json", self.path / "tokenizer.json"):
            digest.update(file.read_bytes())
        for file in sorted(self.path.glob("*.safetensors")):
            digest.update(file.name.encode())
            _digest_weights(digest, file)
        return digest.hexdigest()[:32]

    def record(self) -> ModelRecord:
        """Return what a session's header keeps of this checkpoint."""
        return ModelRecord(
            name=self.name,
            path=str(self.path),
            fingerprint=self.fingerprint,
            revision=self.revision.value,
            context_window=self.context_window,
        )


def _bundled(name: str) -> Path:
    return Path(str(resources.files("dsv4agent"))) / "assets" / name


def _read_object(path: Path) -> Mapping[str, Any]:
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"Cannot read {path}: {error}. Fetch the file again.") from error
    if not isinstance(value, dict):
        raise ModelNotFound(f"{path} does not hold a JSON object. Fetch the file again.")
    return cast("dict[str, Any]", value)


def _digest_weights(digest: hashlib._Hash, file: Path) -> None:  # pyright: ignore[reportPrivateUsage]
    size = file.stat().st_size
    digest.update(size.to_bytes(8, "little"))
    with file.open("rb") as stream:
        if size <= _WHOLE_FILE:
            while block := stream.read(1 << 20):
                digest.update(block)
            return
        # The header names every tensor with shape, type and place.
        header = stream.read(8)
        digest.update(header + stream.read(min(int.from_bytes(header, "little"), _WHOLE_FILE)))
        for number in range(_SAMPLES):
            stream.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
