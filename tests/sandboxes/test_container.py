"""The container provider under an engine of this machine, with an image made of its own programs."""

import os
import time
from pathlib import Path

import pytest

from dsv4agent.sandboxes import (
    Enforcement,
    Network,
    Policy,
    ResourceLimits,
    Sandbox,
    SandboxUnavailable,
    choose_sandbox,
)
from dsv4agent.sandboxes.container import IMAGE_VARIABLE
from dsv4agent.sandboxes.selfcheck import self_check
from tests.sandboxes import container_image
from tests.sandboxes.test_survey import repository

pytestmark = pytest.mark.anyio


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> str:
    name = container_image.image()
    if name is None:
        pytest.skip("no container engine that runs here, or no image can be made")
    monkeypatch.setenv(IMAGE_VARIABLE, name)
    return name


async def opened(policy: Policy) -> Sandbox:
    try:
        return await choose_sandbox(policy, "container")
    except SandboxUnavailable as error:
        pytest.skip(str(error))


async def test_programs_and_files_share_the_workspace_alone(image: str, workspace: Path) -> None:
    async with await opened(Policy(str(workspace), env={"GIVEN": "a b"})) as sandbox:
        levels = dict(sandbox.report.guarantees)
        assert set(levels.values()) == {Enforcement.FULL}
        script = "cat; pwd; echo $GIVEN $HOME; echo x > made; echo err >&2; exit 5"
        done = await sandbox.run(["bash", "-c", script], input=b"in\n")
        assert (done.exit_code, done.stderr) == (5, b"err\n")
        assert done.stdout == f"in\n{workspace}\na b /tmp/home\n".encode()
        assert (workspace / "made").stat().st_uid == os.geteuid()
        await sandbox.write_bytes(f"{workspace}/a/b", b"data")
        assert (await sandbox.run(["cat", "a/b"])).stdout == b"data"
        assert not (await sandbox.run(["ls", str(Path(__file__).parent)])).stdout
        process = await sandbox.spawn(["bash", "-c", "echo out; echo mark >&3"])
        assert await process.read_control() == b"mark\n"
        assert await process.wait() == 0
        assert await process.read() == b"out\n"


async def test_trees_end_though_they_are_not_below_us(image: str, workspace: Path) -> None:
    beat = workspace / "beat"
    loop = f"trap '' TERM; while :; do echo . >> {beat}; sleep 0.05; done"
    async with await opened(Policy(str(workspace))) as sandbox:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await sandbox.run(["bash", "-c", f'setsid bash -c "{loop}" & {loop}'], timeout=0.5)
        assert time.monotonic() - started < 20
        size = beat.stat().st_size
        assert (await sandbox.run(["sleep", "0.3"])).exit_code == 0
        assert beat.stat().st_size == size


async def test_limits_are_the_engine_s_and_are_told(image: str, workspace: Path) -> None:
    limits = ResourceLimits(memory_bytes=128 << 20, processes=64)
    async with await opened(Policy(str(workspace), limits=limits)) as sandbox:
        done = await sandbox.run(["python3", "-c", "x = b'a' * (300 << 20)"])
        assert (done.exit_code, done.limit) == (137, "memory limit of 128 MiB")
        done = await sandbox.run(["bash", "-c", "for i in $(seq 200); do sleep 5 & done"], timeout=60)
        assert b"fork" in done.stderr or done.exit_code != 0


async def test_repositories_and_secrets_are_covered(image: str, workspace: Path) -> None:
    repository(workspace / "main")
    (workspace / ".env").write_text("TOKEN=1\n")
    async with await opened(Policy(str(workspace))) as sandbox:
        assert (await sandbox.run(["cat", ".env"])).stdout == b""
        assert (await sandbox.run(["touch", "main/.git/new"])).exit_code != 0
        assert (await sandbox.run(["touch", "main/.git/new"], repositories=True)).exit_code == 0
        assert (await sandbox.run(["cat", ".env"], repositories=True)).stdout == b""


async def test_hosts_cannot_be_allowed_one_by_one(image: str, workspace: Path) -> None:
    await (await opened(Policy(str(workspace)))).aclose()
    policy = Policy(str(workspace), network=Network.only("example.org"))
    with pytest.raises(SandboxUnavailable, match="use bubblewrap"):
        await choose_sandbox(policy, "container")


@pytest.mark.slow
async def test_nothing_gets_out(image: str, workspace: Path) -> None:
    await (await opened(Policy(str(workspace)))).aclose()
    results = await self_check(lambda policy: choose_sandbox(policy, "container"))
    assert [result for result in results if not result.passed] == []


@pytest.mark.parametrize("engine", ["none", "dead", "no image", "wrong image"])
async def test_what_is_missing_is_said(
    engine: str, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {
        "none": "neither podman nor docker is installed",
        "dead": "does not run here: no service",
        "no image": f"{IMAGE_VARIABLE} names no image",
        "wrong image": "the container does not start: no such image",
    }[engine]
    monkeypatch.setenv(IMAGE_VARIABLE, "" if engine == "no image" else "no-such-image:1")
    if engine != "none":
        fake = tmp_path / "podman"
        if engine == "dead":
            fake.write_text("#!/bin/sh\necho no service >&2; exit 1\n")
        else:
            fake.write_text('#!/bin/sh\n[ "$1" = info ] || { echo no such image >&2; exit 125; }\n')
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match=expected) as caught:
        await choose_sandbox(Policy(str(workspace)), "container")
    assert IMAGE_VARIABLE in str(caught.value)
