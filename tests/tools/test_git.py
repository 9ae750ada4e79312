import os
from collections.abc import AsyncIterator
from pathlib import Path

import jsonschema
import pytest

from dsv4agent.sandboxes import MemorySandbox
from dsv4agent.tools import Status, ToolContext
from dsv4agent.tools.git import GitTool, Identity
from tests.tools.editor_desk import count_words
from tests.tools.git_desk import GitDesk, open_desk

pytestmark = pytest.mark.anyio


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[GitDesk]:
    async with open_desk(tmp_path) as desk:
        desk.start()
        yield desk


async def test_status(desk: GitDesk) -> None:
    head = desk.git("rev-parse", "HEAD")[:10]
    assert await desk.text("status") == f"branch main at {head}\nnothing changed"
    desk.write("a.txt", "changed\n")
    desk.write("new\nline", "n")
    desk.write("folder/one", "1")
    desk.git("mv", "src/b.py", "src/c.py")
    assert await desk.text("status") == (
        f'branch main at {head}\n M a.txt\nR  src/b.py -> src/c.py\n?? folder/\n?? "new\\x0aline"'
    )
    assert await desk.text("status", path="src") == f"branch main at {head}\nR  src/b.py -> src/c.py"
    desk.git("stash", "-q")
    desk.git("switch", "-q", "--detach")
    assert (await desk.text("status")).startswith(f"detached HEAD at {head}")


async def test_reading_does_not_write(desk: GitDesk) -> None:
    desk.write("a.txt", "changed\n")
    os.utime(desk.folder / "src/b.py", (1, 1))
    index = (desk.folder / ".git/index").read_bytes()
    for action in ("status", "diff", "log", "show"):
        assert (await desk.call(action)).status is Status.OK
    assert (desk.folder / ".git/index").read_bytes() == index


async def test_diff_and_show(desk: GitDesk) -> None:
    assert await desk.text("diff") == "no difference"
    desk.write("a.txt", "one\n2\n")
    assert (await desk.text("diff")).endswith("@@ -1,2 +1,2 @@\n one\n-two\n+2")
    assert await desk.text("diff", staged=True) == "no difference"
    desk.git("add", "a.txt")
    assert await desk.text("diff") == "no difference"
    assert "+2" in await desk.text("diff", staged=True)
    assert "+2" in await desk.text("diff", revision="HEAD", path="a.txt")
    assert await desk.text("diff", revision="HEAD", path="src") == "no difference"
    assert await desk.text("show", revision="HEAD:src/b.py") == "b = 1"
    shown = await desk.text("show")
    assert "author user <user@localhost>" in shown
    assert "\nfirst\n" in shown
    assert "+one" in shown
    assert (await desk.call("show", revision="nowhere")).code == "not_found"


async def test_log_and_blame(desk: GitDesk) -> None:
    desk.write("a.txt", "one\n2\n")
    desk.git("commit", "-qam", "second")
    lines = (await desk.text("log")).split("\n")
    assert [line.split(": ")[1] for line in lines] == ["second", "first"]
    assert (await desk.text("log", limit=1)).endswith(" user: second")
    assert (await desk.text("log", path="src")).endswith(" user: first")
    assert (await desk.text("log", revision="HEAD~1..HEAD")).endswith(" user: second")
    blamed = (await desk.text("blame", path="a.txt")).split("\n")
    assert blamed[0].endswith("one")
    assert blamed[1].startswith(desk.git("rev-parse", "HEAD")[:8])
    assert await desk.text("blame", path="a.txt", lines="2-2") == blamed[1]
    assert (await desk.call("blame")).code == "invalid_arguments"
    assert (await desk.call("blame", path="missing")).code == "git_failed"


async def test_commit_of_paths_leaves_the_rest_staged(desk: GitDesk) -> None:
    desk.write("a.txt", "committed\n")
    desk.write("src/b.py", "b = 2\n")
    desk.write("src/new.py", "new = 1\n")
    desk.git("add", "src/b.py")
    result = await desk.call("commit", message="Change a\n\nBody.", path="a.txt\nsrc/new.py")
    assert result.status is Status.OK
    assert result.text.endswith("Change a\n2 files")
    assert desk.git("log", "-1", "--format=%an %ae %cn%n%B") == (
        "dsv4agent dsv4agent@localhost dsv4agent\nChange a\n\nBody.\n\n"
    )
    assert desk.git("status", "--porcelain") == "M  src/b.py\n"
    assert desk.git("diff", "--name-only", "HEAD~1", "HEAD") == "a.txt\nsrc/new.py\n"
    assert desk.git("reflog", "-1", "--format=%gs").strip() == "commit: Change a"
    assert desk.git("fsck", "--strict", "--no-dangling") == ""


async def test_commit_of_everything(desk: GitDesk) -> None:
    (desk.folder / "a.txt").unlink()
    desk.write("run", "#!/bin/sh\n").chmod(0o755)
    desk.write(".gitignore", "*.o\n")
    desk.write("x.o", "ignored")
    (desk.folder / "nested").mkdir()
    desk.git("init", "-q", folder=desk.folder / "nested")
    desk.write("nested/file", "x")
    assert (await desk.call("commit", message="all")).status is Status.OK
    assert desk.git("ls-tree", "-r", "--name-only", "HEAD") == ".gitignore\nrun\nsrc/b.py\n"
    assert desk.git("ls-tree", "HEAD", "run").startswith("100755")
    assert desk.git("status", "--porcelain") == "?? nested/\n"
    assert (await desk.call("commit", message="again")).code == "nothing_to_commit"
    assert (await desk.call("commit", message=" ")).code == "invalid_arguments"
    assert (await desk.call("commit", message="x", path="missing")).code == "not_found"


async def test_line_endings_are_converted_as_the_user_has_it(desk: GitDesk) -> None:
    desk.git("config", "core.autocrlf", "true")
    desk.write("crlf.txt", "one\r\ntwo\r\n")
    await desk.call("commit", message="crlf")
    assert desk.git("show", "HEAD:crlf.txt") == "one\ntwo\n"
    assert desk.git("status", "--porcelain") == ""
    assert (await desk.text("status")).endswith("nothing changed")


async def test_first_commit_detached_commit_and_identity(desk: GitDesk, tmp_path: Path) -> None:
    desk.git("switch", "-q", "--orphan", "fresh")
    assert "no commit yet" in await desk.text("status")
    assert await desk.text("log") == "no commit yet"
    desk.tool = GitTool(identity=Identity("Ada", "ada@example.org"))
    desk.write("a", "1")
    assert (await desk.call("commit", message="root")).status is Status.OK
    assert desk.git("log", "--format=%an <%ae> %s") == "Ada <ada@example.org> root\n"
    desk.git("switch", "-q", "--detach")
    desk.write("a", "2")
    assert (await desk.text("commit", message="loose")).startswith("[detached HEAD ")
    assert desk.git("log", "--format=%s") == "loose\nroot\n"
    assert desk.git("rev-parse", "fresh") == desk.git("rev-parse", "HEAD~1")


async def test_commit_waits_for_the_user(desk: GitDesk) -> None:
    desk.write("a.txt", "x\n")
    (desk.folder / ".git/MERGE_HEAD").write_text(desk.git("rev-parse", "HEAD"))
    assert (await desk.call("commit", message="m")).code == "operation_in_progress"
    assert "merge in progress" in await desk.text("status")
    (desk.folder / ".git/MERGE_HEAD").unlink()
    (desk.folder / ".git/index.lock").touch()
    assert (await desk.call("commit", message="m")).code == "busy"
    (desk.folder / ".git/index.lock").unlink()
    assert (await desk.call("commit", message="m")).status is Status.OK


async def test_branches(desk: GitDesk) -> None:
    short = desk.git("rev-parse", "--short", "HEAD").strip()
    assert await desk.text("branch", name="topic/one") == "created topic/one"
    assert await desk.text("branch") == f"* main {short} first\n  topic/one {short} first"
    assert (await desk.call("branch", name="topic/one")).code == "exists"
    assert await desk.text("branch", name="topic/one", switch=True) == "on branch topic/one"
    assert desk.git("symbolic-ref", "HEAD") == "refs/heads/topic/one\n"
    desk.write("a.txt", "topic\n")
    await desk.call("commit", message="on topic")
    assert await desk.text("branch", name="main", switch=True) == "on branch main"
    assert (desk.folder / "a.txt").read_text() == "one\ntwo\n"
    assert desk.git("status", "--porcelain") == ""
    assert await desk.text("branch", name="old", switch=True, revision="topic/one~1") == "on branch old"
    assert desk.git("rev-parse", "HEAD") == desk.git("rev-parse", "main")
    assert (await desk.call("branch", name="main", switch=True, revision="old")).code == "exists"
    assert "moving from main to old" in desk.git("reflog", "-1")


async def test_switching_loses_no_change(desk: GitDesk) -> None:
    desk.git("switch", "-q", "-c", "other")
    desk.write("a.txt", "other\n")
    desk.write("ignored.o", "committed there\n")
    desk.git("add", "-A")
    desk.git("commit", "-qm", "other")
    desk.git("switch", "-q", "main")
    desk.write("a.txt", "not committed\n")
    refused = await desk.call("branch", name="other", switch=True)
    assert refused.code == "git_failed"
    assert "a.txt" in refused.text
    assert (desk.folder / "a.txt").read_text() == "not committed\n"
    assert desk.git("symbolic-ref", "HEAD") == "refs/heads/main\n"
    assert not (desk.folder / ".git/HEAD.lock").exists()
    desk.git("restore", "a.txt")
    desk.write(".git/info/exclude", "*.o\n")
    desk.write("ignored.o", "the user's\n")
    assert (await desk.call("branch", name="other", switch=True)).code == "git_failed"
    assert (desk.folder / "ignored.o").read_text() == "the user's\n"


async def test_checkpoint_and_restore(desk: GitDesk) -> None:
    assert await desk.text("checkpoint", message="start") == "checkpoint 1"
    desk.write("a.txt", "changed\n")
    desk.write("made", "x")
    missing = await desk.call("restore")
    assert missing.text == "invalid_arguments: restore needs a checkpoint's number; there are: 1 (start)"
    assert (await desk.call("restore", revision="9")).code == "not_found"
    assert await desk.text("restore", revision="1") == (
        "restored 1; restore 2 to undo\nwrote a.txt\nremoved made"
    )
    assert (await desk.text("status")).endswith("nothing changed")
    desk.git("commit", "-q", "--allow-empty", "-m", "moved")
    moved = await desk.call("restore", revision="1")
    assert moved.text.startswith("head_moved: checkpoint 1 was made on main")


async def test_work_trees_need_a_folder(desk: GitDesk) -> None:
    assert (await desk.call("worktree_add")).code == "invalid_arguments"
    made = await desk.text("worktree_add", name="one")
    assert made == f"work tree {desk.session / 'one'} on branch dsv4agent/one"
    assert await desk.text("worktree_remove", name="one") == (
        "removed work tree one; branch dsv4agent/one stays"
    )
    desk.tool = GitTool()
    assert (await desk.call("worktree_add", name="two")).code == "unavailable"


async def test_long_output_is_cut_and_kept(desk: GitDesk) -> None:
    desk.write("a.txt", "".join(f"line {number}\n" for number in range(5000)))
    result = await desk.call("diff")
    assert result.truncated is not None
    assert result.truncated.path is not None
    assert count_words(result.text) <= 2000
    assert "+line 4999" in result.truncated.path.read_text()
    assert "tokens omitted" in result.text


async def test_no_programs_no_git() -> None:
    context = ToolContext(MemorySandbox({}), count_words, 100)
    result = await GitTool()(context, {"action": "status"})
    assert (result.code, result.status) == ("unavailable", Status.ERROR)


def test_the_schema_is_flat_and_small() -> None:
    schema = GitTool().parameters
    jsonschema.Draft202012Validator.check_schema(dict(schema))
    properties = schema["properties"]
    assert next(iter(properties)) == "action"
    assert len(properties) - len(schema["required"]) <= 8
    assert {entry["type"] for entry in properties.values()} <= {"string", "boolean", "integer"}
    for entry in properties.values():
        assert len(entry["description"]) <= 110
        assert entry["description"].endswith(".")
