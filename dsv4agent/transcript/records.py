"""The one append-only table behind a session, and the chain of digests over it.

A record is a batch of token ids, a cut of the token log, or an event. Records are numbered without gaps
and each digest covers the digest before it, so a record that is changed, lost or moved is found when the
session is opened.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsv4agent.errors import SessionCorrupt

DIGEST_BYTES = 16

_SCHEMA = """
CREATE TABLE IF NOT EXISTS header (body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    step INTEGER NOT NULL,
    start INTEGER NOT NULL,
    label TEXT NOT NULL,
    body BLOB NOT NULL,
    digest BLOB NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Record:
    """One row.

    Attributes:
        kind: `ids` (body: little-endian u32), `cut` (the token log ends at `start` again) or `event`
            (body: JSON).
        step: The step it belongs to.
        start: Position in the token log where the ids begin or the cut is.
        label: For ids `KIND PROVENANCE`, for an event its type.
    """

    kind: Literal["ids", "cut", "event"]
    step: int
    start: int
    label: str
    body: bytes


def pack_ids(ids: Sequence[int]) -> bytes:
    """Return ids as little-endian u32."""
    return struct.pack(f"<{len(ids)}I", *ids)


def unpack_ids(body: bytes) -> tuple[int, ...]:
    """Return the ids of a record's body. Raises `SessionCorrupt` for a body of odd length."""
    if len(body) % 4:
        raise SessionCorrupt(f"a token record has {len(body)} bytes, which is not a multiple of four.")
    return struct.unpack(f"<{len(body) // 4}I", body)


class RecordLog:
    """The table in its file, opened by one writer or by readers.

    SQLite in WAL mode: a transaction is there whole or not at all, whenever the process dies.
    `append(durable=True)` also waits for the disk; token batches do not, because ids that a power cut takes
    are drawn again, the same.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, header: str) -> None:
        self._connection = connection
        self._path = path
        self.header = header
        self._digest = _chain(b"", header.encode())
        self._next = 0

    @classmethod
    def create(cls, path: Path, header: str) -> RecordLog:
        """Make the file. It appears under its name only with its header in it."""
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        connection = _connect(draft)
        connection.executescript(f"PRAGMA synchronous=FULL; BEGIN; {_SCHEMA}")
        connection.execute("INSERT INTO header (body) VALUES (?)", (header,))
        connection.execute("COMMIT")
        connection.close()
        draft.rename(path)
        connection = _connect(path)
        connection.execute("PRAGMA journal_mode=WAL").fetchone()
        return cls(connection, path, header)

    @classmethod
    def open(cls, path: Path) -> RecordLog:
        """Open an existing file. Raises `SessionCorrupt` if it has no readable header."""
        connection = _connect(path)
        try:
            rows = connection.execute("SELECT body FROM header").fetchall()
        except sqlite3.DatabaseError as error:
            connection.close()
            raise SessionCorrupt(f"{path} is not a readable session database ({error}).") from error
        if len(rows) != 1 or not isinstance(rows[0][0], str):
            connection.close()
            raise SessionCorrupt(f"{path} holds {len(rows)} headers where there must be one.")
        return cls(connection, path, rows[0][0])

    def read(self) -> Iterator[tuple[int, Record]]:
        """Yield all records in order. Raises `SessionCorrupt` at the first that does not hold."""
        query = "SELECT seq, kind, step, start, label, body, digest FROM records ORDER BY seq"
        try:
            for seq, kind, step, start, label, body, digest in self._connection.execute(query):
                record = Record(kind, step, start, label, body)
                expected = _chain(self._digest, _content(seq, record))
                if seq != self._next or digest != expected:
                    raise SessionCorrupt(
                        f"{self._path}: record {self._next} does not match its digest; the file was "
                        "changed or damaged. Restore it from a backup or start a new session."
                    )
                self._digest, self._next = expected, seq + 1
                yield seq, record
        except (sqlite3.DatabaseError, TypeError, struct.error) as error:
            raise SessionCorrupt(f"{self._path}: record {self._next} cannot be read ({error}).") from error

    def append(self, records: Sequence[Record], *, durable: bool) -> range:
        """Append records in one transaction and return their numbers."""
        first, digest = self._next, self._digest
        rows: list[tuple[int, str, int, int, str, bytes, bytes]] = []
        for seq, record in enumerate(records, first):
            digest = _chain(digest, _content(seq, record))
            rows.append((seq, record.kind, record.step, record.start, record.label, record.body, digest))
        self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._connection.execute("COMMIT")
        self._digest, self._next = digest, first + len(rows)
        return range(first, self._next)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=10.0)


def _content(seq: int, record: Record) -> bytes:
    head = struct.pack("<qqq", seq, record.step, record.start)
    return b"\0".join((head, record.kind.encode(), record.label.encode(), record.body))


def _chain(before: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(before + content, digest_size=DIGEST_BYTES).digest()
