"""The revisions of the chat format, what differs between them, and which one a checkpoint speaks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

from dsv4agent.encoding.errors import EncodingError


class Revision(StrEnum):
    """A version of the official encoder. Choose it from the checkpoint, never from a model's name."""

    V4_PREVIEW = "v4-preview"
    V4_0731 = "v4-0731"
    V4_1 = "v4.1"


DEFAULT_REVISION: Final = Revision.V4_PREVIEW


@dataclass(frozen=True)
class DsmlTags:
    """Tag names behind the DSML marker. V4.1 writes each with a leading space."""

    block: str
    invoke: str
    parameter: str


V4_TAGS: Final = DsmlTags("tool_calls", "invoke", "parameter")
V4_1_TAGS: Final = DsmlTags(" calls", " invoke", " parameter")


def dsml_tags(revision: Revision) -> DsmlTags:
    """Return the tag names that a revision writes."""
    return V4_1_TAGS if revision is Revision.V4_1 else V4_TAGS


def as_revision(value: str) -> Revision:
    """Return the revision named `value`.

    Raises:
        EncodingError: `unknown_revision`.
    """
    try:
        return Revision(value)
    except ValueError:
        known = ", ".join(item.value for item in Revision)
        raise EncodingError(
            f"Unknown encoding revision {value!r}; use one of {known}.", reason="unknown_revision"
        ) from None


def revision_for_checkpoint(checkpoint: str | Path | Mapping[str, Any]) -> Revision:
    """Choose the revision that a checkpoint was trained with.

    An explicit `dsv4agent_encoding` in config.json wins. Otherwise `model_type` `deepseek_v41` means V4.1; a
    DSpark drafter (its config keys, or its weights in the index) means the July 2026 revision; anything else
    is the preview of April 2026.

    Args:
        checkpoint: The checkpoint's folder, its config.json, or the parsed config.

    Raises:
        EncodingError: `checkpoint_unreadable`, or `unknown_revision` for an explicit key with an unknown
            value.
    """
    if isinstance(checkpoint, Mapping):
        return _from_config(checkpoint, None)
    path = Path(checkpoint)
    folder, config_path = (path, path / "config.json") if path.is_dir() else (path.parent, path)
    index_path = folder / "model.safetensors.index.json"
    return _from_config(_read_json(config_path), _read_json(index_path) if index_path.is_file() else None)


def _from_config(config: Mapping[str, Any], index: Mapping[str, Any] | None) -> Revision:
    explicit = config.get("dsv4agent_encoding")
    if explicit is not None:
        return as_revision(str(explicit))
    if config.get("model_type") == "deepseek_v41":
        return Revision.V4_1
    weights: Mapping[str, Any] = (index or {}).get("weight_map") or {}
    if any(key.startswith("dspark") for key in config) or "mtp.0.main_proj.weight" in weights:
        return Revision.V4_0731
    return Revision.V4_PREVIEW


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncodingError(
            f"Cannot read {path}: {error}. Point to a checkpoint folder with a valid config.json.",
            reason="checkpoint_unreadable",
        ) from error
    if not isinstance(value, dict):
        raise EncodingError(f"{path} does not hold a JSON object.", reason="checkpoint_unreadable")
    return cast("dict[str, Any]", value)
