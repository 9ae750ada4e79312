"""Packed training rows: filling them with documents, processes that make them, the pool that replays them.

Feeders are plain child processes (`python -m examples.train_mini.packing`) that write rows of a fixed size to
a pipe, so nothing is pickled, and a feeder that dies is seen as the end of its pipe.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import resource
import selectors
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 128
PAD = 2
CHILD_BYTES = 8 << 30
"""Address space of a process that runs code with bugs: one may make a function grow without end."""
WAITING = 64
"""Documents a packer chooses from when it fills a row."""
LOOK_EVERY = 8
"""Documents between a feeder's looks at the file of further ones."""
KEPT_ROWS = 96
"""Waiting rows kept when further documents come: about a second's worth, until the first new ones."""


class DocumentLike(Protocol):
    """An encoded document."""

    @property
    def ids(self) -> NDArray[np.uint16]:
        """Token ids."""
        ...

    @property
    def weight(self) -> NDArray[np.uint8]:
        """How each id counts as a target: 0 not at all, 1 as the environment's, 2 as the assistant's."""
        ...


Source = Callable[[int], Iterator[DocumentLike]]
"""Yields documents forever, given a seed."""


class FeederError(RuntimeError):
    """All feeder processes ended, so no new row can come; their log says why."""


@dataclass(frozen=True)
class Rows:
    """Packed rows `[N, T]`: ids int16, weight uint8, start int16 (where each token's document begins)."""

    ids: NDArray[np.int16]
    weight: NDArray[np.uint8]
    start: NDArray[np.int16]

    @property
    def tokens(self) -> int:
        """Number of positions, padding included."""
        return self.ids.size

    @classmethod
    def stack(cls, rows: Sequence[Rows]) -> Rows:
        """Join rows."""
        return cls(
            np.concatenate([row.ids for row in rows]),
            np.concatenate([row.weight for row in rows]),
            np.concatenate([row.start for row in rows]),
        )

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` with the same length reverses it."""
        return self.ids.tobytes() + self.start.tobytes() + self.weight.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, length: int) -> Rows:
        """Read one row of `length` tokens."""
        words = np.frombuffer(data, np.int16, 2 * length)
        weight = np.frombuffer(data, np.uint8, length, offset=4 * length)
        return cls(words[None, :length], weight[None], words[None, length:])


def row_bytes(length: int) -> int:
    """Return the size of one serialised row."""
    return 5 * length


def pack_row(documents: list[DocumentLike], length: int) -> Rows:
    """Fill one row with the first of `documents`, then always the longest that fits, removing what it takes.

    Documents start at multiples of 128. The first token of a document is never a target: what precedes it in
    the row belongs to another document. Raises `ValueError` if the first document is longer than the row.
    """
    ids = np.full(length, PAD, np.int16)
    weight = np.zeros(length, np.uint8)
    start = np.zeros(length, np.int16)
    position = 0
    choice: int | None = 0 if documents else None
    while choice is not None:
        document = documents.pop(choice)
        size = len(document.ids)
        if size > length - position:
            raise ValueError(
                f"A document of {size} tokens does not fit a row of {length}; drop it before packing."
            )
        ids[position : position + size] = document.ids
        weight[position : position + size] = document.weight
        weight[position] = 0
        start[position:] = position
        position += -(-size // ALIGNMENT) * ALIGNMENT
        fitting = [i for i, other in enumerate(documents) if len(other.ids) <= length - position]
        choice = max(fitting, key=lambda i: len(documents[i].ids), default=None)
    if position < length:
        # The rest is a document of padding, which nothing is trained on.
        start[position:] = position
    return Rows(ids[None], weight[None], start[None])


def packed_rows(documents: Iterator[DocumentLike], length: int, rng: random.Random) -> Iterator[Rows]:
    """Yield rows packed from a stream of documents in random order; drop documents longer than a row."""
    waiting: list[DocumentLike] = []
    for document in documents:
        if 1 < len(document.ids) <= length:
            waiting.append(document)
        if len(waiting) >= WAITING:
            first = rng.randrange(len(waiting))
            waiting[0], waiting[first] = waiting[first], waiting[0]
            yield pack_row(waiting, length)
    while waiting:
        yield pack_row(waiting, length)


def save_documents(path: Path, documents: Sequence[DocumentLike]) -> None:
    """Write documents to an `.npz` file that `load_documents` reads."""
    lengths = np.array([len(document.ids) for document in documents], np.int64)
    empty_ids, empty_weight = np.zeros(0, np.uint16), np.zeros(0, np.uint8)
    np.savez_compressed(
        path,
        lengths=lengths,
        ids=np.concatenate([empty_ids, *[document.ids for document in documents]]).astype(np.uint16),
        weight=np.concatenate([empty_weight, *[document.weight for document in documents]]).astype(np.uint8),
    )


@dataclass(frozen=True)
class StoredDocument:
    """A document read from a file."""

    ids: NDArray[np.uint16]
    weight: NDArray[np.uint8]


def load_documents(path: Path) -> list[StoredDocument]:
    """Read what `save_documents` wrote."""
    with np.load(path) as data:
        ends = np.cumsum(data["lengths"])
        ids, weight = np.split(data["ids"], ends[:-1]), np.split(data["weight"], ends[:-1])
    return [StoredDocument(i, w) for i, w in zip(ids, weight, strict=True) if len(i)]


class ExtraDocuments:
    """Documents of a file, and those of another one that may come, and be replaced, while they are used.

    The second file must be written whole under another name and then renamed.
    """

    def __init__(self, fixed: Path | None, watched: Path | None) -> None:
        self._fixed = load_documents(fixed) if fixed else []
        self._watched = watched
        self._version: tuple[int, int] | None = None
        self._all: Sequence[DocumentLike] = self._fixed
        self._calls = 0

    def __call__(self) -> Sequence[DocumentLike]:
        """Return the documents as of the last look at the file; look again every few calls."""
        if self._watched is not None and self._calls % LOOK_EVERY == 0:
            self._look(self._watched)
        self._calls += 1
        return self._all

    def _look(self, path: Path) -> None:
        try:
            status = path.stat()
        except FileNotFoundError:
            return
        version = (status.st_ino, status.st_mtime_ns)
        if version != self._version:
            self._all = [*self._fixed, *load_documents(path)]
            self._version = version


def mixed(
    source: Iterator[DocumentLike],
    extra: Callable[[], Sequence[DocumentLike]],
    share: float,
    rng: random.Random,
) -> Iterator[DocumentLike]:
    """Yield from `source`, replacing a `share` of documents by random ones of those that `extra` returns."""
    while True:
        further = extra()
        if further and rng.random() < share:
            yield rng.choice(further)
        else:
            document = next(source, None)
            if document is None:
                return
            yield document


def resolve_source(name: str) -> Source:
    """Import `package.module:function`."""
    module, _, function = name.partition(":")
    return cast(Source, getattr(importlib.import_module(module), function))


class RowStream:
    """Batches of packed rows from feeder processes; replays old rows rather than let the consumer wait.

    Fresh rows are used once each as they come, in order. When there are not enough, random rows of the pool
    (the most recent `pool_rows`) fill the batch. `received` counts rows that came, `fresh` and `replayed`
    rows handed out.

    Feeders replace `extra_share` of their documents by those of the file `extra` and by further ones, which
    reach them while they run through the file `further`; what is there at the start counts as well.
    """

    def __init__(
        self,
        source: str,
        *,
        workers: int,
        length: int,
        seed: int,
        extra: Path | None = None,
        extra_share: float = 0.1,
        further: Path | None = None,
        pool_rows: int = 40000,
        backlog: int = 2000,
        log: Path | None = None,
    ) -> None:
        self.length, self.fresh, self.replayed, self.received = length, 0, 0, 0
        self._pool: deque[Rows] = deque(maxlen=pool_rows)
        self._waiting: deque[Rows] = deque()
        self.backlog = backlog
        self._rng = random.Random(seed)
        self._arrival = threading.Condition()
        self._closed = self._held = False
        self._alive = workers
        self._further_file = further
        self._further: list[DocumentLike] = []
        if further is not None and further.exists():
            self._further += load_documents(further)
        command = [
            sys.executable,
            "-m",
            "examples.train_mini.packing",
            "--source",
            source,
            "--length",
            str(length),
        ]
        command += ["--extra-share", str(extra_share)]
        for option, path in (("--extra", extra), ("--further", further)):
            if path is not None:
                command += [option, str(path)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment["CUDA_VISIBLE_DEVICES"] = ""
        self._log = log.open("ab") if log else None
        self._log_name = str(log or "their standard error")
        self._processes = [
            subprocess.Popen(
                [*command, "--seed", str(seed * 1_000_003 + worker)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
            )
            for worker in range(workers)
        ]
        self._reader = threading.Thread(target=self._read, name="row-reader", daemon=True)
        self._reader.start()

    @property
    def waiting(self) -> int:
        """Fresh rows not yet handed out."""
        return len(self._waiting)

    def wait_for(self, rows: int, timeout: float) -> None:
        """Block until `rows` rows have come. Raises `FeederError` or `TimeoutError`."""
        with self._arrival:
            arrived = self._arrival.wait_for(lambda: len(self._pool) >= rows or not self._alive, timeout)
            if len(self._pool) >= rows:
                return
        if not arrived:
            raise TimeoutError(f"Fewer than {rows} rows came in {timeout:.0f} s; see {self._log_name}.")
        raise FeederError(f"All feeder processes ended before the first row came; see {self._log_name}.")

    def batch(self, rows: int) -> Rows:
        """Return `rows` rows, fresh ones first; raises `FeederError` if there is nothing to replay either."""
        with self._arrival:
            taken = [self._waiting.popleft() for _ in range(min(rows, len(self._waiting)))]
            self._arrival.notify_all()
            if len(taken) < rows and not self._pool:
                raise FeederError("No row has come yet; call wait_for first.")
            self.fresh += len(taken)
            self.replayed += rows - len(taken)
            taken += [self._pool[self._rng.randrange(len(self._pool))] for _ in range(rows - len(taken))]
        return Rows.stack(taken)

    def hold(self, held: bool) -> None:
        """Take in no rows, so that the feeders stop before long and leave their cores to others, or go on."""
        with self._arrival:
            self._held = held
            self._arrival.notify_all()

    def add_documents(self, documents: Sequence[DocumentLike]) -> None:
        """Let the feeders mix in further documents, with those given before, from now on.

        Rows packed before would delay them by the whole backlog, so all but a few leave the queue; they stay
        in the pool for replay. Raises `OSError` if the file cannot be written and `ValueError` if the stream
        has none.
        """
        if self._further_file is None:
            raise ValueError("The stream has no file for further documents; make it with `further`.")
        together = [*self._further, *documents]
        partial = self._further_file.with_suffix(".partial.npz")
        save_documents(partial, together)
        os.replace(partial, self._further_file)
        self._further = together
        with self._arrival:
            while len(self._waiting) > KEPT_ROWS:
                self._waiting.popleft()
            self._arrival.notify_all()

    def close(self) -> None:
        """End the feeders."""
        with self._arrival:
            self._closed = True
            self._arrival.notify_all()
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._reader.join(timeout=10)
        for process in self._processes:
            if process.stdout:
                process.stdout.close()
        if self._log:
            self._log.close()

    def _read(self) -> None:
        size = row_bytes(self.length)
        buffers = {process.pid: bytearray() for process in self._processes}
        with selectors.DefaultSelector() as selector:
            for process in self._processes:
                selector.register(cast(BinaryIO, process.stdout), selectors.EVENT_READ, process.pid)
            while not self._closed and selector.get_map():
                for key, _ in selector.select(timeout=0.5):
                    buffer = buffers[cast(int, key.data)]
                    piece = os.read(key.fd, 1 << 18)
                    if not piece:
                        selector.unregister(key.fileobj)
                        with self._arrival:
                            self._alive -= 1
                            self._arrival.notify_all()
                        continue
                    buffer += piece
                    while len(buffer) >= size:
                        self._add(Rows.from_bytes(bytes(buffer[:size]), self.length))
                        del buffer[:size]

    def _add(self, row: Rows) -> None:
        with self._arrival:
            # A full backlog stops the reading, and the full pipes then stop the feeders.
            self._arrival.wait_for(
                lambda: (len(self._waiting) < self.backlog and not self._held) or self._closed
            )
            self._pool.append(row)
            self._waiting.append(row)
            self.received += 1
            self._arrival.notify_all()


def main() -> None:
    """Feed: write packed rows to standard output until the reader goes away."""
    parser = argparse.ArgumentParser(description="Write packed training rows to standard output.")
    parser.add_argument("--source", required=True, help="package.module:function that yields documents")
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--extra", type=Path)
    parser.add_argument("--further", type=Path, help="file of documents that may come later and change")
    parser.add_argument("--extra-share", type=float, default=0.1)
    arguments = parser.parse_args()
    # What grows without end must fail and not take the machine with it.
    resource.setrlimit(resource.RLIMIT_AS, (CHILD_BYTES, CHILD_BYTES))
    # Whatever the document source prints must not reach the pipe of rows.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    rng = random.Random(arguments.seed)
    extra = ExtraDocuments(arguments.extra, arguments.further)
    documents = mixed(resolve_source(arguments.source)(arguments.seed), extra, arguments.extra_share, rng)
    try:
        for row in packed_rows(documents, arguments.length, rng):
            pipe.write(row.to_bytes())
            pipe.flush()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)


if __name__ == "__main__":
    main()
