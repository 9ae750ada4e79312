"""The memory sandbox must fail as the kernel does: the same calls run against it and a real folder."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4agent.sandboxes import MemorySandbox, Policy, ProgramsUnsupported, Sandbox, choose_sandbox

pytestmark = pytest.mark.anyio

FILES = {"file": b"content", "folder/inner": b"", "folder/deep/leaf": b"leaf"}
PATHS = [
    "file",
    "missing",
    "folder",
    "folder/",
    "folder/inner",
    "folder/missing",
    "folder/deep/leaf",
    "file/",
    "file/below",
    "file/../file",
    "folder/../file",
    "missing/../file",
    "folder/deep/../inner",
    "./file",
    "folder//inner",
    "folder/.",
    "",
]


def memory() -> MemorySandbox:
    return MemorySandbox({f"/workspace/{name}": data for name, data in FILES.items()})


def build(folder: Path) -> None:
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


async def attempt(sandbox: Sandbox, operation: str, path: str) -> object:
    """Return what can be compared of an answer, or the name of the error."""
    try:
        if operation == "read":
            return await sandbox.read_bytes(path)
        if operation == "stat":
            return (await sandbox.stat(path)).kind
        if operation == "list":
            return [(name, described.kind) for name, described in await sandbox.list_dir(path)]
        if operation == "remove":
            await sandbox.remove(path)
            return "removed"
        await sandbox.write_bytes(path, path.rpartition("workspace")[2].encode())
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "written"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


async def test_reading_agrees_with_the_kernel(workspace: Path) -> None:
    build(workspace)
    async with await choose_sandbox(Policy(str(workspace)), "none") as real:
        for path in PATHS:
            for operation in ("read", "stat", "list"):
                expected = await attempt(real, operation, f"{workspace}/{path}")
                assert await attempt(memory(), operation, f"/workspace/{path}") == expected, (operation, path)


async def test_writing_agrees_with_the_kernel(workspace: Path) -> None:
    build(workspace)
    sandbox = memory()
    async with await choose_sandbox(Policy(str(workspace)), "none") as real:
        # Not the paths through what is no folder and back: the real one resolves them before it looks.
        for path in [path for path in PATHS if path not in {"missing/../file", "file/../file"}]:
            expected = await attempt(real, "write", f"{workspace}/{path}")
            assert await attempt(sandbox, "write", f"/workspace/{path}") == expected, path
    assert {path.removeprefix("/workspace/"): data for path, data in sandbox.files.items()} == contents(
        workspace
    )


async def test_removing_agrees_with_the_kernel(workspace: Path) -> None:
    async with await choose_sandbox(Policy(str(workspace)), "none") as real:
        for path in PATHS:
            build(workspace)
            sandbox = memory()
            expected = await attempt(real, "remove", f"{workspace}/{path}")
            assert await attempt(sandbox, "remove", f"/workspace/{path}") == expected, path
            left = {name.removeprefix("/workspace/"): data for name, data in sandbox.files.items()}
            assert left == contents(workspace)
            assert await attempt(sandbox, "list", "/workspace/folder/deep") == await attempt(
                real, "list", f"{workspace}/folder/deep"
            )


async def test_removals_outside_are_refused() -> None:
    sandbox = MemorySandbox({"/etc/x": b""})
    with pytest.raises(OSError) as caught:
        await sandbox.remove("/etc/x")
    assert caught.value.errno == errno.EROFS
    assert sandbox.files == {"/etc/x": b""}


@pytest.mark.parametrize("path", ["/etc/x", "/workspace/../x", "/workspacex/y", "/x"])
async def test_writes_outside_are_refused(path: str) -> None:
    sandbox = memory()
    with pytest.raises(OSError) as caught:
        await sandbox.write_bytes(path, b"")
    assert caught.value.errno == errno.EROFS
    assert path not in sandbox.files


@given(
    st.dictionaries(st.from_regex(r"[a-c](/[a-c]){0,2}", fullmatch=True), st.binary(max_size=4), max_size=6)
)
@settings(max_examples=50)
async def test_listings_hold_exactly_what_the_files_need(files: dict[str, bytes]) -> None:
    names = [name for name in files if not any(other.startswith(f"{name}/") for other in files)]
    sandbox = MemorySandbox({f"/workspace/{name}": files[name] for name in names})

    async def walk(path: str) -> list[str]:
        found: list[str] = []
        for name, described in await sandbox.list_dir(path):
            below = os.path.join(path, name)
            found += await walk(below) if described.kind == "dir" else [below]
        return found

    assert await walk("/workspace") == sorted(f"/workspace/{name}" for name in names)


async def test_modes_times_and_empty_folders() -> None:
    sandbox = MemorySandbox(folders=("/workspace/empty",))
    await sandbox.write_bytes("/workspace/a", b"1", mode=0o755)
    first = await sandbox.stat("/workspace/a")
    await sandbox.write_bytes("/workspace/a", b"22")
    second = await sandbox.stat("/workspace/a")
    assert (first.mode, second.mode, second.size) == (0o755, 0o755, 2)
    assert second.mtime_ns > first.mtime_ns
    assert [name for name, _ in await sandbox.list_dir("/workspace")] == ["a", "empty"]
    assert await sandbox.list_dir("/workspace/empty") == []


async def test_programs_do_not_run() -> None:
    async with MemorySandbox() as sandbox:
        with pytest.raises(ProgramsUnsupported):
            await sandbox.run(["true"])
        with pytest.raises(ProgramsUnsupported):
            await sandbox.spawn(["true"])
