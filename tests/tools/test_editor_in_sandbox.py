"""The editor over real cages: links, devices and refusals are the kernel's business."""

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dsv4agent.sandboxes import Policy, Sandbox, SandboxUnavailable, choose_sandbox
from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.tools import Status, StrReplaceEditor, ToolContext, ToolResult, minimal_profile
from tests.tools.editor_desk import count_words

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["bubblewrap", "landlock"])
async def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sandbox]:
    (tmp_path / "workspace").mkdir()
    provider: ProviderName = request.param
    try:
        opened = await choose_sandbox(Policy(str(tmp_path / "workspace")), provider)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    async with opened:
        yield opened


async def edit(sandbox: Sandbox, command: str, path: str, **arguments: Any) -> ToolResult:
    context = ToolContext(sandbox, count_words, 4000)
    return await StrReplaceEditor()(context, {"command": command, "path": path, **arguments})


async def test_shell_and_editor_see_the_same_files(sandbox: Sandbox) -> None:
    bash, editor = minimal_profile()
    context = ToolContext(sandbox, count_words, 4000)
    await editor(context, {"command": "create", "path": "run.sh", "file_text": "echo one\n"})
    shown = await bash(context, {"command": "chmod 755 run.sh; ./run.sh"})
    assert shown.text == "one"
    await editor(context, {"command": "str_replace", "path": "run.sh", "old_str": "one", "new_str": "two"})
    assert (await bash(context, {"command": "./run.sh"})).text == "two"
    await bash.aclose()


async def test_links_are_followed_inside_and_stopped_outside(sandbox: Sandbox, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    (workspace / "real").write_text("x\n")
    (workspace / "link").symlink_to("real")
    (workspace / "etc").symlink_to("/etc")
    assert (await edit(sandbox, "str_replace", "link", old_str="x", new_str="y")).status is Status.OK
    assert (workspace / "link").is_symlink() and (workspace / "real").read_text() == "y\n"
    refused = await edit(sandbox, "create", "etc/dsv4agent-test", file_text="")
    assert (refused.status, refused.code) == (Status.DENIED, "permission_denied")
    assert "dsv4agent-test" not in os.listdir("/etc")


async def test_views_go_where_the_sandbox_lets_them(sandbox: Sandbox) -> None:
    assert (await edit(sandbox, "view", "/etc/hosts")).status is Status.OK
    refused = await edit(sandbox, "insert", "/etc/hosts", insert_line=0, new_str="x")
    assert refused.code == "outside_workspace"


async def test_what_is_no_file_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "workspace" / "fifo")
    for path in ("fifo", "/dev/null", "/dev/zero"):
        result = await edit(sandbox, "view", path)
        assert (
            result.text == f"not_a_file: {path} is a pipe, socket or device; only regular files can be used"
        )


async def test_mode_and_line_endings_survive(sandbox: Sandbox, tmp_path: Path) -> None:
    file = tmp_path / "workspace" / "dos.bat"
    file.write_bytes(b"\xef\xbb\xbfa\r\nb")
    file.chmod(0o751)
    await edit(sandbox, "str_replace", "dos.bat", old_str="b", new_str="c\nd")
    assert file.read_bytes() == b"\xef\xbb\xbfa\r\nc\r\nd"
    assert stat.S_IMODE(file.stat().st_mode) == 0o751


async def test_a_folder_that_may_not_be_read_is_a_result(tmp_path: Path) -> None:
    hidden, workspace = tmp_path / "hidden", tmp_path / "workspace"
    hidden.mkdir()
    workspace.mkdir()
    try:
        sandbox = await choose_sandbox(Policy(str(workspace), masked=(str(hidden),)), "landlock")
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    async with sandbox:
        result = await edit(sandbox, "view", str(hidden))
    assert result.code == "permission_denied"


async def test_a_rewritten_program_loses_its_set_user_id_bit(sandbox: Sandbox, tmp_path: Path) -> None:
    program = Path(sandbox.policy.workspace) / "program"
    program.write_text("before")
    program.chmod(0o6755)
    await sandbox.write_bytes(str(program), b"after")
    assert program.stat().st_mode & 0o7777 == 0o755
