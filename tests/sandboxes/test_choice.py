from pathlib import Path
from typing import cast

import pytest

from dsv4agent.sandboxes import Enforcement, Policy, SandboxError, SandboxUnavailable, choose_sandbox, probe
from dsv4agent.sandboxes.choice import ProviderName

pytestmark = pytest.mark.anyio


async def test_auto_takes_the_first_that_works(workspace: Path) -> None:
    working = [status.name for status in await probe() if status.available]
    if not working:
        with pytest.raises(SandboxUnavailable):
            await choose_sandbox(Policy(str(workspace)))
        return
    async with await choose_sandbox(Policy(str(workspace))) as sandbox:
        assert sandbox.report.provider == working[0]


async def test_probe_reports_what_was_enforced_or_why_not() -> None:
    statuses = await probe()
    assert [status.name for status in statuses] == ["bubblewrap", "landlock", "container"]
    for status in statuses:
        if status.available:
            assert status.report is not None and status.reason == ""
            levels = status.report.guarantees
            broken = [name for name, level in levels.items() if level is Enforcement.NONE]
            assert broken == (["repositories"] if status.name == "landlock" else [])
            less = [name for name, level in levels.items() if level is not Enforcement.FULL]
            assert [note.split(":")[0] for note in status.report.notes] == less
        else:
            assert status.report is None and status.reason


async def test_without_bwrap_the_error_says_what_to_install(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="install the package `bubblewrap`"):
        await choose_sandbox(Policy(str(workspace)), "bubblewrap")


async def test_a_broken_bwrap_is_not_believed(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program that runs its command without any cage must be found out by the trial."""
    fake = tmp_path / "bwrap"
    fake.write_text('#!/bin/bash\nwhile [ "$1" != -- ]; do shift; done; shift; exec "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SandboxUnavailable, match="bubblewrap does not enforce"):
        await choose_sandbox(Policy(str(workspace)), "bubblewrap")


async def test_a_failing_bwrap_is_quoted(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/bash\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SandboxUnavailable, match="No permissions to create new namespace"):
        await choose_sandbox(Policy(str(workspace)), "bubblewrap")


async def test_nothing_is_chosen_silently(workspace: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="use auto, bubblewrap, landlock, container, none"):
        await choose_sandbox(Policy(str(workspace)), cast("ProviderName", "jail"))


async def test_none_says_that_nothing_is_confined(workspace: Path) -> None:
    async with await choose_sandbox(Policy(str(workspace)), "none") as sandbox:
        assert sandbox.report.guarantees["writes"] is Enforcement.NONE
        assert sandbox.report.guarantees["environment"] is Enforcement.FULL
        assert sandbox.report.notes[0] == "nothing is confined, as asked for by name"


@pytest.mark.parametrize("folder", ["/", "relative", "/no/such/folder", "/etc/passwd"])
async def test_impossible_workspaces_are_refused(folder: str) -> None:
    for name in ("bubblewrap", "landlock", "none"):
        with pytest.raises(SandboxError):
            await choose_sandbox(Policy(folder), cast("ProviderName", name))
