import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from dsv4agent.sandboxes import MemorySandbox, ProgramsUnsupported, SandboxCrashed, SandboxUnavailable
from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.tools import Status, ToolContext
from dsv4agent.tools.python import PythonTool
from tests.tools.editor_desk import count_words
from tests.tools.shell_desk import Desk, appears, is_still, open_desk

pytestmark = pytest.mark.anyio

FRESH = "the next call starts a fresh interpreter without the variables"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path, [PythonTool()]) as opened:
        yield opened


async def run(desk: Desk, code: str, timeout: int = 60) -> str:
    return await desk.text("python", code=code, timeout=timeout)


@pytest.mark.parametrize("provider", ["bubblewrap", "landlock"])
async def test_state_errors_and_interruption_in_real_cages(provider: ProviderName, tmp_path: Path) -> None:
    try:
        async with open_desk(tmp_path, [PythonTool()], provider) as desk:
            assert await run(desk, "import os, time; x = 6\nos.getcwd()") == repr(str(desk.workspace))
            assert await run(desk, "time.sleep(100)", timeout=1) == (
                "timeout: interrupted after 1 s; variables are kept\n"
                'Traceback (most recent call last):\n  File "<call 2>", line 1, in <module>\n'
                "    time.sleep(100)\nKeyboardInterrupt"
            )
            assert await run(desk, "x * 7") == "42"
            killed = await desk.call("python", code="os.kill(os.getpid(), 9)")
            assert killed.text == f"crashed: the interpreter was killed by SIGKILL; {FRESH}"
            assert (killed.status, killed.code, killed.signal) == (Status.ERROR, "crashed", 9)
            assert "NameError: name 'x' is not defined" in await run(desk, "x")
            assert "PermissionError" in await run(desk, "open('/etc/new', 'w')") or (
                "Read-only file system" in await run(desk, "open('/etc/new', 'w')")
            )
    except SandboxUnavailable as error:
        pytest.skip(str(error))


async def test_the_last_expression_is_shown_as_in_a_repl(desk: Desk) -> None:
    assert await run(desk, "a = 1\n'text'") == "'text'"
    assert await run(desk, "None") == "(no output)"
    assert await run(desk, "print('p'); a + 1") == "p\n2"
    assert await run(desk, "_ * 10") == "20"
    assert await run(desk, "for i in range(2): i") == "(no output)"
    assert await run(desk, "'only a string'") == "'only a string'"
    assert await run(desk, "") == "(no output)"


async def test_everything_printed_comes_in_order(desk: Desk) -> None:
    code = (
        "import ctypes, os, subprocess, sys\n"
        "print('one', end=' ')\n"
        "ctypes.CDLL(None).printf(b'two ')\n"
        "os.system('printf \"three \"')\n"
        "sys.stderr.write('four ')\n"
        "subprocess.run(['sh', '-c', 'printf \"five \" >&2'])\n"
        "os.write(1, b'six ')\n"
        "print('seven')\n"
    )
    assert await run(desk, code) == "one two three four five six seven"


async def test_tracebacks_show_the_code_s_own_lines_only(desk: Desk) -> None:
    await run(desk, "def divide(a, b):\n    return a / b  # here\n")
    result = await desk.call("python", code="def f():\n    divide(1, 0)\n\nf()")
    assert result.text == (
        "Traceback (most recent call last):\n"
        '  File "<call 2>", line 4, in <module>\n    f()\n'
        '  File "<call 2>", line 2, in f\n    divide(1, 0)\n'
        '  File "<call 1>", line 2, in divide\n    return a / b  # here\n           ~~^~~\n'
        "ZeroDivisionError: division by zero"
    )
    assert (result.status, result.exit_code) == (Status.OK, 1)
    broken = await run(desk, "x = 1\nif x\n    y")
    assert broken == "  File \"<call 3>\", line 2\n    if x\n        ^\nSyntaxError: expected ':'"
    late = await run(desk, "x = 1\nreturn x")
    assert late.startswith('  File "<call 4>", line 2\n    return x\n') and "outside function" in late
    chained = await run(desk, "try:\n    divide(1, 0)\nexcept ZeroDivisionError:\n    raise KeyError('k')")
    assert "python_server" not in chained and "During handling of the above exception" in chained


async def test_a_failed_call_keeps_what_was_done(desk: Desk) -> None:
    await run(desk, "kept = 1\nraise ValueError")
    assert await run(desk, "kept") == "1"


async def test_future_features_last(desk: Desk) -> None:
    await run(desk, "from __future__ import annotations")
    assert await run(desk, "def f(x: missing): ...\nf.__annotations__") == "{'x': 'missing'}"


async def test_await_at_top_level_in_one_event_loop(desk: Desk) -> None:
    code = (
        "import asyncio\nqueue = asyncio.Queue()\nasync def main():\n    return 3\n"
        "task = asyncio.create_task(queue.get())\nawait asyncio.sleep(0)"
    )
    assert await run(desk, code) == "(no output)"
    assert await run(desk, "await queue.put(5)\nawait task + await main()") == "8"
    interrupted = await run(
        desk, "try:\n    await asyncio.sleep(100)\nfinally:\n    print('tidy')", timeout=1
    )
    assert interrupted.startswith("timeout: interrupted after 1 s; variables are kept\ntidy\n")
    assert await run(desk, "await asyncio.sleep(0, 'loop lives')") == "'loop lives'"


async def test_input_fails_fast_with_a_hint(desk: Desk) -> None:
    text = await run(desk, "input('name? ')")
    assert text.startswith("name? Traceback")
    assert text.endswith(
        "EOFError: EOF when reading a line\n"
        "[standard input is empty and no terminal: give input with a pipe, < FILE or an option]"
    )


async def test_sys_exit_leaves_the_interpreter(desk: Desk) -> None:
    assert await run(desk, "import sys; y = 1; sys.exit(3)") == (
        "[sys.exit(3) was called; the interpreter goes on]"
    )
    assert await run(desk, "y") == "1"


async def test_a_crash_says_so_and_the_next_call_starts_fresh(desk: Desk) -> None:
    result = await desk.call("python", code="import os\nz = 1\nprint('before')\nos._exit(4)")
    assert result.text == f"crashed: the interpreter ended with exit code 4; {FRESH}\nbefore"
    assert (result.status, result.exit_code) == (Status.ERROR, 4)
    assert "NameError" in await run(desk, "z")
    fault = await run(desk, "import ctypes; ctypes.string_at(0)")
    assert fault.startswith(f"crashed: the interpreter was killed by SIGSEGV; {FRESH}\n")
    assert 'File "<call 2>", line 1' in fault


async def test_a_loop_is_interrupted_with_its_children(desk: Desk) -> None:
    beat = "while :; do echo . >> beat; sleep 0.02; done"
    text = await run(desk, f"import os\nmark = 1\nwhile True: os.system({beat!r})", timeout=1)
    assert text.startswith("timeout: interrupted after 1 s") or text.startswith("timeout: stopped after 1 s")
    assert is_still(desk.workspace / "beat")


async def test_what_cannot_be_interrupted_is_killed(desk: Desk) -> None:
    code = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('on')\ntime.sleep(100)"
    result = await desk.call("python", code=code, timeout=1)
    assert result.text == f"timeout: stopped after 1 s; {FRESH}\non"
    assert (result.status, result.code) == (Status.TIMEOUT, "timeout")
    assert await run(desk, "1") == "1"


async def test_cancellation_interrupts_and_keeps_state(desk: Desk) -> None:
    await run(desk, "import time; kept = 1")
    with anyio.move_on_after(0.5) as scope:
        await run(desk, "while True:\n    open('beat', 'a').write('.')\n    time.sleep(0.01)")
    assert scope.cancelled_caught
    assert is_still(desk.workspace / "beat")
    assert await run(desk, "kept") == "1"


async def test_forked_children_neither_answer_nor_hold_up(desk: Desk) -> None:
    begin = time.monotonic()
    code = "import os\nif os.fork() == 0:\n    print('child')\nelse:\n    os.wait()\n    print('parent')"
    assert await run(desk, code) == "child\nparent"
    daemon = "if os.fork() == 0:\n    import time; open('up', 'w').write('1'); time.sleep(100)"
    assert await run(desk, daemon) == "(no output)"
    await appears(desk.workspace / "up")
    assert await run(desk, "1") == "1"
    assert (await run(desk, "os._exit(0)")).startswith("crashed: the interpreter ended with exit code 0;")
    assert time.monotonic() - begin < 20


async def test_classes_of_the_code_can_be_pickled_and_imports_come_from_the_workspace(desk: Desk) -> None:
    (desk.workspace / "helper.py").write_text("value = 11\n")
    assert await run(desk, "import helper; helper.value") == "11"
    code = "import pickle\nclass Point:\n    x = 1\npickle.loads(pickle.dumps(Point())).x"
    assert await run(desk, code) == "1"
    await run(desk, "def f():\n    return 1")
    assert await run(desk, "import inspect; inspect.getsource(f)") == "'def f():\\n    return 1'"


async def test_long_output_is_cut_and_kept(tmp_path: Path) -> None:
    async with open_desk(tmp_path, [PythonTool()], budget=200) as desk:
        result = await desk.call("python", code="for i in range(5000): print(i)")
        kept = tmp_path / "spill" / "python-1.txt"
        assert result.truncated is not None and result.truncated.path == kept
        assert count_words(result.text) <= 200 and result.text.endswith("\n4999")
        assert kept.read_text() == "".join(f"{i}\n" for i in range(5000))


async def test_a_lone_surrogate_in_the_code_is_an_error_of_the_code(desk: Desk) -> None:
    assert "UnicodeEncodeError" in await run(desk, "x = '\ud800'")
    assert "null bytes" in await run(desk, "x = '\0'")
    assert await run(desk, "1") == "1"


async def test_code_that_writes_to_the_private_channel_only_harms_itself(desk: Desk) -> None:
    await run(desk, "import contextlib, os")
    code = (
        "for name in os.listdir('/proc/self/fd'):\n"
        "    if int(name) > 2:\n"
        "        with contextlib.suppress(OSError):\n"
        "            os.write(int(name), b'{}\\n')"
    )
    result = await desk.call("python", code=code)
    assert result.text.startswith("crashed: the code wrote to the interpreter's private descriptors")
    assert (result.status, result.exit_code) == (Status.ERROR, None)
    assert "NameError" in await run(desk, "os")
    assert await run(desk, "import os; os.closerange(3, 100); os.open('/dev/null', 0)") == "3"
    assert await run(desk, "2") == "2"
    assert (await run(desk, "os.closerange(3, 1000)", timeout=20)).startswith("crashed: ")
    assert await run(desk, "2") == "2"


async def test_an_interpreter_that_cannot_start_is_the_sandbox_s_failure(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "workspace").rename(tmp_path / "moved")
    with pytest.raises(SandboxCrashed, match="No such file or directory"):
        await run(desk, "1")


async def test_a_sandbox_without_programs_raises() -> None:
    with pytest.raises(ProgramsUnsupported):
        await PythonTool()(ToolContext(MemorySandbox(), count_words, 100), {"code": "1"})
