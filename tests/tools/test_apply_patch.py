"""The patch tool over a real cage."""

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from dsv4agent.sandboxes import MemorySandbox
from dsv4agent.tools import Status, ToolContext
from dsv4agent.tools.apply_patch import ApplyPatchTool
from tests.tools.editor_desk import count_words
from tests.tools.patch_cases import CHANGES, Case
from tests.tools.patch_cases_whole import WHOLE
from tests.tools.real_desk import RealDesk, hard_link, link, open_desk, with_mode

pytestmark = pytest.mark.anyio

CASES = [*CHANGES, *WHOLE]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealDesk]:
    async with open_desk(tmp_path_factory.mktemp("patch")) as desk:
        yield desk


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_patch(desk: RealDesk, case: Case) -> None:
    desk.fill(case.before)
    expected = desk.contents()
    for name, content in case.after.items():
        if content is None:
            del expected[name]
        else:
            expected[name] = content.encode() if isinstance(content, str) else content
    result = await desk.call(ApplyPatchTool(), patch=case.patch)
    assert desk.contents() == expected
    assert result.text.startswith(case.text)
    if case.after:
        assert (result.status, result.code) == (Status.OK, None)
        assert result.text == case.text or case.text.endswith(": ")
    else:
        code = case.text.partition(":")[0]
        denied = code in {"outside_workspace", "permission_denied"}
        assert (result.status, result.code) == (Status.DENIED if denied else Status.ERROR, code)


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 70


async def test_modes_stay_also_when_a_file_moves(desk: RealDesk) -> None:
    desk.fill({"a.sh": with_mode(0o751, "1\n"), "b.sh": with_mode(0o440, "1\n")})
    body = "*** Update File: a.sh\n-1\n+2\n*** Update File: b.sh\n*** Move to: c.sh\n-1\n+2"
    result = await desk.call(ApplyPatchTool(), patch=f"*** Begin Patch\n{body}\n*** End Patch")
    assert result.status is Status.OK
    modes = {name: stat.S_IMODE(os.stat(desk.workspace / name).st_mode) for name in ("a.sh", "c.sh")}
    assert modes == {"a.sh": 0o751, "c.sh": 0o440}


async def test_what_is_put_back_has_its_mode_and_new_files_go(desk: RealDesk) -> None:
    desk.fill({"a.sh": with_mode(0o751, "1\n"), "out": link("/etc")})
    body = "*** Update File: a.sh\n-1\n+2\n*** Add File: new\n+1\n*** Add File: out/x\n+1"
    result = await desk.call(ApplyPatchTool(), patch=f"*** Begin Patch\n{body}\n*** End Patch")
    assert result.code == "permission_denied"
    assert stat.S_IMODE(os.stat(desk.workspace / "a.sh").st_mode) == 0o751
    assert not (desk.workspace / "new").exists()


async def test_a_hard_link_keeps_the_old_text(desk: RealDesk) -> None:
    """A file is replaced, not written into: the other name of it is another file from then on."""
    desk.fill({"a": "1\n", "b": hard_link("a")})
    await desk.call(ApplyPatchTool(), patch="*** Begin Patch\n*** Update File: a\n-1\n+2\n*** End Patch")
    assert desk.contents() == {"a": b"2\n", "b": b"1\n"}


async def test_absolute_paths_inside(desk: RealDesk) -> None:
    desk.fill({})
    path = desk.workspace / "a"
    result = await desk.call(
        ApplyPatchTool(), patch=f"*** Begin Patch\n*** Add File: {path}\n+1\n*** End Patch"
    )
    assert result.text == f"A {path} (+1)"
    assert path.read_text() == "1\n"


async def test_a_cancelled_call_ends_with_all_or_nothing(desk: RealDesk) -> None:
    names = [f"f{number}" for number in range(20)]
    body = "\n".join(f"*** Update File: {name}\n-1\n+2" for name in names)
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02):
        desk.fill(dict.fromkeys(names, "1\n"))
        with anyio.move_on_after(delay):
            await desk.call(ApplyPatchTool(), patch=f"*** Begin Patch\n{body}\n*** End Patch")
        assert len(set(desk.contents().values())) == 1


async def test_long_results_are_cut(desk: RealDesk) -> None:
    desk.fill({})
    body = "\n".join(f"*** Add File: f{number}\n+1" for number in range(100))
    result = await desk.call(ApplyPatchTool(), 300, patch=f"*** Begin Patch\n{body}\n*** End Patch")
    assert count_words(result.text) <= 300
    shown = result.text.count("\nA ") + 1
    assert result.text.endswith(f"\n[... {100 - shown} lines not shown; all was applied]")
    assert len(desk.contents()) == 100


async def test_works_on_files_in_memory(tmp_path: Path) -> None:
    sandbox = MemorySandbox({"/workspace/a": b"1\n", "/workspace/b": b"2\n"})
    body = "*** Update File: a\n*** Move to: c\n-1\n+3\n*** Delete File: b"
    context = ToolContext(sandbox, count_words, 4000)
    result = await ApplyPatchTool()(context, {"patch": f"*** Begin Patch\n{body}\n*** End Patch"})
    assert result.text == "R a -> c (+1 -1)\nD b (-1)"
    assert sandbox.files == {"/workspace/c": b"3\n"}
