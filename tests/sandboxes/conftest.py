from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dsv4agent.sandboxes import Policy, Sandbox, SandboxUnavailable, choose_sandbox
from dsv4agent.sandboxes.choice import ProviderName


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture(params=["bubblewrap", "landlock", "none"])
def provider(request: pytest.FixtureRequest) -> ProviderName:
    return request.param


@pytest.fixture
async def sandbox(provider: ProviderName, workspace: Path) -> AsyncIterator[Sandbox]:
    """A sandbox of each provider that works here; why one does not is the reason of the skip."""
    try:
        opened = await choose_sandbox(Policy(str(workspace)), provider)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    async with opened:
        yield opened
