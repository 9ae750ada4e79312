import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from dsv4agent.sandboxes import Policy, choose_sandbox
from dsv4agent.tools.checkpoints import Actor, Checkpoint, Checkpoints, Refused, Restored, Worktree
from dsv4agent.tools.git_client import GitRefused
from tests.tools.git_desk import GitDesk, open_desk
from tests.tools.git_sequences import run_sequences

pytestmark = pytest.mark.anyio


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[GitDesk]:
    async with open_desk(tmp_path) as desk:
        yield desk


async def restored(desk: GitDesk, checkpoint: Checkpoint | int) -> Restored:
    done = await desk.checkpoints.restore(checkpoint)
    assert isinstance(done, Restored), done
    return done


async def refused(desk: GitDesk, checkpoint: Checkpoint | int) -> Refused:
    done = await desk.checkpoints.restore(checkpoint)
    assert isinstance(done, Refused), done
    return done


async def test_random_sessions_lose_no_byte(tmp_path: Path) -> None:
    """A share of what `python -m tests.tools.git_sequences` runs."""
    totals = await run_sequences(tmp_path, range(10))
    assert totals["restored"] > 3
    assert totals["restored after a kill"] > 3
    assert totals["changed_meanwhile"] > 1


async def test_saving_touches_nothing_else(desk: GitDesk) -> None:
    desk.start()
    desk.write("a.txt", "staged\n")
    desk.git("add", "a.txt")
    desk.write("a.txt", "not staged\n")
    desk.write("untracked", "u")
    status = desk.git("status", "--porcelain")
    kept = (".git/index", ".git/HEAD", ".git/config", ".git/logs/HEAD", ".git/refs/heads/main", "a.txt")
    before = {name: ((desk.folder / name).read_bytes(), (desk.folder / name).stat()) for name in kept}
    saved = await desk.checkpoints.save("one")
    for name, (data, found) in before.items():
        assert (desk.folder / name).read_bytes() == data, name
        assert (desk.folder / name).stat().st_mtime_ns == found.st_mtime_ns, name
    assert desk.git("status", "--porcelain") == status
    assert desk.git("rev-parse", f"refs/dsv4agent/session/{saved.number}").strip() == saved.commit
    assert (saved.number, saved.branch, saved.head) == (1, "main", desk.git("rev-parse", "HEAD").strip())
    assert desk.git("show", f"{saved.tree}:a.txt") == "not staged\n"
    assert desk.git("show", f"{saved.index}:a.txt") == "staged\n"
    assert desk.git("show", f"{saved.tree}:untracked") == "u"
    assert desk.git("fsck", "--strict", "--no-dangling") == ""


async def test_bytes_names_links_and_modes_are_exact(desk: GitDesk) -> None:
    desk.start()
    desk.git("config", "core.autocrlf", "true")
    desk.write(".gitattributes", "*.txt text eol=lf ident working-tree-encoding=UTF-16\n")
    contents = {
        "a.txt": b"one\r\ntwo\n$Id$\r\n",
        "b\nc.txt": b"\r\n",
        os.fsdecode(b"\xff\xfe/\x80"): b"\0\xff",
        "-rf": b"",
        "GIT~1": b"short",
        'say "hi"\\': b"quotes",
        "tab\there": b"tab",
    }
    for name, data in contents.items():
        desk.write(name, data)
    (desk.folder / "link").symlink_to("nowhere\nat all")
    (desk.folder / "folder-link").symlink_to("src")
    desk.write("run", "#!/bin/sh\n").chmod(0o755)
    desk.write("private", "p").chmod(0o600)
    files = desk.files()
    saved = await desk.checkpoints.save("one")
    for name in files:
        (desk.folder / name).unlink()
    await restored(desk, saved)
    assert desk.files() == files
    assert stat.S_IMODE((desk.folder / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((desk.folder / "private").stat().st_mode) == 0o600
    assert (desk.folder / "link").is_symlink()


async def test_files_and_folders_change_places(desk: GitDesk) -> None:
    desk.start()
    desk.write("deep/er/file", "deep")
    saved = await desk.checkpoints.save("one")
    files = desk.files()
    (desk.folder / "a.txt").unlink()
    desk.write("a.txt/now/a/folder", "x")
    (desk.folder / "deep/er/file").unlink()
    (desk.folder / "deep/er").rmdir()
    (desk.folder / "deep/er").symlink_to("/etc")
    (desk.folder / "src/b.py").unlink()
    (desk.folder / "src").rmdir()
    desk.write("src", "now a file")
    after = desk.files()
    done = await restored(desk, saved)
    assert desk.files() == files
    assert sorted(done.removed) == ["a.txt/now/a/folder", "deep/er", "src"]
    assert sorted(done.written) == ["a.txt", "deep/er/file", "src/b.py"]
    await restored(desk, done.before)
    assert desk.files() == after


async def test_the_users_changes_stay(desk: GitDesk) -> None:
    desk.start()
    first = await desk.checkpoints.save("before step 1", hands_to=Actor.AGENT)
    desk.write("a.txt", "the agent's\n")
    desk.write("made", "by the agent\n")
    desk.write("dir/made", "by the agent\n")
    await desk.checkpoints.save("after step 1", hands_to=Actor.USER)
    desk.write("mine", "the user's\n")
    desk.write("src/b.py", "b = 'the user'\n")
    done = await restored(desk, first)
    assert desk.files() == {
        "a.txt": b"one\ntwo\n",
        "mine": b"the user's\n",
        "src/b.py": b"b = 'the user'\n",
    }
    assert not (desk.folder / "dir").exists()
    desk.write("later", "the user's too\n")
    await restored(desk, done.before)
    assert desk.files()["a.txt"] == b"the agent's\n"
    assert desk.files()["later"] == b"the user's too\n"


async def test_files_that_both_changed_are_refused(desk: GitDesk) -> None:
    desk.start()
    first = await desk.checkpoints.save("before", hands_to=Actor.AGENT)
    desk.write("a.txt", "the agent's\n")
    desk.write("made", "by the agent\n")
    desk.write("other", "by the agent\n")
    await desk.checkpoints.save("after", hands_to=Actor.USER)
    desk.write("a.txt", "the agent's and the user's\n")
    desk.write("made", "by both\n")
    files = desk.files()
    done = await refused(desk, first)
    assert (done.code, done.paths) == ("changed_meanwhile", ("a.txt", "made"))
    assert desk.files() == files


async def test_what_takes_the_place_of_a_file_is_refused(desk: GitDesk) -> None:
    desk.start()
    desk.write(".gitignore", "*.o\n")
    first = await desk.checkpoints.save("before", hands_to=Actor.AGENT)
    (desk.folder / "a.txt").unlink()
    (desk.folder / "src/b.py").unlink()
    await desk.checkpoints.save("after", hands_to=Actor.USER)
    desk.write("a.txt/user.o", "ignored, but the user's")
    done = await refused(desk, first)
    assert (done.code, done.paths) == ("changed_meanwhile", ("a.txt/user.o",))
    (desk.folder / "a.txt/user.o").unlink()
    (desk.folder / "src").rmdir()
    outside = desk.session / "outside"
    outside.mkdir()
    (desk.folder / "src").symlink_to(outside)
    done = await refused(desk, first)
    assert (done.code, done.paths) == ("changed_meanwhile", ("src",))
    assert os.listdir(outside) == []


async def test_a_moved_head_is_refused(desk: GitDesk) -> None:
    desk.start()
    first = await desk.checkpoints.save("one")
    desk.write("a.txt", "changed\n")
    desk.git("switch", "-q", "-c", "other")
    done = await refused(desk, first)
    assert done.code == "head_moved"
    assert "main" in done.reason
    assert "other" in done.reason
    desk.git("switch", "-q", "main")
    await restored(desk, first)
    desk.write("a.txt", "changed\n")
    desk.git("commit", "-qam", "moved")
    assert (await refused(desk, first)).code == "head_moved"
    desk.git("switch", "-q", "--detach")
    second = await desk.checkpoints.save("detached")
    assert second.branch is None
    desk.write("a.txt", "again\n")
    await restored(desk, second)
    assert desk.files()["a.txt"] == b"changed\n"


async def test_ignore_rules_neither_hide_nor_give_away_files(desk: GitDesk) -> None:
    """A rule that comes hides no file that was saved; one that goes makes no file the agent's."""
    desk.start()
    desk.write(".gitignore", "secrets/\n")
    desk.write("secrets/key", "the user's")
    desk.write("notes", "the user's")
    first = await desk.checkpoints.save("before", hands_to=Actor.AGENT)
    desk.write(".gitignore", "notes\n")
    desk.write("notes", "the agent's")
    desk.write("made", "the agent's")
    await restored(desk, first)
    assert desk.files()["secrets/key"] == b"the user's"
    assert desk.files()["notes"] == b"the user's"
    assert desk.files()[".gitignore"] == b"secrets/\n"
    assert "made" not in desk.files()
    # What was hidden before is not known to a server that is new.
    desk.write(".gitignore", "")
    await desk.checkpoints.aclose()
    await restored(desk, first)
    assert desk.files()["secrets/key"] == b"the user's"


async def test_before_the_first_commit(desk: GitDesk) -> None:
    desk.git("init", "-q", "-b", "main")
    desk.write("a", "1")
    saved = await desk.checkpoints.save("one")
    assert (saved.head, saved.branch) == (None, "main")
    desk.write("a", "2")
    desk.write("b", "2")
    await restored(desk, saved)
    assert desk.files() == {"a": b"1"}
    assert await desk.checkpoints.final_patch() == b""


async def test_submodules_and_other_repositories_are_left_alone(desk: GitDesk) -> None:
    desk.start()
    for name in ("inner", "nested"):
        (desk.folder / name).mkdir()
        desk.git("init", "-q", folder=desk.folder / name)
        desk.write(f"{name}/file", "x")
        desk.git("add", "-A", folder=desk.folder / name)
        desk.git("commit", "-qm", "x", folder=desk.folder / name)
    desk.git("add", "inner")
    saved = await desk.checkpoints.save("one")
    tree = desk.git("ls-tree", "-r", saved.tree)
    assert (
        f"160000 commit {desk.git('rev-parse', 'HEAD', folder=desk.folder / 'inner').strip()}\tinner" in tree
    )
    assert "nested" not in tree
    desk.write("inner/file", "changed")
    desk.write("nested/file", "changed")
    desk.write("a.txt", "changed")
    done = await restored(desk, saved)
    assert done.written == ("a.txt",)
    assert desk.files()["inner/file"] == desk.files()["nested/file"] == b"changed"


async def test_conflicts_in_the_index_are_no_hindrance(desk: GitDesk) -> None:
    desk.start()
    desk.git("switch", "-q", "-c", "other")
    desk.write("a.txt", "other\n")
    desk.git("commit", "-qam", "other")
    desk.git("switch", "-q", "main")
    desk.write("a.txt", "main\n")
    desk.git("commit", "-qam", "main")
    with pytest.raises(AssertionError):
        desk.git("merge", "-q", "other")
    files = desk.files()
    saved = await desk.checkpoints.save("conflict")
    assert saved.index is None
    desk.write("a.txt", "resolved\n")
    await restored(desk, saved)
    assert desk.files() == files


async def test_large_and_special_files_are_left_out(desk: GitDesk) -> None:
    desk.start()
    with (desk.folder / "large").open("wb") as file:
        file.truncate((32 << 20) + 1)
    os.mkfifo(desk.folder / "pipe")
    saved = await desk.checkpoints.save("one")
    # Git does not list pipes at all.
    assert saved.skipped == ("large",)
    desk.write("large", "small now")
    desk.write("a.txt", "changed\n")
    done = await restored(desk, saved)
    assert done.written == ("a.txt",)
    assert list(done.left) == ["large"]
    assert desk.files()["large"] == b"small now"


async def test_pruning_keeps_the_first_and_the_last(desk: GitDesk) -> None:
    desk.start()
    made: list[Checkpoint] = []
    for number in range(6):
        desk.write("a.txt", f"{number}\n")
        made.append(await desk.checkpoints.save(f"step {number}"))
    assert await desk.checkpoints.prune(2) == 3
    assert [one.label for one in await desk.checkpoints.list()] == ["step 0", "step 4", "step 5"]
    assert (await refused(desk, made[0])).code == "pruned"
    assert (await refused(desk, made[2])).code == "not_found"
    await restored(desk, made[4])
    assert desk.files()["a.txt"] == b"4\n"
    assert b"+4" in await desk.checkpoints.final_patch() or desk.files()["a.txt"] == b"4\n"
    assert await desk.checkpoints.prune(100) == 0
    with pytest.raises(ValueError, match="at least one"):
        await desk.checkpoints.prune(0)


async def test_the_final_patch_applies(desk: GitDesk) -> None:
    desk.start()
    with pytest.raises(GitRefused, match="no checkpoint"):
        await desk.checkpoints.final_patch()
    start = desk.git("rev-parse", "HEAD").strip()
    await desk.checkpoints.save("first")
    desk.write("a.txt", "one\ntwo\nthree")
    desk.write("image", bytes(range(256)))
    desk.write("new\nname", "n\r\n")
    (desk.folder / "src/b.py").unlink()
    (desk.folder / "link").symlink_to("a.txt")
    desk.git("add", "a.txt")
    desk.git("commit", "-qm", "part of it")
    patch = await desk.checkpoints.final_patch()
    other = desk.session / "other"
    desk.git("clone", "-q", str(desk.folder), str(other))
    desk.git("checkout", "-q", start, folder=other)
    desk.git("apply", "-", folder=other, input=patch)
    theirs = GitDesk(desk.sandbox, other, desk.session)
    assert theirs.files() == desk.files()
    assert (other / "link").is_symlink()


async def test_sessions_do_not_see_each_other(desk: GitDesk) -> None:
    desk.start()
    await desk.checkpoints.save("mine")
    other = Checkpoints(desk.sandbox, "other")
    assert await other.list() == []
    theirs = await other.save("theirs")
    assert theirs.number == 1
    desk.write("only-now", "x")
    mine = await desk.checkpoints.save("mine too")
    (desk.folder / "only-now").unlink()
    assert (await other.save("theirs too")).tree == theirs.tree != mine.tree
    with pytest.raises(GitRefused, match="session id"):
        await Checkpoints(desk.sandbox, "../heads").save("x")


async def test_a_workspace_without_repository(tmp_path: Path) -> None:
    workspace, session = tmp_path / "workspace", tmp_path / "session"
    workspace.mkdir()
    session.mkdir()
    (workspace / "a").write_text("1")
    (workspace / ".gitignore").write_text("*.o\n")
    (workspace / "b.o").write_text("ignored")
    policy = Policy(str(workspace), writable=[str(session)])
    async with await choose_sandbox(policy, "none") as sandbox:
        with pytest.raises(GitRefused) as none:
            await Checkpoints(sandbox, "s").save("one")
        assert none.value.code == "not_a_repository"
        checkpoints = Checkpoints(sandbox, "s", store=str(session / "store"))
        saved = await checkpoints.save("one")
        (workspace / "a").write_text("2")
        (workspace / "c").write_text("3")
        patch = await checkpoints.final_patch()
        assert b"-1" in patch
        assert b"+2" in patch
        assert isinstance(await checkpoints.restore(saved), Restored)
        assert sorted(os.listdir(workspace)) == [".gitignore", "a", "b.o"]
        assert (workspace / "a").read_text() == "1"
        # Once there is a repository, it is used.
        await anyio.run_process(["git", "init", "-q"], cwd=workspace)
        assert (await checkpoints.save("two")).number == 1
        await checkpoints.aclose()


async def test_work_trees(desk: GitDesk) -> None:
    desk.start()
    folder = desk.session / "tree"
    tree = await Worktree.add(desk.sandbox, folder, "helper")
    assert isinstance(tree, Worktree)
    assert (tree.branch, (folder / "a.txt").read_text()) == ("dsv4agent/helper", "one\ntwo\n")
    assert str(folder) in desk.git("worktree", "list")
    assert desk.git("status", "--porcelain", folder=folder) == ""
    again = await Worktree.add(desk.sandbox, folder, "helper")
    assert isinstance(again, Refused)
    assert again.code == "exists"

    inside = Checkpoints(desk.sandbox, "helper", folder=str(folder))
    first = await inside.save("before")
    (folder / "a.txt").write_text("the helper's\n")
    (folder / "new").write_text("new\n")
    dirty = await tree.remove(desk.sandbox)
    assert dirty is not None
    assert dirty.code == "uncommitted_changes"
    patch = await inside.final_patch()
    assert b"+the helper's" in patch
    assert isinstance(await inside.restore(first), Restored)
    assert (folder / "a.txt").read_text() == "one\ntwo\n"
    (folder / "a.txt").write_text("the helper's\n")
    last = await inside.save("after")
    assert await tree.remove(desk.sandbox) is None
    assert not folder.exists()
    assert str(folder) not in desk.git("worktree", "list")
    assert desk.git("show", f"{last.tree}:a.txt") == "the helper's\n"
    gone = await tree.remove(desk.sandbox)
    assert gone is not None
    assert gone.code == "not_found"
    assert desk.files()["a.txt"] == b"one\ntwo\n"
    assert desk.git("fsck", "--no-dangling") == ""


async def test_a_work_tree_with_another_repository_inside_is_kept(desk: GitDesk) -> None:
    desk.start()
    folder = desk.session / "tree"
    tree = await Worktree.add(desk.sandbox, folder, "helper")
    assert isinstance(tree, Worktree)
    (folder / "nested").mkdir()
    desk.git("init", "-q", folder=folder / "nested")
    (folder / "nested/file").write_text("x")
    await Checkpoints(desk.sandbox, "helper", folder=str(folder)).save("all of it")
    kept = await tree.remove(desk.sandbox)
    assert kept is not None
    assert kept.code == "uncommitted_changes"
    assert (folder / "nested/file").read_text() == "x"


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
async def test_packed_repositories_of_both_hashes(desk: GitDesk, object_format: str) -> None:
    desk.git("init", "-q", "-b", "main", f"--object-format={object_format}")
    desk.write("a", "1")
    desk.git("add", "-A")
    desk.git("commit", "-qm", "one")
    first = await desk.checkpoints.save("one")
    desk.git("pack-refs", "--all")
    desk.git("gc", "-q", "--prune=now")
    desk.write("a", "2")
    second = await desk.checkpoints.save("two")
    await restored(desk, first)
    assert desk.files() == {"a": b"1"}
    desk.git("gc", "-q", "--prune=now")
    await restored(desk, second)
    assert desk.files() == {"a": b"2"}
    await desk.call("commit", message="two")
    assert desk.git("log", "--format=%s") == "two\none\n"
    assert await desk.checkpoints.prune(1) > 0
    assert desk.git("fsck", "--no-dangling") == ""
