"""One repair in a closed loop: real encoder, real parser, a world that answers calls; ids in, ids out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from dsv4agent.encoding import StreamParser, Tokenizer, encode_tokens
from dsv4agent.encoding.events import ParsedMessage
from dsv4agent.repeats import KnownStates
from dsv4agent.tools import Foresight
from examples.train_mini.diagnosis import diagnosis
from examples.train_mini.packing import StoredDocument
from examples.train_mini.repetition import EditHistory

REVISION = "v4-preview"
THINKING_MODE = "chat"
EDITOR = "str_replace_editor"
Message = dict[str, Any]


class World(Protocol):
    """A repository with a bug, and everything the model can see and do in it."""

    @property
    def name(self) -> str:
        """What tells this task from others."""
        ...

    @property
    def family(self) -> str:
        """The kind of bug."""
        ...

    def bug_lines(self) -> tuple[str, str]:
        """Return the line with the bug as it was found, and the right line."""
        ...

    def opening(self) -> list[Message]:
        """Return the system message, with tools, and the user's task."""
        ...

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Run a tool call and return what the model reads."""
        ...

    def foresee(self, name: str, arguments: Mapping[str, Any], planned: dict[str, str]) -> Foresight | None:
        """Return what is known of a call before it runs; see `dsv4agent.tools.Foreseeing`."""
        ...

    def solved(self) -> bool:
        """Whether all tests pass now."""
        ...

    def tests_untouched(self) -> bool:
        """Whether the test files are as they were."""
        ...

    def repair_calls(self) -> list[tuple[str, dict[str, Any]]] | None:
        """Return the calls of one turn that make the right fix and run the tests; None if none can."""
        ...

    def closing(self) -> str:
        """Return the sentence that reports the right fix."""
        ...


class Ending(StrEnum):
    """How a run ended."""

    DONE = "done"
    CLAIMED = "claimed_success"
    GAVE_UP = "gave_up"
    INVALID_CALL = "invalid_call"
    UNFINISHED_TURN = "unfinished_turn"
    STEPS = "steps"
    CONTEXT = "context"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Limits:
    """Bounds of a run: assistant turns, tokens in all, and tokens kept free for the next turn."""

    steps: int = 20
    context: int = 8192
    turn: int = 384


@dataclass(frozen=True)
class Outcome:
    """Result of a run.

    Attributes:
        solved: The suite passes and the tests are untouched.
        ending: `done` if the model ended by itself with a green suite, else why it went no further.
        steps: Assistant turns.
        tries: Turns with an edit.
        repeats: How often the most repeated edit, undos left out, was made again with the same arguments.
    """

    name: str
    family: str
    solved: bool
    ending: Ending
    steps: int
    tries: int
    tokens: int
    first_try: bool
    repeats: int = 0


@dataclass(frozen=True)
class Transcript:
    """A run as text, with the line of its bug as it was found and as it should be."""

    name: str
    family: str
    bug_line: str
    good_line: str
    text: str


@dataclass(frozen=True)
class Reply:
    """What follows a turn: ids to append, or the outcome of a run that is over."""

    ids: list[int]
    outcome: Outcome | None = None


@dataclass
class _Piece:
    ids: list[int]
    weight: int
    failed_edit: bool = False


@dataclass
class RepairRun:
    """The loop of one world. Give each assistant turn, as sampled, to `advance`."""

    world: World
    tokenizer: Tokenizer
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.messages = self.world.opening()
        self._tools: list[Message] = self.messages[0]["tools"]
        self._pieces = [_Piece(self._encode(self.messages, None), 1)]
        self.steps = self.tries = 0
        self._first_try = False
        self._edits = EditHistory()
        self._known = KnownStates()
        self._ending: Ending | None = None

    @property
    def prompt(self) -> list[int]:
        """Ids before the first turn."""
        return self._pieces[0].ids

    @property
    def length(self) -> int:
        """Tokens so far."""
        return sum(len(piece.ids) for piece in self._pieces)

    def advance(self, turn: Sequence[int]) -> Reply:
        """Act on one assistant turn, end-of-sentence token included."""
        self.steps += 1
        piece = _Piece(list(turn), 2)
        self._pieces.append(piece)
        if not turn or turn[-1] != self.tokenizer.eos_id:
            return self._end(Ending.UNFINISHED_TURN)
        completion = self._parse(turn)
        message = completion.as_message()
        if completion.invalid_tool_calls or completion.truncated_call:
            return self._end(Ending.INVALID_CALL)
        if not message["tool_calls"]:
            if self.world.solved():
                return self._end(Ending.DONE)
            claimed = "pass" in message["content"].lower() or "fixed" in message["content"].lower()
            return self._end(Ending.CLAIMED if claimed else Ending.GAVE_UP)
        for index, call in enumerate(message["tool_calls"]):
            call["id"] = f"call_{self.steps}_{index}"
        self._known.add(self._foresee(message))
        results = list(self._act(message, piece))
        ids = self._encode(results, [*self.messages, message])
        self.messages += [message, *results]
        if self.steps >= self.limits.steps:
            return self._end(Ending.STEPS)
        if self.length + len(ids) + self.limits.turn > self.limits.context:
            return self._end(Ending.CONTEXT)
        self._pieces.append(_Piece(ids, 1))
        return Reply(ids)

    def repeats(self, turn: Sequence[int]) -> bool:
        """Tell whether a turn, as sampled, gives nothing new: the agent's loop would draw it again."""
        if not turn or turn[-1] != self.tokenizer.eos_id:
            return False
        return self._known.vain(self._foresee(self._parse(turn).as_message()))

    def stop(self) -> Outcome:
        """End the run before its next turn."""
        return self._finish(Ending.STOPPED)

    def transcript(self) -> Transcript:
        """Return the run so far as text, control tokens included."""
        ids = [token for piece in self._pieces for token in piece.ids]
        return Transcript(
            self.world.name, self.world.family, *self.world.bug_lines(), self.tokenizer.decode(ids)
        )

    def relabelled(self, limit: int) -> StoredDocument | None:
        """Return this run as a training document that ends with the right fix, or None if it cannot.

        A solved run is kept with its wrong tries masked. In another run the model's own turns are only
        context: what is trained is the right fix after them. A document of more than `limit` tokens is
        dropped, so runs to learn from want tighter limits than runs to measure.
        """
        if self._ending is Ending.DONE:
            kept = [_Piece(p.ids, 0 if p.failed_edit else p.weight) for p in self._pieces]
            return _document(kept) if self.length <= limit and self.world.tests_untouched() else None
        calls = self.world.repair_calls()
        if calls is None:
            return None
        pieces = [_Piece(piece.ids, 0 if piece.weight == 2 else piece.weight) for piece in self._pieces]
        if self._ending in (Ending.STEPS, Ending.CONTEXT):
            # The results of the last turn were never appended.
            last = max(i for i, message in enumerate(self.messages) if message["role"] == "assistant") + 1
            pieces.append(_Piece(self._encode(self.messages[last:], self.messages[:last]), 1))
        elif self._ending is not Ending.STOPPED:
            # The last turn ended the run; the fix takes its place.
            pieces.pop()
        history = list(self.messages)
        named = [
            {
                "id": f"fix_{i}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for i, (name, arguments) in enumerate(calls)
        ]
        edits = [arguments for name, arguments in calls if name == EDITOR]
        said = diagnosis(edits[-1]["old_str"], edits[-1]["new_str"])
        fix: Message = {"role": "assistant", "content": said, "tool_calls": named}
        pieces.append(_Piece(self._encode([fix], history), 2))
        history.append(fix)
        results: list[Message] = [
            {"role": "tool", "tool_call_id": call["id"], "content": self.world.call(name, arguments)}
            for call, (name, arguments) in zip(named, calls, strict=True)
        ]
        pieces.append(_Piece(self._encode(results, history), 1))
        history += results
        closing: Message = {"role": "assistant", "content": self.world.closing()}
        pieces.append(_Piece(self._encode([closing], history), 2))
        if not self.world.solved() or sum(len(piece.ids) for piece in pieces) > limit:
            return None
        return _document(pieces)

    def _parse(self, turn: Sequence[int]) -> ParsedMessage:
        parser = StreamParser(REVISION, THINKING_MODE, self._tools, tokenizer=self.tokenizer)
        parser.feed_ids(list(turn))
        parser.finish("stop")
        return parser.result

    def _foresee(self, message: Message) -> list[Foresight | None]:
        calls = [call["function"] for call in message["tool_calls"]]
        planned: dict[str, str] = {}
        return [self.world.foresee(call["name"], json.loads(call["arguments"]), planned) for call in calls]

    def _act(self, message: Message, piece: _Piece) -> Iterator[Message]:
        edited = False
        for call in message["tool_calls"]:
            name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
            if name == EDITOR and arguments.get("command") != "view":
                edited = True
                self._edits.add(arguments)
            yield {"role": "tool", "tool_call_id": call["id"], "content": self.world.call(name, arguments)}
        if edited:
            self.tries += 1
            green = self.world.solved()
            piece.failed_edit = not green
            self._first_try |= green and self.tries == 1

    def _encode(self, messages: Sequence[Message], context: Sequence[Message] | None) -> list[int]:
        prompt = encode_tokens(
            messages, self.tokenizer, thinking_mode=THINKING_MODE, revision=REVISION, context=context
        )
        return list(prompt.ids)

    def _end(self, ending: Ending) -> Reply:
        return Reply([], self._finish(ending))

    def _finish(self, ending: Ending) -> Outcome:
        self._ending = ending
        solved = self.world.solved() and self.world.tests_untouched()
        return Outcome(
            self.world.name,
            self.world.family,
            solved,
            ending,
            self.steps,
            self.tries,
            self.length,
            self._first_try and solved,
            self._edits.repeats,
        )


def _document(pieces: Sequence[_Piece]) -> StoredDocument:
    ids = np.concatenate([np.asarray(piece.ids, np.uint16) for piece in pieces])
    weight = np.concatenate([np.full(len(piece.ids), piece.weight, np.uint8) for piece in pieces])
    return StoredDocument(ids, weight)
