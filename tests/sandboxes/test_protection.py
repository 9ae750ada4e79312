"""Repositories and secret files under each provider."""

import os
from pathlib import Path

import pytest

from dsv4agent.sandboxes import Enforcement, Policy, Sandbox, SandboxUnavailable, choose_sandbox
from dsv4agent.sandboxes._launcher import landlock_abi
from dsv4agent.sandboxes.landlock import LEAST_ABI
from tests.sandboxes.test_survey import git, repository

pytestmark = pytest.mark.anyio
COMMIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x")


async def opened(policy: Policy) -> Sandbox:
    try:
        return await choose_sandbox(policy, "bubblewrap")
    except SandboxUnavailable as error:
        pytest.skip(str(error))


async def test_a_repository_is_read_only_to_programs_and_files(workspace: Path) -> None:
    repository(workspace / "main")
    hook = workspace / "main/.git/hooks/pre-commit"
    async with await opened(Policy(str(workspace))) as sandbox:
        assert sandbox.report.guarantees["repositories"] is Enforcement.FULL
        for script in (
            "echo x > .git/hooks/pre-commit",
            "git config core.fsmonitor evil",
            "mv .git moved",
            "rm -rf .git",
            "cd .. && mv main other && mkdir -p main/.git/hooks && echo x > main/.git/hooks/pre-commit",
        ):
            await sandbox.run(["bash", "-c", f"cd main; {script}"])
            assert not hook.exists() and b"evil" not in (workspace / "main/.git/config").read_bytes()
        with pytest.raises(OSError):
            await sandbox.write_bytes(str(hook), b"x")
        assert (await sandbox.run(["git", "-C", "main", "log", "--oneline"])).exit_code == 0
        done = await sandbox.run(COMMIT, cwd=str(workspace / "main"))
        assert done.exit_code != 0
        done = await sandbox.run(COMMIT, cwd=str(workspace / "main"), repositories=True)
        assert done.exit_code == 0, done.stderr
        process = await sandbox.spawn(COMMIT, cwd=str(workspace / "main"), repositories=True)
        assert await process.wait() == 0
    (workspace / "main/.git/HEAD").read_text()


async def test_submodules_are_protected_with_their_folders(workspace: Path) -> None:
    repository(workspace.parent / "library")
    repository(workspace / "main")
    git(workspace / "main", "submodule", "add", "-q", str(workspace.parent / "library"), "sub")
    async with await opened(Policy(str(workspace / "main"))) as sandbox:
        for script in ("echo 'gitdir: /tmp' > sub/.git", "mv sub other", "echo x > .git/modules/sub/config"):
            assert (await sandbox.run(["bash", "-c", script])).exit_code != 0
        assert (await sandbox.run(COMMIT, cwd=str(workspace / "main/sub"), repositories=True)).exit_code == 0


async def test_a_linked_worktree_commits_to_the_folder_outside(workspace: Path) -> None:
    main = repository(workspace.parent / "main")
    git(main, "worktree", "add", "-q", str(workspace / "tree"))
    policy = Policy(str(workspace / "tree"))
    async with await opened(policy) as sandbox:
        assert (await sandbox.run(["git", "log"])).exit_code == 0
        assert (await sandbox.run(COMMIT)).exit_code != 0
        assert (await sandbox.run(["touch", f"{main}/.git/new"])).exit_code != 0
        done = await sandbox.run(COMMIT, repositories=True)
        assert done.exit_code == 0, done.stderr
        await sandbox.run(["touch", f"{main}/new"], repositories=True)
        assert not (main / "new").exists()


async def test_a_pointer_that_git_does_not_know_opens_nothing(workspace: Path) -> None:
    victim = repository(workspace.parent / "victim")
    git(victim, "worktree", "add", "-q", str(workspace.parent / "real"))
    (workspace / ".git").write_text((workspace.parent / "real/.git").read_text())
    async with await opened(Policy(str(workspace))) as sandbox:
        done = await sandbox.run(["touch", f"{victim}/.git/new"], repositories=True)
        assert done.exit_code != 0 and not (victim / ".git/new").exists()


async def test_protection_can_be_switched_off(workspace: Path) -> None:
    repository(workspace / "main")
    (workspace / ".env").write_text("TOKEN=1\n")
    policy = Policy(str(workspace), mask_env_files=False, protect_repositories=False)
    for name in ("bubblewrap", "landlock"):
        try:
            sandbox = await choose_sandbox(policy, name)
        except SandboxUnavailable as error:
            pytest.skip(str(error))
        async with sandbox:
            assert sandbox.report.guarantees["secrets"] is Enforcement.NONE
            assert "secrets: switched off by the policy" in sandbox.report.notes
            assert (await sandbox.run(["cat", ".env"])).stdout == b"TOKEN=1\n"
            assert (await sandbox.run(COMMIT, cwd=str(workspace / "main"))).exit_code == 0


async def test_secret_files_look_empty(workspace: Path) -> None:
    (workspace / "api").mkdir()
    secrets = [workspace / ".env", workspace / "api" / ".env.local"]
    for secret in secrets:
        secret.write_text("TOKEN=1\n")
    (workspace / ".env.example").write_text("TOKEN=\n")
    async with await opened(Policy(str(workspace))) as sandbox:
        for secret in secrets:
            for script in (f"cat {secret}", f"mv {secret} moved; cat moved", f"ln {secret} hard; cat hard"):
                assert (await sandbox.run(["bash", "-c", script])).stdout == b""
            assert await sandbox.read_bytes(str(secret)) == b""
            with pytest.raises(OSError):
                await sandbox.write_bytes(str(secret), b"x")
            assert secret.read_text() == "TOKEN=1\n"
        assert await sandbox.read_bytes(str(workspace / ".env.example")) == b"TOKEN=\n"


async def test_a_folder_with_a_secret_cannot_be_moved_from_under_its_mask(workspace: Path) -> None:
    (workspace / "a/b").mkdir(parents=True)
    (workspace / "a/b/.env").write_text("TOKEN=1\n")
    async with await opened(Policy(str(workspace))) as sandbox:
        await sandbox.run(["bash", "-c", "mv a moved; mv a/b moved; mkdir -p a/b; touch a/b/.env"])
        done = await sandbox.run(["bash", "-c", "cat $(find . -name .env)"])
        assert (done.exit_code, done.stdout) == (0, b"")
        done = await sandbox.run(["bash", "-c", "echo x > a/b/file && mv a/b/file a/file && cat a/file"])
        assert done.stdout == b"x\n"


async def test_masks_follow_what_the_host_moves_and_replaces(workspace: Path) -> None:
    (workspace / "a").mkdir()
    (workspace / "a/.env").write_text("TOKEN=1\n")
    async with await opened(Policy(str(workspace))) as sandbox:
        assert await sandbox.read_bytes(str(workspace / "a/.env")) == b""
        os.rename(workspace / "a", workspace / "b")
        assert (await sandbox.run(["cat", "b/.env"])).stdout == b""
        assert not (workspace / "a").exists()
        (workspace / "b/.env").unlink()
        assert (await sandbox.run(["ls", "-A", "b"])).stdout == b""
        (workspace / "b/.env").write_text("TOKEN=2\n")
        assert await sandbox.read_bytes(str(workspace / "b/.env")) == b""
        assert (await sandbox.run(["cat", "b/.env"])).stdout == b""
        # What a program makes is its own.
        await sandbox.run(["bash", "-c", "echo mine > .env"])
        assert (await sandbox.run(["cat", ".env"])).stdout == b"mine\n"


async def test_masks_of_the_policy_cannot_be_moved_away_either(workspace: Path) -> None:
    (workspace / "config/cloud").mkdir(parents=True)
    (workspace / "config/cloud/key").write_text("secret")
    async with await opened(Policy(str(workspace), masked=(str(workspace / "config/cloud"),))) as sandbox:
        await sandbox.run(["mv", "config", "moved"])
        assert (await sandbox.run(["bash", "-c", "cat */cloud/key"])).stdout == b""


async def test_landlock_refuses_what_it_cannot_hide(workspace: Path) -> None:
    if landlock_abi() < LEAST_ABI:
        pytest.skip("no Landlock")
    (workspace / ".env").write_text("TOKEN=1\n")
    with pytest.raises(SandboxUnavailable) as caught:
        await choose_sandbox(Policy(str(workspace)), "landlock")
    for part in (str(workspace / ".env"), "install bubblewrap", "Policy(mask_env_files=False)"):
        assert part in str(caught.value)


async def test_auto_does_not_give_up_a_mask(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (workspace / ".env").write_text("TOKEN=1\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="no sandbox works"):
        await choose_sandbox(Policy(str(workspace)))


async def test_landlock_says_that_repositories_are_open(workspace: Path) -> None:
    repository(workspace / "main")
    try:
        sandbox = await choose_sandbox(Policy(str(workspace)), "landlock")
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    async with sandbox:
        assert sandbox.report.guarantees["repositories"] is Enforcement.NONE
        assert any(note.startswith("repositories: Landlock cannot") for note in sandbox.report.notes)


async def test_what_only_root_may_read_stays_closed(workspace: Path) -> None:
    """Root owns the files even without capabilities, so permissions alone would not do."""
    for name in ("bubblewrap", "landlock"):
        try:
            sandbox = await choose_sandbox(Policy(str(workspace)), name)
        except SandboxUnavailable as error:
            pytest.skip(str(error))
        async with sandbox:
            done = await sandbox.run(["bash", "-c", "cat /etc/shadow /etc/gshadow; ls -A /var/spool"])
            assert done.stdout == b""
            assert (await sandbox.run(["head", "-c", "1", "/proc/kcore"])).stdout == b""
