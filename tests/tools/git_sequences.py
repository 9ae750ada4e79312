"""Random sessions on real repositories, checked against a model.

`python -m tests.tools.git_sequences --count 500` runs many.

The model reads the disk itself and knows who did what. It says what each restore must do, to every byte:
the files that the agent alone changed since go back, all others stay, and whatever a user wrote and a
checkpoint saw can be found in the repository for ever.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path

import anyio

from dsv4agent.sandboxes import Policy, Sandbox, SandboxCrashed, choose_sandbox
from dsv4agent.tools.checkpoints import Actor, Checkpoints, Refused, Restored
from dsv4agent.tools.git_client import GitClient, module_sources

NAMES = (
    b"a",
    b"b.txt",
    b"d",
    b"d/x",
    b"d/y/z",
    b"d/y/w",
    b"e/run.sh",
    b"new\nline",
    b"\xff\xfe",
    b"-dash and space",
    b'"quoted"',
)
IGNORED = (b"one.ign", b"d/two.ign")
Content = tuple[str, bytes]
Snapshot = dict[bytes, Content]

# Runs in the server before its own modules: counts its calls to the operating system and kills it when they
# are used up, be it in a later request. Each server that starts takes the next line of the file.
FAULTS = """
import os, signal, subprocess
path, remove, lines = {path!r}, os.unlink, []
def tick():
    if not lines:
        try:
            with open(path) as file: lines.extend(file.read().split())
            remove(path)
        except FileNotFoundError: return
        if len(lines) > 1:
            with open(path, "w") as file: file.write("\\n".join(lines[1:]))
        del lines[1:]
    lines[0] = int(lines[0]) - 1
    if lines[0] < 0: os.kill(os.getpid(), signal.SIGKILL)
def counted(call):
    def counting(*args, **kwargs):
        tick()
        return call(*args, **kwargs)
    return counting
for name in ("rename", "link", "unlink", "symlink", "mkdir", "rmdir", "lstat", "fsync"):
    setattr(os, name, counted(getattr(os, name)))
class Popen(subprocess.Popen):
    def __init__(self, *args, **kwargs):
        tick()
        super().__init__(*args, **kwargs)
subprocess.Popen = Popen
"""


def snapshot(root: bytes) -> Snapshot:
    """Return every file and link below a folder, git's own and half-written ones apart."""
    found: Snapshot = {}
    for folder, names, files in os.walk(root):
        if b".git" in names:
            names.remove(b".git")
        links = [name for name in names if os.path.islink(os.path.join(folder, name))]
        for name in (*files, *links):
            full = os.path.join(folder, name)
            if name.startswith(b".dsv4agent-"):
                continue
            if os.path.islink(full):
                content = "link", os.readlink(full)
            else:
                with open(full, "rb") as file:
                    content = "exe" if os.stat(full).st_mode & 0o100 else "file", file.read()
            found[os.path.relpath(full, root)] = content
    return found


@dataclass
class State:
    """What the model knows of one moment."""

    files: Snapshot
    head: tuple[str, str]


@dataclass
class Session:
    """One random session on one repository."""

    sandbox: Sandbox
    folder: Path
    cut_file: Path
    chance: random.Random
    checkpoints: Checkpoints = field(init=False)
    states: list[State] = field(default_factory=list[State])
    actors: list[Actor] = field(default_factory=list[Actor])
    numbers: dict[int, int] = field(default_factory=dict[int, int])
    seen: set[bytes] = field(default_factory=set[bytes])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    written: int = 0

    def __post_init__(self) -> None:
        self.root = os.fsencode(self.folder)
        self.checkpoints = Checkpoints(self.sandbox, "random", folder=str(self.folder))

    async def run(self) -> None:
        """Set up a repository and live through a few steps."""
        self.set_up()
        for _ in range(self.chance.randint(2, 5)):
            await self.save(Actor.AGENT)
            for _ in range(self.chance.randint(1, 3)):
                self.change()
            await self.save(Actor.USER)
            if self.chance.random() < 0.6:
                for _ in range(self.chance.randint(1, 2)):
                    self.user_acts()
                self.note(Actor.USER)
            if self.chance.random() < 0.6:
                await self.restore()
        await self.check_history()

    def set_up(self) -> None:
        self.folder.mkdir()
        self.git("init", "-q", "-b", "main")
        if self.chance.random() < 0.3:
            self.git("config", "core.autocrlf", "true")
            (self.folder / ".gitattributes").write_text("* text=auto eol=crlf\n*.sh filter=absent\n")
        (self.folder / ".gitignore").write_text("*.ign\n")
        for _ in range(4):
            self.change()
        if self.chance.random() < 0.9:
            self.git("add", "-A")
            self.git("commit", "-q", "-m", "start")
        self.change()
        self.states.append(self.now())

    async def save(self, hands_to: Actor) -> None:
        """Save, and see that nothing but the repository's own refs and objects changed."""
        last = self.numbers[max(self.numbers)] if self.numbers else -1
        actor = Actor.USER if hands_to is Actor.AGENT else Actor.AGENT
        self.note(actor)
        index = self.index()
        made = await self.checkpoints.save("step", hands_to=hands_to)
        assert self.index() == index, "the index changed"
        self.must_be(self.states[-1], "saving changed the work tree")
        assert self.numbers.get(made.number) is None and len(self.states) - 1 >= last
        self.numbers[made.number] = len(self.states) - 1
        self.seen |= {data for _, data in self.states[-1].files.values()} - self.ignored_bytes()

    async def restore(self) -> None:
        """Restore a random checkpoint, perhaps cut by kills, and compare with what the model says."""
        numbers = sorted(self.numbers)
        likely = [one for one in numbers if isinstance(self.expected(self.numbers[one]), dict)]
        number = self.chance.choice(likely if likely and self.chance.random() < 0.7 else numbers)
        position = self.numbers[number]
        before = self.states[-1]
        cut = self.chance.random() < 0.5
        if cut:
            # The client sends the request again; a second line kills that server as well.
            lines = [
                self.chance.randint(0, 160),
                *([self.chance.randint(0, 90)] if self.chance.random() < 0.7 else []),
            ]
            self.cut_file.write_text("\n".join(map(str, lines)))
        expected = self.expected(position)
        try:
            done = await self.checkpoints.restore(number)
        except SandboxCrashed:
            await self.after_crash(before, expected)
            return
        finally:
            self.cut_file.unlink(missing_ok=True)
        if isinstance(done, Refused):
            self.count(done.code)
            # Cut before the last of its work and sent again, it finds what it did itself.
            assert done.code == expected or cut, (done, expected)
            if done.code == expected:
                self.must_be(before, f"a refused restore ({done.code}) changed something")
            return
        assert isinstance(expected, dict), (expected, done)
        assert isinstance(done, Restored) and not done.left, done
        self.count("restored after a kill" if cut else "restored")
        self.note(Actor.AGENT)
        self.must_be(State(expected, before.head), "the restore did something else than it should")
        self.numbers[done.after] = len(self.states) - 1
        # Sent again after a kill, a restore may find that nothing is left to do.
        if done.before != done.after:
            self.numbers[done.before] = len(self.states) - 2

    async def after_crash(self, before: State, expected: Snapshot | str) -> None:
        """The user goes on while the restore is cut; the next request ends it and loses nothing."""
        self.count("cut twice")
        self.cut_file.unlink(missing_ok=True)
        goal = expected if isinstance(expected, dict) else before.files
        self.note(Actor.AGENT)
        half = self.states[-1].files
        mine: set[bytes] = set()
        if self.chance.random() < 0.7:
            self.user_acts()
            self.note(Actor.USER)
            mine = changed_paths(half, self.states[-1].files)
        user = self.states[-1]
        await self.checkpoints.list()
        result = snapshot(self.root)
        for path in mine:
            assert result.get(path) == user.files.get(path), f"{path!r}: the user's change was lost"
        for path in before.files.keys() | goal.keys() | result.keys() | user.files.keys():
            allowed = (before.files.get(path), goal.get(path), user.files.get(path))
            assert result.get(path) in allowed, f"{path!r} is neither old, nor new, nor the user's"
        if not mine and self.head() == before.head and isinstance(expected, dict):
            # Cut before its plan was written down, it has not begun; else it is finished.
            assert result == goal or result == half == before.files, "a cut restore was not finished"
        self.note(Actor.AGENT)

    def expected(self, position: int) -> Snapshot | str:
        """Return the files after restoring a state, or the code of the refusal."""
        then, now = self.states[position], self.states[-1]
        if then.head != now.head:
            return "head_moved"
        owners: dict[bytes, set[Actor]] = {}
        for one in range(position, len(self.states) - 1):
            old, new = self.states[one].files, self.states[one + 1].files
            for path in changed_paths(old, new):
                owners.setdefault(path, set()).add(self.actors[one])
        goal = dict(now.files)
        vacated: set[bytes] = set()
        created: set[bytes] = set()
        for path, who in owners.items():
            if path.endswith(b".ign") or who == {Actor.USER} or now.files.get(path) == then.files.get(path):
                continue
            if Actor.USER in who:
                return "changed_meanwhile"
            goal.pop(path, None)
            if path in then.files:
                goal[path] = then.files[path]
                if path not in now.files:
                    created.add(path)
            else:
                vacated.add(path)
        for path in created:
            for other in now.files.keys() - vacated:
                if other == path or path.startswith(other + b"/") or other.startswith(path + b"/"):
                    return "changed_meanwhile"
        return goal

    def note(self, actor: Actor) -> None:
        """Remember the disk as it is now, and who made it so."""
        self.states.append(self.now())
        self.actors.append(actor)

    def now(self) -> State:
        return State(snapshot(self.root), self.head())

    def must_be(self, state: State, complaint: str) -> None:
        differing = changed_paths(snapshot(self.root), state.files)
        assert not differing and self.head() == state.head, (complaint, differing)

    async def check_history(self) -> None:
        """Every checkpoint holds exactly what the model saw, and nothing that it ever held is gone."""
        listed = {one.number: one for one in await self.checkpoints.list()}
        number = self.chance.choice(sorted(self.numbers))
        files = self.states[self.numbers[number]].files
        modes = {"120000": "link", "100755": "exe", "100644": "file"}
        tree = self.git("ls-tree", "-r", "-z", listed[number].tree).split(b"\0")[:-1]
        held = {record.split(b"\t", 1)[1]: record.split(b"\t", 1)[0].decode().split() for record in tree}
        for path, (kind, data) in files.items():
            if not path.endswith(b".ign"):
                assert (modes[held[path][0]], held[path][2]) == (kind, blob(data)), path
        assert held.keys() == {path for path in files if not path.endswith(b".ign")}
        wanted = "".join(f"{blob(data)}\n" for data in self.seen)
        assert b"missing" not in self.git("cat-file", "--batch-check", input=wanted.encode())
        assert b"journal" not in self.git("for-each-ref", "refs/dsv4agent")
        names = [name for _, _, files in os.walk(self.root) for name in files]
        assert not [name for name in names if name.startswith(b".dsv4agent-")]

    def user_acts(self) -> None:
        """Do what users do: edit, stage, commit, switch, stash, or write something ignored."""
        act = self.chance.random()
        if act < 0.62:
            self.change()
        elif act < 0.7:
            self.git("add", "-A", check=False)
        elif act < 0.76:
            self.git("reset", "-q", check=False)
        elif act < 0.82:
            self.git("stash", "-q", check=False)
        elif act < 0.88:
            self.write(self.chance.choice(IGNORED))
        elif act < 0.94:
            self.git("add", "-A", check=False)
            self.git("commit", "-q", "-m", "user", check=False)
        else:
            self.git("switch", "-q", "-c", f"branch-{self.chance.randrange(1000)}", check=False)

    def change(self) -> None:
        """Create, edit, delete, rename, link or change the mode of a file."""
        present = [path for path in snapshot(self.root) if path in NAMES]
        acts: list[Callable[[], None]] = [self.create]
        if present:
            path = self.chance.choice(sorted(present))
            full = os.path.join(self.root, path)
            acts += [
                lambda: self.write(path),
                lambda: self.delete(path),
                lambda: self.rename(path),
                lambda: os.chmod(full, os.stat(full).st_mode ^ 0o111) if not os.path.islink(full) else None,
                lambda: self.link(path),
            ]
        self.chance.choice(acts)()

    def create(self) -> None:
        self.write(self.chance.choice(NAMES))

    def rename(self, path: bytes) -> None:
        target = self.chance.choice([name for name in NAMES if not (name + b"/").startswith(path + b"/")])
        if path.startswith(target + b"/"):
            return
        self.clear(target)
        os.rename(os.path.join(self.root, path), os.path.join(self.root, target))

    def delete(self, path: bytes) -> None:
        os.unlink(os.path.join(self.root, path))
        folder = os.path.dirname(path)
        if folder and self.chance.random() < 0.5 and not os.listdir(os.path.join(self.root, folder)):
            os.rmdir(os.path.join(self.root, folder))

    def link(self, path: bytes) -> None:
        self.clear(path)
        self.written += 1
        os.symlink(b"to-%d" % self.written, os.path.join(self.root, path))

    def write(self, path: bytes) -> None:
        """Write bytes that no other file ever had."""
        self.clear(path)
        self.written += 1
        ending = self.chance.choice([b"\n", b"\r\n", b"", b"\0\xff", b"$Id$\n"])
        with open(os.path.join(self.root, path), "wb") as file:
            file.write(b"%d of %s" % (self.written, os.path.basename(self.root)) + ending)

    def clear(self, path: bytes) -> None:
        """Make room for a file at a path."""
        parts = path.split(b"/")
        for count in range(1, len(parts)):
            folder = os.path.join(self.root, *parts[:count])
            if os.path.lexists(folder) and (os.path.islink(folder) or not os.path.isdir(folder)):
                os.unlink(folder)
            os.makedirs(folder, exist_ok=True)
        full = os.path.join(self.root, path)
        if os.path.isdir(full) and not os.path.islink(full):
            shutil.rmtree(full)
        elif os.path.lexists(full):
            os.unlink(full)

    def ignored_bytes(self) -> set[bytes]:
        files = self.states[-1].files
        return {data for path, (_, data) in files.items() if path.endswith(b".ign")}

    def head(self) -> tuple[str, str]:
        text = (self.folder / ".git/HEAD").read_text().strip()
        reference = self.folder / ".git" / text.removeprefix("ref: ")
        return text, reference.read_text().strip() if reference.is_file() else ""

    def index(self) -> bytes:
        path = self.folder / ".git/index"
        return path.read_bytes() if path.exists() else b""

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def git(self, *args: str, input: bytes = b"", check: bool = True) -> bytes:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        for role in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{role}_NAME": "user", f"GIT_{role}_EMAIL": "user@localhost"}
        done = subprocess.run(
            ["git", *args], cwd=self.folder, input=input, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout


def blob(data: bytes) -> str:
    return sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def changed_paths(one: Snapshot, other: Snapshot) -> set[bytes]:
    return {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}


async def run_sequences(
    base: Path, seeds: range, report: Callable[[str], None] | None = None
) -> dict[str, int]:
    """Run a session for each seed in one sandbox with one server; return how often what happened."""
    totals: dict[str, int] = {}
    async with await choose_sandbox(Policy(str(base)), "none") as sandbox:
        cut_file = base / "cut"
        faults = ("_faults", FAULTS.format(path=str(cut_file)))
        GitClient.install(sandbox, GitClient(sandbox, [faults, *module_sources()]))
        for seed in seeds:
            session = Session(sandbox, base / f"session-{seed}", cut_file, random.Random(seed))
            try:
                await session.run()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
            for what, count in session.counts.items():
                totals[what] = totals.get(what, 0) + count
            shutil.rmtree(session.folder)
            if report is not None and seed % 50 == 49:
                report(f"{seed + 1 - seeds.start} sessions: {totals}")
        await GitClient.of(sandbox).aclose()
    return totals


def main() -> None:
    """Run many sessions and say what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500, help="number of sessions")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seeds = range(options.start, options.start + options.count)
        totals = anyio.run(run_sequences, Path(folder), seeds, print)
    sys.stdout.write(f"{options.count} sessions in {time.monotonic() - begin:.0f} s: {totals}\n")


if __name__ == "__main__":
    main()
