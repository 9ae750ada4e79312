"""Nothing that a repository or its configuration names is ever run."""

import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dsv4agent.sandboxes import Policy, choose_sandbox
from dsv4agent.tools import Status, ToolContext
from dsv4agent.tools.git import ACTIONS, GitTool
from tests.tools.editor_desk import count_words
from tests.tools.git_desk import GitDesk, open_desk

pytestmark = pytest.mark.anyio


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[GitDesk]:
    async with open_desk(tmp_path) as desk:
        desk.start()
        yield desk


@pytest.fixture
def evil(desk: GitDesk) -> Path:
    """A program that leaves a mark when it is run, as any part of any command line."""
    marks = desk.session / "marks"
    marks.mkdir()
    program = desk.session / "evil"
    program.write_text(f'#!/bin/sh\ntouch "{marks}/$(basename "$0").$$"\ncat 2>/dev/null\n')
    program.chmod(0o755)
    return program


def marks(desk: GitDesk) -> list[str]:
    return sorted(os.listdir(desk.session / "marks"))


async def use_everything(desk: GitDesk) -> None:
    """Call every action, with changes that make git look at contents."""
    desk.write("a.txt", "one\nchanged\n")
    desk.write("new.txt", "new\n")
    desk.write("src/b.py", "b = 2\n")
    used = {"status", "diff", "log", "show", "blame"}
    for action in sorted(used):
        await desk.call(action, path="a.txt")
        await desk.call(action, path="a.txt", staged=True, limit=3)
    await desk.call("diff", revision="HEAD")
    await desk.call("show", revision="HEAD:a.txt")
    saved = await desk.call("checkpoint", message="before")
    desk.write("a.txt", "again\n")
    restored = await desk.call("restore", revision=saved.text.removeprefix("checkpoint ").split(";")[0])
    await desk.checkpoints.final_patch()
    committed = await desk.call("commit", message="commit", path="new.txt")
    await desk.call("commit", message="commit")
    await desk.call("branch")
    await desk.call("branch", name="side", switch=True)
    await desk.call("branch", name="main", switch=True)
    tree = await desk.call("worktree_add", name="tree")
    removed = await desk.call("worktree_remove", name="tree")
    used |= {"checkpoint", "restore", "commit", "branch", "worktree_add", "worktree_remove"}
    assert used == set(ACTIONS)
    results = (saved, restored, committed, tree, removed)
    assert [result.status for result in results] == [Status.OK] * 5, results


SETTINGS = {
    "core.fsmonitor": "{evil}",
    "core.hooksPath": "{folder}",
    "core.pager": "{evil}",
    "core.editor": "{evil}",
    "core.sshCommand": "{evil}",
    "core.askPass": "{evil}",
    "core.gitProxy": "{evil}",
    "core.alternateRefsCommand": "{evil}",
    "diff.external": "{evil}",
    "diff.wicked.command": "{evil}",
    "diff.wicked.textconv": "{evil}",
    "diff.guitool": "wicked",
    "difftool.wicked.cmd": "{evil}",
    "merge.wicked.driver": "{evil} %A",
    "filter.wicked.clean": "{evil}",
    "filter.wicked.smudge": "{evil}",
    "filter.wicked.required": "true",
    "filter.served.process": "{evil}",
    "filter.lfs.process": "{evil}",
    "interactive.diffFilter": "{evil}",
    "pager.diff": "{evil}",
    "pager.log": "{evil}",
    "alias.status": "!{evil}",
    "alias.log": "!{evil}",
    "alias.ls-files": "!{evil}",
    "commit.gpgSign": "true",
    "tag.gpgSign": "true",
    "log.showSignature": "true",
    "gpg.program": "{evil}",
    "gpg.ssh.program": "{evil}",
    "gpg.x509.program": "{evil}",
    "gpg.ssh.defaultKeyCommand": "{evil}",
    "credential.helper": "!{evil}",
    "uploadpack.packObjectsHook": "{evil}",
    "sequence.editor": "{evil}",
    "trailer.sign.command": "{evil}",
    "trailer.sign.ifmissing": "add",
    "gc.auto": "1",
    "gc.recentObjectsHook": "{evil}",
    "submodule.recurse": "true",
    "diff.ignoreSubmodules": "none",
    "hook.wicked.command": "{evil}",
    "hook.wicked.event": "reference-transaction",
    "protocol.ext.allow": "always",
    "remote.origin.url": "ext::{evil}",
    "remote.origin.promisor": "true",
    "remote.origin.partialCloneFilter": "blob:none",
    "extensions.partialClone": "origin",
    "core.worktree": "/",
    "core.attributesFile": "{folder}/attributes",
}


async def test_settings_that_name_programs_run_none(desk: GitDesk, evil: Path) -> None:
    hooks = desk.session / "hooks"
    hooks.mkdir()
    for name in HOOKS:
        (hooks / name).symlink_to(evil)
    (hooks / "attributes").write_text("* filter=wicked diff=wicked merge=wicked\n")
    desk.write(".gitattributes", "*.txt filter=wicked diff=wicked merge=wicked\n*.py filter=served\n")
    desk.git("add", "-A")
    desk.git("commit", "-q", "-m", "attributes")
    for name, value in SETTINGS.items():
        desk.git("config", name, value.format(evil=evil, folder=hooks))
    desk.write("a.txt", "x\n")
    desk.write(".git/info/attributes", "*.txt filter=wicked diff=wicked\n")
    # The same programs run when the user's git does it: the trap is a real one.
    desk.git("-c", "core.worktree=" + str(desk.folder), "-c", "alias.status=", "diff", "--ext-diff")
    assert marks(desk)
    for name in marks(desk):
        (desk.session / "marks" / name).unlink()
    await all_but_filtered(desk)
    assert marks(desk) == []


async def all_but_filtered(desk: GitDesk) -> None:
    """Use everything; commit and switch of filtered paths are refused rather than done without filter."""
    desk.write("a.txt", "one\nchanged\n")
    refused = await desk.call("commit", message="filtered", path="a.txt")
    assert refused.code == "filtered_path"
    assert "a.txt" in refused.text
    for path in (".gitattributes", ".git/info/attributes"):
        (desk.folder / path).write_text("*.txt diff=wicked merge=wicked\n")
    await use_everything(desk)


HOOKS = (
    "pre-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "post-checkout",
    "post-index-change",
    "reference-transaction",
    "pre-auto-gc",
    "post-rewrite",
    "fsmonitor-watchman",
)


async def test_hooks_do_not_run(desk: GitDesk, evil: Path) -> None:
    for name in HOOKS:
        (desk.folder / ".git/hooks" / name).symlink_to(evil)
    desk.git("branch", "trap")
    assert marks(desk)
    for name in marks(desk):
        (desk.session / "marks" / name).unlink()
    await use_everything(desk)
    assert marks(desk) == []


async def test_included_settings_reach_nothing(desk: GitDesk, evil: Path) -> None:
    desk.write("shared.cfg", f"[core]\n\tfsmonitor = {evil}\n[diff]\n\texternal = {evil}\n")
    desk.git("config", "include.path", "../shared.cfg")
    desk.git("config", "includeIf.gitdir:/.path", str(desk.folder / "shared.cfg"))
    desk.git("status")
    assert marks(desk)
    for name in marks(desk):
        (desk.session / "marks" / name).unlink()
    await use_everything(desk)
    assert marks(desk) == []


async def test_submodules_are_not_entered(desk: GitDesk, evil: Path) -> None:
    inner = desk.folder / "inner"
    inner.mkdir()
    desk.git("init", "-q", folder=inner)
    desk.write("inner/file", "x")
    desk.git("add", "-A", folder=inner)
    desk.git("commit", "-q", "-m", "inner", folder=inner)
    desk.write(".gitmodules", '[submodule "inner"]\n\tpath = inner\n\turl = ./inner\n\tignore = none\n')
    desk.git("add", "-A")
    desk.git("commit", "-q", "-m", "submodule")
    desk.git("config", "core.fsmonitor", str(evil), folder=inner)
    desk.git("config", "submodule.inner.update", f"!{evil}")
    desk.write("inner/file", "y")
    desk.git("status")
    assert marks(desk)
    for name in marks(desk):
        (desk.session / "marks" / name).unlink()
    await use_everything(desk)
    assert marks(desk) == []
    assert desk.folder.joinpath("inner/file").read_text() == "y"


async def test_a_git_in_the_workspace_is_not_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither variables nor a search path that leads into the workspace reach the server."""
    workspace = tmp_path / "workspace"
    (workspace / "bin").mkdir(parents=True)
    mark = workspace / "mark"
    program = workspace / "bin/git"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    module = f"open({str(mark)!r}, 'w').close()\n"
    for name in ("git.py", "json.py", "sitecustomize.py"):
        (workspace / name).write_text(module)
    monkeypatch.setenv("PATH", f"{workspace}/bin:{os.environ['PATH']}")
    env = {
        "PYTHONPATH": str(workspace),
        "PYTHONSTARTUP": str(workspace / "git.py"),
        "GIT_PYTHON_GIT_EXECUTABLE": str(program),
        "GIT_EXTERNAL_DIFF": str(program),
        "GIT_EXEC_PATH": str(workspace / "bin"),
        "GIT_DIR": "/nowhere",
    }
    async with await choose_sandbox(Policy(str(workspace), env=env), "none") as sandbox:
        desk = GitDesk(sandbox, workspace, tmp_path)
        monkeypatch.setenv("PATH", os.environ["PATH"].split(":", 1)[1])
        desk.start()
        monkeypatch.setenv("PATH", f"{workspace}/bin:{os.environ['PATH']}")
        assert "branch main" in await desk.text("status")
        await desk.tool.aclose()
    assert not mark.exists()


async def test_options_are_no_revisions(desk: GitDesk) -> None:
    target = desk.session / "written"
    for revision in (f"--output={target}", "-O/etc/passwd", "--all", "--no-index"):
        for action in ("diff", "log", "show", "blame"):
            result = await desk.call(action, revision=revision, path="a.txt")
            assert result.code == "invalid_arguments", (action, revision, result.text)
    for name in ("-D", "--help", "../x", "a..b", "x.lock", "@{-1}"):
        assert (await desk.call("branch", name=name)).code == "invalid_arguments"
    for path in ("--output=x", ":(exclude)a.txt", ":/", "*"):
        assert (await desk.call("diff", path=path)).text == "no difference"
    assert not target.exists()
    assert desk.git("branch", "--list").strip() == "* main"


async def test_paths_stay_in_the_workspace(desk: GitDesk) -> None:
    secret = desk.session / "secret"
    secret.write_text("secret")
    for path in ("../session/secret", str(secret), "src/../../session/secret", "/etc/passwd"):
        result = await desk.call("blame", path=path)
        assert (result.code, result.status) == ("outside_workspace", Status.DENIED)
    for name in ("../x", "/tmp/x", ".", "..", "a/b"):
        for action in ("worktree_add", "worktree_remove"):
            assert (await desk.call(action, name=name)).code == "invalid_arguments"


def spoil_config(folder: Path) -> None:
    (folder / ".git/config").write_text("[core\n")


def add_extension(folder: Path) -> None:
    (folder / ".git/config").write_text("[extensions]\n\tnewThing = true\n")


def move_git_folder(folder: Path) -> None:
    """Where its name does not protect it."""
    (folder / ".git").rename(folder / "elsewhere")
    (folder / ".git").write_text("gitdir: elsewhere\n")


@pytest.mark.parametrize("spoil", [spoil_config, add_extension, move_git_folder])
async def test_what_is_not_understood_is_refused(desk: GitDesk, spoil: Callable[[Path], None]) -> None:
    spoil(desk.folder)
    assert (await desk.call("status")).code == "unsupported_repository"


async def test_a_link_in_place_of_the_private_folder_is_refused(desk: GitDesk) -> None:
    (desk.folder / "open").mkdir()
    (desk.folder / ".git/dsv4agent").symlink_to("../open")
    assert (await desk.call("status")).code == "io_error"
    assert os.listdir(desk.folder / "open") == []


async def test_no_repository(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    async with await choose_sandbox(Policy(str(tmp_path / "workspace")), "none") as sandbox:
        tool = GitTool()
        context = ToolContext(sandbox, count_words, 500)
        for action in ("status", "checkpoint", "commit"):
            result = await tool(context, {"action": action, "message": "m"})
            assert result.text.startswith("not_a_repository: ")
            assert "git init" in result.text
        await tool.aclose()
