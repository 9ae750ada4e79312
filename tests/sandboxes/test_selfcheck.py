import pytest

from dsv4agent.sandboxes import Policy, Sandbox, SandboxUnavailable, choose_sandbox
from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.sandboxes.selfcheck import CHECKS, self_check

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", ["bubblewrap", "landlock"])
async def test_nothing_gets_out(name: ProviderName) -> None:
    async def open_sandbox(policy: Policy) -> Sandbox:
        return await choose_sandbox(policy, name)

    try:
        results = await self_check(open_sandbox)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    assert {result.name for result in results} == {*CHECKS, "daemons_die_with_the_sandbox"}
    assert [result for result in results if not result.passed and not result.skipped] == []
    skipped = {result.name for result in results if result.skipped}
    assert skipped == (
        {"repositories_are_read_only", "secret_files_look_empty"} if name == "landlock" else set()
    )
    assert all(result.detail for result in results if result.skipped)


async def test_the_checks_see_what_an_open_cage_lets_through() -> None:
    """A check that nothing can fail checks nothing: without a cage these must all object."""

    async def open_sandbox(policy: Policy) -> Sandbox:
        return await choose_sandbox(policy, "none")

    failed = {result.name: result.detail for result in await self_check(open_sandbox) if not result.passed}
    assert failed.keys() >= {
        "shell_writes_stay_inside",
        "file_writes_stay_inside",
        "masked_files_stay_hidden",
        "network_is_unreachable",
        "environment_is_scrubbed",
        "host_processes_are_safe",
        "no_new_powers",
        "repositories_are_read_only",
        "secret_files_look_empty",
    }
    assert all(failed.values())
    # These hold without a cage too: they are the machinery's own.
    assert not failed.keys() & {
        "workspace_is_shared",
        "special_files_are_refused",
        "daemons_die_with_the_sandbox",
    }
