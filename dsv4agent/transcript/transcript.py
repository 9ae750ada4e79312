"""The transcript of one session: token ids with spans over them, and events, in memory and on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from dsv4agent.errors import SessionBusy, SessionCorrupt, SessionNotFound
from dsv4agent.transcript.events import (
    EVENT_ADAPTER,
    Event,
    ReasoningDelta,
    Rewound,
    TextDelta,
    TurnDiscarded,
    UserMessage,
)
from dsv4agent.transcript.header import FORMAT, Header
from dsv4agent.transcript.records import Record, RecordLog, pack_ids, unpack_ids

DATABASE = "session.db"
LOCK = "lock"
SPILL = "spill"
SAMPLED = "sampled"

E = TypeVar("E", bound=Event)


@dataclass(frozen=True)
class Span:
    """A run of ids with one origin.

    Attributes:
        kind: `sampled` for the model's own ids; otherwise what the encoder says (`control`, `text`).
        provenance: Whose words they are: `system`, `user`, `tool:NAME`, `model`, `runtime`, ...
    """

    start: int
    length: int
    step: int
    kind: str
    provenance: str


@dataclass(frozen=True)
class NewSpan:
    """Ids to be appended, with their origin."""

    ids: Sequence[int]
    kind: str
    provenance: str


class Transcript:
    """An append-only log with one writer; `tokens`, `spans` and `live_events` are views of it.

    What `commit` has returned from survives the end of the process at any moment. A rewind is a record
    too: the log keeps what was cut, the views leave it out.
    """

    def __init__(self, folder: Path, header: Header, log: RecordLog, lock: FileLock | None) -> None:
        self.folder = folder
        self.header = header
        self.tokens: list[int] = []
        self.spans: list[Span] = []
        self.events: list[Event] = []
        self._log = log
        self._lock = lock

    @classmethod
    def create(cls, folder: Path, header: Header) -> Transcript:
        """Make the session's folder (mode 0700) and open it for writing."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / SPILL).mkdir(mode=0o700, exist_ok=True)
        lock = _acquire(folder)
        return cls(folder, header, RecordLog.create(folder / DATABASE, header.model_dump_json()), lock)

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False) -> Transcript:
        """Open a stored session and check all of it.

        Raises:
            SessionNotFound: There is no session in `folder`.
            SessionBusy: Another process writes it (not raised with `read_only`).
            SessionCorrupt: It cannot be read, or a record does not match its digest.
        """
        if not (folder / DATABASE).is_file():
            raise SessionNotFound(f"No session at {folder}. `dsv4agent sessions list` shows what there is.")
        lock = None if read_only else _acquire(folder)
        log: RecordLog | None = None
        try:
            log = RecordLog.open(folder / DATABASE)
            transcript = cls(folder, _read_header(folder, log.header), log, lock)
            for seq, record in log.read():
                transcript._apply(seq, record)
        except SessionCorrupt:
            if log is not None:
                log.close()
            if lock is not None:
                lock.release()
            raise
        return transcript

    @property
    def spill_dir(self) -> Path:
        """Folder for outputs too long to show."""
        return self.folder / SPILL

    def commit(self, *events: E, spans: Iterable[NewSpan] = (), step: int = 0) -> list[E]:
        """Append spans, then events, in one durable transaction; return the events with their numbers."""
        records: list[Record] = []
        position = len(self.tokens)
        for span in spans:
            records.append(_ids_record(step, position, span))
            position += len(span.ids)
        records += [_event_record(event) for event in events]
        numbers = self._append(records, durable=True)
        stored = [
            event.model_copy(update={"seq": seq})
            for event, seq in zip(events, numbers[len(records) - len(events) :], strict=True)
        ]
        return stored

    def extend(self, ids: Sequence[int], *, step: int) -> None:
        """Append ids that the model has just produced."""
        self._append([_ids_record(step, len(self.tokens), NewSpan(ids, SAMPLED, "model"))], durable=False)

    def cut(self, length: int, *events: E, step: int) -> list[E]:
        """End the token log at `length` again, with events that say so, in one durable transaction."""
        assert 0 <= length <= len(self.tokens)
        records = [Record("cut", step, length, "", b""), *(_event_record(event) for event in events)]
        numbers = self._append(records, durable=True)
        return [event.model_copy(update={"seq": seq}) for event, seq in zip(events, numbers[1:], strict=True)]

    def live_events(self) -> list[Event]:
        """Return the events that count.

        A rewind takes back all from its step on but the user's words; a discarded turn loses what it said.
        """
        live: list[Event] = []
        for event in self.events:
            if isinstance(event, Rewound):
                step = event.step
                live = [
                    kept
                    for kept in live
                    if kept.step < step or (kept.step == step and isinstance(kept, UserMessage))
                ]
            elif isinstance(event, TurnDiscarded):
                step = event.step
                live = [
                    kept
                    for kept in live
                    if kept.step != step or not isinstance(kept, ReasoningDelta | TextDelta)
                ]
                live.append(event)
            else:
                live.append(event)
        return live

    def fork(self, folder: Path, header: Header) -> Transcript:
        """Return a new transcript that begins with everything that counts in this one."""
        branch = Transcript.create(folder, header)
        records: list[Record] = []
        for span in self.spans:
            ids = self.tokens[span.start : span.start + span.length]
            records.append(_ids_record(span.step, span.start, NewSpan(ids, span.kind, span.provenance)))
        branch._append([*records, *map(_event_record, self.live_events())], durable=True)
        return branch

    def close(self) -> None:
        """Close the database and release the writer lock."""
        self._log.close()
        if self._lock is not None:
            self._lock.release()

    def _append(self, records: Sequence[Record], *, durable: bool) -> range:
        numbers = self._log.append(records, durable=durable)
        for seq, record in zip(numbers, records, strict=True):
            self._apply(seq, record)
        return numbers

    def _apply(self, seq: int, record: Record) -> None:
        match record.kind:
            case "ids":
                self._apply_ids(record, unpack_ids(record.body))
            case "cut":
                self._apply_cut(record.start)
            case "event":
                try:
                    event = EVENT_ADAPTER.validate_json(record.body)
                except ValidationError as error:
                    raise SessionCorrupt(f"{self.folder}: event {seq} is not readable ({error}).") from error
                self.events.append(event.model_copy(update={"seq": seq}))

    def _apply_ids(self, record: Record, ids: tuple[int, ...]) -> None:
        if record.start != len(self.tokens):
            raise SessionCorrupt(f"{self.folder}: ids recorded at {record.start} of {len(self.tokens)}.")
        self.tokens.extend(ids)
        kind, _, provenance = record.label.partition(" ")
        last = self.spans[-1] if self.spans else None
        if last is not None and kind == SAMPLED == last.kind and last.step == record.step:
            self.spans[-1] = Span(last.start, last.length + len(ids), last.step, kind, provenance)
        else:
            self.spans.append(Span(record.start, len(ids), record.step, kind, provenance))

    def _apply_cut(self, length: int) -> None:
        del self.tokens[length:]
        while self.spans and self.spans[-1].start >= length:
            self.spans.pop()
        if self.spans:
            last = self.spans[-1]
            kept = min(last.length, length - last.start)
            self.spans[-1] = Span(last.start, kept, last.step, last.kind, last.provenance)


def _ids_record(step: int, position: int, span: NewSpan) -> Record:
    return Record("ids", step, position, f"{span.kind} {span.provenance}", pack_ids(span.ids))


def _event_record(event: Event) -> Record:
    body = event.model_dump_json(exclude={"seq"}).encode()
    return Record("event", event.step, 0, event.type, body)


def _acquire(folder: Path) -> FileLock:
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise SessionBusy(
            f"Session {folder.name} is being written by another process. Wait for it, or end it first."
        ) from None
    return lock


def _read_header(folder: Path, text: str) -> Header:
    try:
        header = Header.model_validate_json(text)
    except ValidationError as error:
        raise SessionCorrupt(f"{folder}: the header is not readable ({error}).") from error
    if header.format != FORMAT:
        raise SessionCorrupt(
            f"{folder}: format {header.format} is not one that this version reads ({FORMAT})."
        )
    return header
