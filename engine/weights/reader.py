"""Reads safetensors files, sharded or single, through a private memory map.

Every failure names file and tensor.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from dsv4agent.engine.errors import CorruptHeader, MissingShard, MissingTensor, TruncatedFile, WrongDtype

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

# Formats without a torch arithmetic of their own stay raw bytes: their meaning is decided by the tensor's
# place.
_STORAGE: Mapping[str, torch.dtype] = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "F8_E4M3": torch.uint8,
    "F8_E8M0": torch.uint8,
}


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies.

    `dtype` is the safetensors name, `start` and `stop` are byte offsets in the file.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class CheckpointReader:
    """Tensors of a checkpoint folder by name.

    Headers are read and checked against file sizes at once; data is mapped when asked for.

    Raises:
        MissingShard: The index names a file that is not there, or there is no weight file at all.
        TruncatedFile: A file is shorter than its header promises.
        CorruptHeader: Header or index are not what the format says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, TensorEntry] = {}
        self._maps: dict[Path, mmap.mmap] = {}
        index = folder / INDEX_NAME
        if index.is_file():
            self._read_index(index)
        elif (folder / SINGLE_NAME).is_file():
            self.entries = read_header(folder / SINGLE_NAME)
        else:
            raise MissingShard(
                f"{folder} holds neither {INDEX_NAME} nor {SINGLE_NAME}; download the weights."
            )

    def names(self) -> list[str]:
        """Return all tensor names, sorted."""
        return sorted(self.entries)

    def entry(self, name: str) -> TensorEntry:
        """Return where `name` lies. Raises `MissingTensor`."""
        found = self.entries.get(name)
        if found is None:
            raise MissingTensor(f"{self.folder}: no file holds {name}; the checkpoint is incomplete.")
        return found

    def read(self, name: str) -> Tensor:
        """Return tensor `name` as stored (8-bit formats as raw uint8 or int8).

        Shares the file's memory map.
        """
        entry = self.entry(name)
        dtype = _STORAGE.get(entry.dtype)
        if dtype is None:
            raise WrongDtype(
                f"{entry.file}: {name} is stored as {entry.dtype}, which this engine cannot read."
            )
        count = math.prod(entry.shape)
        if count == 0:
            return torch.empty(entry.shape, dtype=dtype)
        flat = torch.frombuffer(self._map(entry.file), dtype=dtype, count=count, offset=entry.start)
        return flat.reshape(entry.shape)

    def _map(self, file: Path) -> mmap.mmap:
        if file not in self._maps:
            with file.open("rb") as handle:
                # A private copy-on-write map: torch wants writable memory, and nothing reaches the file.
                self._maps[file] = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)
        return self._maps[file]

    def _read_index(self, index: Path) -> None:
        try:
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            placement = {str(name): str(file) for name, file in weight_map.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptHeader(f"{index} has no readable weight_map: {error}") from error
        headers: dict[str, dict[str, TensorEntry]] = {}
        for file in sorted(set(placement.values())):
            path = self.folder / file
            if not path.is_file():
                raise MissingShard(f"{index} names {file}, which is not there; download it again.")
            headers[file] = read_header(path)
        for name, file in placement.items():
            entry = headers[file].get(name)
            if entry is None:
                raise MissingTensor(f"{self.folder / file} lacks {name}, which the index places there.")
            self.entries[name] = entry
        for header in headers.values():
            for name, entry in header.items():
                self.entries.setdefault(name, entry)


def read_header(file: Path) -> dict[str, TensorEntry]:
    """Read and check the header of one safetensors file."""
    size = file.stat().st_size
    with file.open("rb") as handle:
        head = handle.read(8)
        if len(head) < 8:
            raise TruncatedFile(f"{file} has {size} bytes, too few for a header; download it again.")
        (length,) = struct.unpack("<Q", head)
        if length > size - 8:
            raise TruncatedFile(
                f"{file}: the header alone wants {length} bytes of {size}; download it again."
            )
        raw = handle.read(length)
    try:
        header = cast("dict[str, Any]", json.loads(raw))
        items = [(name, value) for name, value in header.items() if name != "__metadata__"]
        return {name: _entry(file, name, value, 8 + length, size) for name, value in items}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptHeader(f"{file}: the header is not valid: {error}") from error


def _entry(file: Path, name: str, value: Mapping[str, Any], base: int, size: int) -> TensorEntry:
    start, stop = (int(offset) for offset in value["data_offsets"])
    shape = tuple(int(dim) for dim in value["shape"])
    dtype = str(value["dtype"])
    if base + stop > size:
        raise TruncatedFile(
            f"{file}: {name} ends at byte {base + stop}, the file at {size}; download it again."
        )
    storage = _STORAGE.get(dtype)
    if storage is not None and stop - start != math.prod(shape) * storage.itemsize:
        raise CorruptHeader(f"{file}: {name} {dtype} {list(shape)} does not take {stop - start} bytes.")
    return TensorEntry(file=file, dtype=dtype, shape=shape, start=base + start, stop=base + stop)
