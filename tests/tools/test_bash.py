import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from dsv4agent.sandboxes import (
    MemorySandbox,
    Policy,
    ProgramsUnsupported,
    Sandbox,
    SandboxCrashed,
    choose_sandbox,
)
from dsv4agent.tools import BashTool, Status, ToolContext, ToolResult
from tests.tools.editor_desk import count_words

pytestmark = pytest.mark.anyio


class Terminal:
    """A shell tool on a sandbox; calls it with a command."""

    def __init__(self, sandbox: Sandbox, spill: Path, budget: int = 4000, timeout: float = 60.0) -> None:
        self.tool = BashTool(timeout=timeout)
        self.live: list[str] = []
        self.shown = anyio.Event()
        self.context = ToolContext(sandbox, count_words, budget, spill, self.show)

    async def show(self, text: str) -> None:
        self.live.append(text)
        self.shown.set()

    async def run(self, command: str) -> ToolResult:
        return await self.tool(self.context, {"command": command})

    async def text(self, command: str) -> str:
        return (await self.run(command)).text


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """What the shell does must not depend on the cage; the plainest one starts everywhere."""
    (tmp_path / "workspace").mkdir()
    async with await choose_sandbox(Policy(str(tmp_path / "workspace")), "none") as opened:
        yield opened


@pytest.fixture
async def terminal(sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[Terminal]:
    terminal = Terminal(sandbox, tmp_path / "spill")
    yield terminal
    await terminal.tool.aclose()


@pytest.fixture
async def hurried(sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[Terminal]:
    terminal = Terminal(sandbox, tmp_path / "spill", timeout=0.5)
    yield terminal
    await terminal.tool.aclose()


async def test_starts_in_the_workspace_and_keeps_directory_and_exports(terminal: Terminal) -> None:
    workspace = terminal.context.sandbox.policy.workspace
    assert await terminal.text("pwd") == workspace
    assert await terminal.text("mkdir sub; cd sub; export A=1; b=2; f() { echo from f; }") == "(no output)"
    assert await terminal.text('pwd; echo "$A $b"; f') == f"{workspace}/sub\n1 2\nfrom f"


async def test_exit_codes(terminal: Terminal) -> None:
    failed = await terminal.run("echo out; (exit 7)")
    assert (failed.text, failed.exit_code, failed.status) == ("out\n[exit code: 7]", 7, Status.OK)
    assert await terminal.text("echo $?") == "7"
    assert await terminal.text("false") == "[exit code: 1]"
    killed = await terminal.run("sh -c 'kill -9 $$'")
    assert (killed.exit_code, killed.signal) == (137, 9)


async def test_both_streams_in_order_without_a_terminal(terminal: Terminal) -> None:
    assert await terminal.text("for i in 1 2 3; do echo o$i; echo e$i >&2; done") == "o1\ne1\no2\ne2\no3\ne3"
    assert (
        await terminal.text("test -t 0 || test -t 1 || echo no; echo $TERM $PAGER $GIT_PAGER")
        == "no\ndumb cat cat"
    )
    code = "import sys; print(1); print(2, file=sys.stderr); print(3)"
    assert await terminal.text(f"python -c '{code}'") == "1\n2\n3"


async def test_standard_input_is_empty(terminal: Terminal) -> None:
    assert await terminal.text("cat; read x; echo $?") == "1"
    assert await terminal.text("echo the next command still arrives") == "the next command still arrives"


async def test_output_cannot_end_a_call(terminal: Terminal) -> None:
    forged = "printf 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0 /\\0'; printf 'x 0 /\\0' >&3; echo still here"
    assert (await terminal.text(forged)).endswith("still here")
    assert await terminal.text(
        "ls -l /proc/self/fd/3 2>/dev/null | wc -l; set | grep -c '^__mark=.\\{32\\}'"
    ) in {
        "0\n1",
        "1\n1",
    }
    assert await terminal.text("echo $__mark | wc -c; echo after") == "33\nafter"


async def test_errors_count_lines_from_the_command(terminal: Terminal) -> None:
    for _ in range(2):
        assert await terminal.text("true\nmissing_program") == (
            "bash: line 2: missing_program: command not found\n[exit code: 127]"
        )
        assert (await terminal.text("if")).endswith("syntax error: unexpected end of file\n[exit code: 2]")


async def test_shell_options_do_not_break_the_next_call(terminal: Terminal) -> None:
    assert await terminal.text("set -x; true") == "++ true"
    assert await terminal.text("echo quiet") == "quiet"
    assert await terminal.text("set -e; echo strict") == "strict"
    assert await terminal.text("false; echo alive") == "alive"


async def test_strict_scripts_stop_at_the_first_failure(terminal: Terminal) -> None:
    text = await terminal.text("set -e\necho one\nfalse\necho two")
    workspace = terminal.context.sandbox.policy.workspace
    assert text == (
        f"one\n[the shell ended; the next call starts in a fresh shell in {workspace}]\n[exit code: 1]"
    )


async def test_quotes_and_bytes_pass_unchanged(terminal: Terminal) -> None:
    assert await terminal.text("cat <<'E'\n'\"$x\\ <｜User｜> é\nE") == "'\"$x\\ <｜User｜> é"
    assert await terminal.text("printf 'a\\0b\\xff\\033[1mc\\n\\n\\n'") == "ab\ufffdc"


async def test_invalid_commands(terminal: Terminal) -> None:
    assert (await terminal.run("echo \0")).code == "invalid_arguments"
    assert (await terminal.run("echo \ud800")).code == "invalid_arguments"


async def test_an_ended_shell_is_replaced_in_its_last_directory(terminal: Terminal) -> None:
    workspace = terminal.context.sandbox.policy.workspace
    await terminal.run("mkdir d; cd d; export A=1")
    ended = await terminal.run("echo bye; exit 3")
    assert ended.text == (
        f"bye\n[the shell ended; the next call starts in a fresh shell in {workspace}/d]\n[exit code: 3]"
    )
    assert await terminal.text('pwd; echo "[$A]"') == f"{workspace}/d\n[]"
    assert (await terminal.run("kill -9 $$")).exit_code == 137
    await terminal.run("cd ..; rmdir d; mkdir d; cd d; rmdir ../d; exit")
    assert await terminal.text("pwd") == workspace


async def test_a_shell_that_becomes_another_program_shows_its_output(terminal: Terminal) -> None:
    workspace = terminal.context.sandbox.policy.workspace
    assert await terminal.text("exec bash -c 'sleep 0.2; echo late; exit 6'") == (
        f"late\n[the shell ended; the next call starts in a fresh shell in {workspace}]\n[exit code: 6]"
    )


async def test_timeout_ends_the_tree_and_says_what_is_next(hurried: Terminal, tmp_path: Path) -> None:
    workspace = hurried.context.sandbox.policy.workspace
    script = "trap '' TERM; while :; do echo . >> beat; sleep 0.02; done"
    started = time.monotonic()
    result = await hurried.run(f'cd /; cd {workspace}; echo begun; ({script}) & setsid bash -c "{script}"')
    assert time.monotonic() - started < 4
    assert (
        result.text
        == f"timeout: stopped after 0.5 s; the next call starts in a fresh shell in {workspace}\nbegun"
    )
    assert (result.status, result.code, result.exit_code) == (Status.TIMEOUT, "timeout", None)
    beat = Path(workspace) / "beat"
    size = beat.stat().st_size
    await anyio.sleep(0.2)
    assert beat.stat().st_size == size > 0
    assert await hurried.text("echo fresh") == "fresh"


async def test_cancellation_ends_the_tree(terminal: Terminal) -> None:
    workspace = Path(terminal.context.sandbox.policy.workspace)
    with anyio.move_on_after(0.5) as scope:
        await terminal.run("while :; do echo . >> beat; sleep 0.02; done")
    assert scope.cancelled_caught
    size = (workspace / "beat").stat().st_size
    await anyio.sleep(0.2)
    assert (workspace / "beat").stat().st_size == size > 0
    assert await terminal.text("echo fresh") == "fresh"


async def test_background_children_do_not_delay_a_call(terminal: Terminal) -> None:
    started = time.monotonic()
    assert await terminal.text("sleep 30 & echo started") == "started"
    assert await terminal.text("jobs | wc -l") == "1"
    assert time.monotonic() - started < 5


async def test_closing_the_tool_ends_background_children(terminal: Terminal) -> None:
    workspace = Path(terminal.context.sandbox.policy.workspace)
    await terminal.run("(while :; do echo . >> beat; sleep 0.02; done) & sleep 0.1")
    await terminal.tool.aclose()
    size = (workspace / "beat").stat().st_size
    await anyio.sleep(0.2)
    assert (workspace / "beat").stat().st_size == size > 0


async def test_long_output_is_cut_and_kept(sandbox: Sandbox, tmp_path: Path) -> None:
    terminal = Terminal(sandbox, tmp_path / "spill", budget=300)
    result = await terminal.run("seq 1 5000; (exit 4)")
    assert count_words(result.text) <= 300
    assert result.text.startswith("1\n2\n3\n") and result.text.endswith("\n5000\n[exit code: 4]")
    assert result.truncated is not None and result.truncated.path is not None
    assert result.truncated.path == tmp_path / "spill" / "bash-1.txt"
    assert result.truncated.path.read_text() == "".join(f"{n}\n" for n in range(1, 5001))
    assert f"full output: {result.truncated.path}]" in result.text
    await terminal.tool.aclose()


async def test_output_beyond_memory_goes_to_disk_whole(sandbox: Sandbox, tmp_path: Path) -> None:
    terminal = Terminal(sandbox, tmp_path / "spill", budget=300)
    result = await terminal.run("seq 1 700000")
    assert result.truncated is not None and result.truncated.path is not None
    assert result.text.startswith("1\n2\n") and result.text.endswith("\n700000")
    lines = result.truncated.path.read_bytes().split()
    assert len(lines) == 700000 and lines[-1] == b"700000"
    # Words and line ends are tokens here: the estimate must be of the right size.
    assert 0.85 < result.truncated.total_tokens / 1_399_999 < 1.15
    await terminal.tool.aclose()


async def test_live_output_arrives_while_the_command_runs(terminal: Terminal) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(
            terminal.run,
            "printf '\\033[1mearly\\033[0m\\n'; while ! test -e go; do sleep 0.02; done; echo late",
        )
        with anyio.fail_after(10):
            await terminal.shown.wait()
        assert "".join(terminal.live) == "early\n"
        (Path(terminal.context.sandbox.policy.workspace) / "go").touch()
    assert "".join(terminal.live) == "early\nlate\n"


async def test_edits_within_a_second_are_not_hidden_by_cached_bytecode(terminal: Terminal) -> None:
    module = Path(terminal.context.sandbox.policy.workspace) / "m.py"
    stamp = 1_700_000_000
    for value in ("1", "2"):
        module.write_text(f"x = {value}\n")
        os.utime(module, (stamp, stamp))
        assert await terminal.text("python -c 'import m; print(m.x)'") == value


async def test_sandboxes_have_shells_of_their_own(sandbox: Sandbox, tmp_path: Path) -> None:
    terminal = Terminal(sandbox, tmp_path / "spill")
    (tmp_path / "other").mkdir()
    async with await choose_sandbox(Policy(str(tmp_path / "other")), "none") as other:
        context = ToolContext(other, count_words, 4000)
        await terminal.run("A=1")
        assert (await terminal.tool(context, {"command": "pwd; echo $A"})).text == f"{tmp_path / 'other'}"
        assert await terminal.text("echo $A") == "1"
        await terminal.tool.aclose()


async def test_a_sandbox_without_programs_raises() -> None:
    context = ToolContext(MemorySandbox(), count_words, 4000)
    with pytest.raises(ProgramsUnsupported):
        await BashTool()(context, {"command": "true"})


async def test_a_shell_that_cannot_start_is_the_sandbox_s_failure(sandbox: Sandbox, tmp_path: Path) -> None:
    terminal = Terminal(sandbox, tmp_path / "spill")
    workspace = Path(sandbox.policy.workspace)
    policy = sandbox.policy
    assert await terminal.text("true") == "(no output)"
    await terminal.tool.aclose()
    os.rename(workspace, tmp_path / "moved")
    with pytest.raises(SandboxCrashed, match="No such file or directory"):
        await terminal.run("true")
    assert policy.workspace == str(workspace)
