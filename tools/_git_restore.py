"""Going back to a checkpoint: only files that the agent alone changed, each compared right before it moves.

A restore is a merge. It writes down its plan (the journal) before its first step, and each step leaves every
byte either at its path, or under a temporary name beside it, or in a checkpoint. So a restore that was cut by
a kill at any moment is ended by whichever request comes next.

Runs inside the sandbox (see `_git_server`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dsv4agent.tools._git_files import ChangedMeanwhile, Replacement, is_at, remove_empty_folders
from dsv4agent.tools._git_history import AGENT, USER, Checkpoint, History
from dsv4agent.tools._git_repository import Refusal
from dsv4agent.tools._git_scan import EXECUTABLE, SUBMODULE, Entry, Folders, State, umask

_BEGUN, _RESET = "begun ", "reset "
"""Before a step's number in the notes: it began, or is as if it had not. A number alone: it is done."""


class Item(NamedTuple):
    """One path of the plan: what stands there, what shall, and its permission bits."""

    path: bytes
    now: Entry | None
    then: Entry | None
    permissions: int


@dataclass
class Outcome:
    """What a restore did.

    Attributes:
        target: Number of the checkpoint that was asked for.
        before: Number of the checkpoint of the state before it.
        after: Number of the checkpoint of the state after it.
        written: Paths that were created or replaced.
        removed: Paths that were deleted.
        left: Paths that could not go back, with the reason.
        abandoned: Whether a cut restore was given up because HEAD moved.
    """

    target: int
    before: int
    after: int = 0
    written: list[bytes] = field(default_factory=list[bytes])
    removed: list[bytes] = field(default_factory=list[bytes])
    left: dict[bytes, str] = field(default_factory=dict[bytes, str])
    abandoned: bool = False


class Restorer:
    """Restores one session's checkpoints and ends restores that were cut."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._repository = history.repository

    def restore(self, number: int) -> Outcome:
        """Take what the agent alone changed since a checkpoint back to it.

        Raises:
            Refusal: `not_found`, `pruned`, `head_moved` or `changed_meanwhile`; nothing was changed.
        """
        checkpoints = self._history.list()
        target = next((one for one in checkpoints if one.number == number), None)
        if target is None:
            known = f"the last one is {checkpoints[-1].number}" if checkpoints else "there is none yet"
            raise Refusal("not_found", f"no checkpoint {number}; {known}")
        chain = [one for one in checkpoints if one.number >= number]
        if chain[-1].number - number + 1 != len(chain):
            raise Refusal(
                "pruned", f"checkpoints after {number} were pruned, so whose changes they held is not known"
            )
        self._require_head(target)
        present, _ = self._history.save(f"before restoring {number}", chain[-1].hands_to)
        chain.append(present)
        outcome = Outcome(number, present.number)
        items = self._plan(chain, outcome)
        self._require_head(target)
        # From here on changes are the runtime's own, which count as the agent's.
        start = present
        if items and present.hands_to != AGENT:
            start = self._history.save_derived(present, {}, f"restoring {number}", AGENT)
        if items:
            identity = self._write_journal(outcome, items)
            applied = self._apply(identity, list(enumerate(items)), outcome)
            start = self._history.save_derived(start, applied, f"restored {number}", present.hands_to)
            self._end_journal()
        outcome.after = start.number
        return outcome

    def recover(self) -> Outcome | None:
        """End a restore that was cut: finish it, or give it up if HEAD moved since."""
        text = self._repository.git("cat-file", "blob", self._history.journal, check=False)
        if not text:
            return None
        journal: dict[str, Any] = json.loads(text)
        outcome = Outcome(journal["target"], journal["before"])
        items = [_decoded(fields) for fields in journal["items"]]
        finished = self._finished(journal["id"], items)
        done = {item.path: item.then for item in items if item.path in finished}
        last = self._history.list()[-1]
        moved = (self._repository.head(), self._repository.branch) != (last.head, last.branch)
        # What the restore did is told apart from what the user did since it was cut.
        made = self._history.save_derived(last, done, f"restoring {outcome.target} was cut", USER)
        if moved:
            outcome.abandoned = True
        else:
            made, scan = self._history.save(f"before finishing to restore {outcome.target}", AGENT)
            rest = [item for item in items if item.path not in done]
            blocked = self._obstacles(rest)
            for item in rest:
                if scan.state.get(item.path) != item.now or item.path in scan.skipped:
                    outcome.left[item.path] = "changed since the restore was cut"
                elif item.path in blocked:
                    outcome.left[item.path] = "something else is in its place"
            # The same numbers as before: cut again, the same temporary names are found.
            ready = [
                pair for pair in enumerate(items) if pair[1] in rest and pair[1].path not in outcome.left
            ]
            applied = self._apply(journal["id"], ready, outcome)
            made = self._history.save_derived(made, applied, f"restored {outcome.target}", USER)
        outcome.after = made.number
        self._end_journal()
        return outcome

    def _require_head(self, target: Checkpoint) -> None:
        head, branch = self._repository.head(), self._repository.branch
        if (head, branch) != (target.head, target.branch):
            there = f"{target.branch or 'detached'} at {(target.head or 'no commit')[:12]}"
            here = f"{branch or 'detached'} at {(head or 'no commit')[:12]}"
            raise Refusal("head_moved", f"checkpoint {target.number} was made on {there}, HEAD is now {here}")

    def _plan(self, chain: list[Checkpoint], outcome: Outcome) -> list[Item]:
        target, present = chain[0], chain[-1]
        then, now = self._history.state(target), self._history.state(present)
        outside = {path for one in chain for path in one.skipped}
        items: list[Item] = []
        conflicts: list[bytes] = []
        for path, owners in sorted(self._history.owners(chain).items()):
            if owners == {USER} or (now.get(path) == then.get(path) and path not in outside):
                continue
            if path in outside:
                outcome.left[path] = "too large or not a plain file at one of the checkpoints"
            elif any(
                entry is not None and entry.mode == SUBMODULE for entry in (now.get(path), then.get(path))
            ):
                outcome.left[path] = "a submodule"
            elif USER in owners:
                conflicts.append(path)
            else:
                items.append(self._item(path, now, then, target))
        conflicts.extend(self._obstacles(items).values())
        if conflicts:
            raise Refusal(
                "changed_meanwhile", "the user changed files that a restore would change", conflicts
            )
        return items

    def _item(self, path: bytes, now: State, then: State, target: Checkpoint) -> Item:
        if any(part.lower() in {b"", b".", b"..", b".git"} for part in path.split(b"/")):
            raise Refusal("invalid_checkpoint", "the checkpoint holds a path that no work tree has", [path])
        entry = then.get(path)
        usual = (0o777 if entry is not None and entry.mode == EXECUTABLE else 0o666) & ~umask()
        return Item(path, now.get(path), entry, target.permissions.get(path, usual))

    def _obstacles(self, items: Sequence[Item]) -> dict[bytes, bytes]:
        """Return the paths whose place is taken by what the plan does not remove, with what that is."""
        vacated = {item.path for item in items if item.then is None}
        found: dict[bytes, bytes] = {}
        for item in items:
            if item.then is not None and item.now is None:
                obstacle = self._obstacle(item.path, vacated)
                if obstacle is not None:
                    found[item.path] = obstacle
        return found

    def _obstacle(self, path: bytes, vacated: set[bytes]) -> bytes | None:
        parts = path.split(b"/")
        for count in range(1, len(parts)):
            above = b"/".join(parts[:count])
            full = os.path.join(self._repository.root, above)
            if os.path.lexists(full) and (os.path.islink(full) or not os.path.isdir(full)):
                return None if above in vacated else above
        full = os.path.join(self._repository.root, path)
        if not os.path.lexists(full):
            return None
        if os.path.islink(full) or not os.path.isdir(full):
            return path
        for folder, names, files in os.walk(full):
            links = [name for name in names if os.path.islink(os.path.join(folder, name))]
            for name in (*files, *links):
                below = os.path.relpath(os.path.join(folder, name), self._repository.root)
                if below not in vacated:
                    return below
        return None

    def _apply(
        self, identity: str, numbered: Sequence[tuple[int, Item]], outcome: Outcome
    ) -> dict[bytes, Entry | None]:
        """Do the plan, deletions first; return what was done."""
        applied: dict[bytes, Entry | None] = {}
        removals = [pair for pair in reversed(numbered) if pair[1].then is None]
        placements = [pair for pair in numbered if pair[1].then is not None]
        for number, item in (*removals, *placements):
            step = self._step(identity, number, item)
            try:
                if item.then is None:
                    step.remove()
                    outcome.removed.append(item.path)
                else:
                    data = self._repository.git("cat-file", "blob", item.then.oid)
                    step.place(data, item.permissions)
                    outcome.written.append(item.path)
                applied[item.path] = item.then
            except ChangedMeanwhile as error:
                outcome.left[item.path] = str(error)
            except OSError as error:
                step.settle()
                outcome.left[item.path] = error.strerror or str(error)
        remove_empty_folders(self._repository.root, outcome.removed)
        return applied

    def _step(self, identity: str, number: int, item: Item) -> Replacement:
        notes = self._notes()

        def note(what: str) -> None:
            with open(notes, "a", encoding="ascii") as file:
                file.write(f"{what}{number}\n")

        repository = self._repository
        place = item.path, item.now, item.then
        return Replacement(
            repository.root,
            repository.object_format,
            *place,
            identity,
            number,
            begins=lambda: note(_BEGUN),
            resets=lambda: note(_RESET),
            done=lambda: note(""),
        )

    def _finished(self, identity: str, items: Sequence[Item]) -> set[bytes]:
        """Settle the steps of a restore that was cut; return the paths of those that were done.

        The disk alone does not tell: the user may have put old bytes back since.
        """
        root, form = self._repository.root, self._repository.object_format
        folders = Folders(root)
        notes: list[str] = []
        with contextlib.suppress(FileNotFoundError), open(self._notes(), encoding="ascii") as file:
            # A line without its end was not written whole.
            notes = [line.rstrip() for line in file if line.endswith("\n")]
        finished = {items[int(line)].path for line in notes if line.isdigit()}
        for number, item in enumerate(items):
            told = [line for line in notes if line in {f"{_BEGUN}{number}", f"{_RESET}{number}"}]
            began = bool(told) and told[-1].startswith(_BEGUN)
            if self._step(identity, number, item).settle(began=began) or is_at(
                root, item.path, item.then, form, folders
            ):
                finished.add(item.path)
        return finished

    def _notes(self) -> str:
        """Return the file that says which steps were done; it counts only while there is a journal."""
        session = self._history.journal.split("/")[-2]
        return os.path.join(self._repository.git_dir, "dsv4agent", f"restore-{session}")

    def _write_journal(self, outcome: Outcome, items: Sequence[Item]) -> str:
        identity = secrets.token_hex(8)
        plan = {
            "id": identity,
            "target": outcome.target,
            "before": outcome.before,
            "items": [_encoded(item) for item in items],
        }
        blob = self._repository.git("hash-object", "-w", "--stdin", input=json.dumps(plan).encode())
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._notes())
        self._repository.git("update-ref", "--no-deref", self._history.journal, blob.decode().strip())
        return identity

    def _end_journal(self) -> None:
        self._repository.git("update-ref", "--no-deref", "-d", self._history.journal)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._notes())


def _encoded(item: Item) -> list[Any]:
    return [os.fsdecode(item.path), item.now, item.then, item.permissions]


def _decoded(fields: list[Any]) -> Item:
    path, now, then, permissions = fields
    return Item(os.fsencode(path), now and Entry(*now), then and Entry(*then), permissions)
