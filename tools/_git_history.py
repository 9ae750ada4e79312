"""Checkpoints of one session: commits under `refs/dsv4agent/<session>/`, and whose each change was.

Runs inside the sandbox (see `_git_server`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from dsv4agent.tools._git_repository import Refusal, Repository
from dsv4agent.tools._git_scan import Entry, Scan, Scanner, State

AGENT, USER = "agent", "user"
MAX_PATCH_BYTES = 256 << 20
_MARK = "\n\ndsv4agent-checkpoint: "
_IDENTITY = {
    "GIT_AUTHOR_NAME": "dsv4agent",
    "GIT_AUTHOR_EMAIL": "dsv4agent@localhost",
    "GIT_COMMITTER_NAME": "dsv4agent",
    "GIT_COMMITTER_EMAIL": "dsv4agent@localhost",
}
_RECORD = re.compile(rb"^:(\d+) (\d+) ([0-9a-f]+) ([0-9a-f]+) \S+$")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint as it is stored.

    Attributes:
        number: From 1 on, without gaps but for those that pruning makes.
        commit: The commit; its tree is the work tree, its parents are HEAD and the index.
        tree: Tree of the work tree.
        label: What the caller called it.
        hands_to: Who acts after it: `agent` or `user`.
        head: Commit at HEAD, or None before the first one.
        branch: Branch that HEAD names, or None if detached.
        index: Tree of the index, or None if it had conflicts.
        time_ns: When it was made.
        unclear: Paths that came into sight through a change of ignore rules; they may be the user's.
        skipped: Paths left out, with what would tell a change.
        permissions: Permission bits of files where the mode does not tell them.
        rules: The ignore rules in force.
    """

    number: int
    commit: str
    tree: str
    label: str
    hands_to: str
    head: str | None
    branch: str | None
    index: str | None
    time_ns: int
    unclear: frozenset[bytes]
    skipped: Mapping[bytes, str]
    permissions: Mapping[bytes, int]
    rules: str


class History:
    """Makes, lists and compares the checkpoints of one session in one work tree."""

    def __init__(self, repository: Repository, session: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", session):
            raise Refusal("invalid_arguments", "a session id has letters, digits, - and _ only, at most 100")
        self.repository = repository
        self.prefix = f"refs/dsv4agent/{session}/"
        self.journal = f"{self.prefix}journal"
        self._scanner = Scanner(repository)
        self._work = _TreeWriter(repository, "work-index")
        self._staged = _TreeWriter(repository, "staged-index")
        self._last: tuple[str, State] = ("", {})
        self._ignored: tuple[str, frozenset[bytes]] = ("", frozenset())

    def list(self) -> list[Checkpoint]:
        """Return all checkpoints, oldest first."""
        form = "--format=%(refname)%00%(objectname)%00%(tree)%00%(contents)%00"
        fields = self.repository.git("for-each-ref", form, self.prefix).split(b"\0")
        found: list[Checkpoint] = []
        for name, commit, tree, message in zip(*[iter(fields[:-1])] * 4, strict=False):
            number = name.decode().strip().removeprefix(self.prefix)
            if number.isdigit():
                found.append(_decoded(int(number), commit.decode(), tree.decode(), message.decode()))
        return sorted(found, key=lambda checkpoint: checkpoint.number)

    def save(self, label: str, hands_to: str) -> tuple[Checkpoint, Scan]:
        """Make a checkpoint of the work tree as it is."""
        earlier = self.list()
        known = self.state(earlier[-1]) if earlier else {}
        scan = self._scanner.scan(known)
        draft = Checkpoint(
            number=earlier[-1].number + 1 if earlier else 1,
            commit="",
            tree=self._work.write(scan.state),
            label=label,
            hands_to=hands_to,
            head=self.repository.head(),
            branch=self.repository.branch,
            index=None if scan.index is None else self._staged.write(scan.index),
            time_ns=time.time_ns(),
            unclear=self._unclear(earlier[-1], known, scan) if earlier else frozenset(),
            skipped=scan.skipped,
            permissions=scan.permissions,
            rules=scan.rules,
        )
        made = self._store(draft)
        self._last = made.commit, scan.state
        self._ignored = made.commit, scan.ignored
        return made, scan

    def content(self) -> str | None:
        """Return the tree of the work tree as it is, or None if a checkpoint would leave something out."""
        scan = self._scanner.scan({})
        return None if scan.skipped else self._work.write(scan.state)

    def save_derived(
        self, base: Checkpoint, changes: Mapping[bytes, Entry | None], label: str, hands_to: str
    ) -> Checkpoint:
        """Make a checkpoint that is an earlier one with known changes, whatever the work tree holds by now.

        It tells the changes that the runtime made itself apart from those that others made meanwhile.
        """
        state = dict(self.state(base))
        for path, entry in changes.items():
            state.pop(path, None)
            if entry is not None:
                state[path] = entry
        draft = replace(
            base,
            number=self.list()[-1].number + 1,
            tree=self._work.write(state),
            label=label,
            hands_to=hands_to,
            time_ns=time.time_ns(),
            unclear=frozenset(),
        )
        made = self._store(draft)
        if self._ignored[0] == base.commit:
            self._ignored = made.commit, self._ignored[1]
        self._last = made.commit, state
        return made

    def state(self, checkpoint: Checkpoint) -> State:
        """Return the files of a checkpoint."""
        if self._last[0] == checkpoint.commit:
            return self._last[1]
        state: State = {}
        for record in self.repository.git("ls-tree", "-r", "-z", checkpoint.tree).split(b"\0")[:-1]:
            fields, path = record.split(b"\t", 1)
            mode, _, oid = fields.decode().split(" ")
            state[path] = Entry(mode, oid)
        return state

    def owners(self, chain: list[Checkpoint]) -> dict[bytes, set[str]]:
        """Return, for each path that changed between neighbours of a chain, who changed it."""
        owners: dict[bytes, set[str]] = {}
        pairs = list(itertools.pairwise(chain))
        for (before, after), paths in zip(pairs, self._changed_paths(pairs), strict=True):
            for path in paths:
                owner = USER if path in after.unclear else before.hands_to
                owners.setdefault(path, set()).add(owner)
        return owners

    def prune(self, keep: int) -> int:
        """Delete all but the first checkpoint and the last `keep`; return how many."""
        old = self.list()[1 : -keep or None]
        commands = "".join(f"delete {self.prefix}{one.number} {one.commit}\n" for one in old)
        if old:
            self.repository.git("update-ref", "--stdin", input=commands.encode())
        return len(old)

    def patch(self, since: Checkpoint, now: Checkpoint) -> bytes:
        """Return the binary patch between two checkpoints."""
        options = ("--binary", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-color")
        out = self.repository.git("diff", *options, since.tree, now.tree, max_bytes=MAX_PATCH_BYTES)
        if len(out) >= MAX_PATCH_BYTES:
            raise Refusal("too_large", f"the patch has over {MAX_PATCH_BYTES >> 20} MiB")
        return out

    def _store(self, draft: Checkpoint) -> Checkpoint:
        parents = [draft.head] if draft.head else []
        if draft.index:
            parents.append(self._commit(draft.index, parents, "index", "@0 +0000"))
        date = f"@{draft.time_ns // 1_000_000_000} +0000"
        commit = self._commit(draft.tree, parents, _encoded(draft), date)
        # Fails if another process took the number.
        name = f"{self.prefix}{draft.number}"
        self.repository.git("update-ref", "--no-deref", name, commit, self.repository.no_object)
        return replace(draft, commit=commit)

    def _commit(self, tree: str, parents: list[str], message: str, date: str) -> str:
        arguments = [part for parent in parents for part in ("-p", parent)]
        env = {**_IDENTITY, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        out = self.repository.git("commit-tree", tree, *arguments, input=message.encode(), env=env)
        return out.decode().strip()

    def _changed_paths(self, pairs: list[tuple[Checkpoint, Checkpoint]]) -> list[set[bytes]]:
        """Return the paths that differ between the two of each pair."""
        lines = "".join(
            f"{before.tree} {after.tree}\n" for before, after in pairs if before.tree != after.tree
        )
        out = self.repository.git(
            "diff-tree", "-r", "-z", "--raw", "--no-renames", "--stdin", input=lines.encode()
        )
        changed: dict[bytes, set[bytes]] = {}
        current: set[bytes] = set()
        fields = iter(out.split(b"\0"))
        for field in fields:
            *headings, record = field.split(b"\n")
            for heading in headings:
                current = changed.setdefault(heading, set())
            if _RECORD.match(record):
                current.add(next(fields))
        result: list[set[bytes]] = []
        for before, after in pairs:
            paths = set(changed.get(f"{before.tree} {after.tree}".encode(), ()))
            paths |= {path for path, _ in before.skipped.items() ^ after.skipped.items()}
            result.append(paths)
        return result

    def _unclear(self, last: Checkpoint, known: State, scan: Scan) -> frozenset[bytes]:
        """Return the new paths that may have been there before, hidden by an ignore rule that is gone."""
        if last.rules == scan.rules:
            return frozenset()
        fresh = [path for path in scan.state if path not in known]
        if self._ignored[0] != last.commit:
            return frozenset(fresh)  # What was hidden then is not known any more.
        return frozenset(path for path in fresh if _is_covered(path, self._ignored[1]))


class _TreeWriter:
    """Writes states as trees through an index file of its own, which it tells only what changed."""

    def __init__(self, repository: Repository, name: str) -> None:
        self._repository = repository
        # Sessions of one repository must not share the file.
        self._index = repository.scratch(f"{name}-{os.urandom(8).hex()}")
        self._state: State = {}
        self._tree = ""

    def write(self, state: State) -> str:
        """Return the id of the tree that holds exactly these entries."""
        if self._tree and state == self._state:
            return self._tree
        gone = [
            f"0 {self._repository.no_object}\t".encode() + path for path in self._state.keys() - state.keys()
        ]
        new = [
            f"{entry.mode} {entry.oid}\t".encode() + path
            for path, entry in state.items()
            if self._state.get(path) != entry
        ]
        lines = b"".join(line + b"\0" for line in (*gone, *new))
        try:
            # Odd names that other systems would misread are kept all the same: they are here already.
            options = ("-c", "core.protectNTFS=false", "-c", "core.protectHFS=false")
            self._repository.git(
                *options, "update-index", "-z", "--index-info", input=lines, index=self._index
            )
            tree = self._repository.git(*options, "write-tree", "--missing-ok", index=self._index)
        except BaseException:
            # What the index file holds after a failure is not known.
            self._state, self._tree = {}, ""
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._index)
            raise
        self._state, self._tree = dict(state), tree.decode().strip()
        return self._tree


def _encoded(checkpoint: Checkpoint) -> str:
    facts = {
        "hands_to": checkpoint.hands_to,
        "head": checkpoint.head,
        "branch": checkpoint.branch,
        "index": checkpoint.index,
        "time_ns": checkpoint.time_ns,
        "unclear": sorted(map(os.fsdecode, checkpoint.unclear)),
        "skipped": {os.fsdecode(path): reason for path, reason in checkpoint.skipped.items()},
        "permissions": {os.fsdecode(path): bits for path, bits in checkpoint.permissions.items()},
        "rules": checkpoint.rules,
        "label": checkpoint.label,
    }
    subject = checkpoint.label.encode("utf-8", "replace").decode().replace("\n", " ").replace("\0", "")
    return f"{subject[:200] or 'checkpoint'}{_MARK}{json.dumps(facts)}\n"


def _decoded(number: int, commit: str, tree: str, message: str) -> Checkpoint:
    try:
        facts = cast("dict[str, Any]", json.loads(message.rpartition(_MARK)[2]))
        return Checkpoint(
            number=number,
            commit=commit,
            tree=tree,
            label=facts["label"],
            hands_to=facts["hands_to"],
            head=facts["head"],
            branch=facts["branch"],
            index=facts["index"],
            time_ns=facts["time_ns"],
            unclear=frozenset(map(os.fsencode, facts["unclear"])),
            skipped={os.fsencode(path): reason for path, reason in facts["skipped"].items()},
            permissions={os.fsencode(path): bits for path, bits in facts["permissions"].items()},
            rules=facts["rules"],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise Refusal("invalid_checkpoint", f"checkpoint {number} was not written by this program") from error


def _is_covered(path: bytes, ignored: Iterable[bytes]) -> bool:
    """Tell whether a path, or a folder above it, is in a set of ignored ones."""
    hidden = ignored if isinstance(ignored, frozenset) else frozenset(ignored)
    if path in hidden:
        return True
    parts = path.split(b"/")
    return any(b"/".join(parts[:count]) + b"/" in hidden for count in range(1, len(parts)))
