from collections.abc import AsyncGenerator

import pytest

from tests.attacks.attack import PROVIDERS
from tests.attacks.runner import Theatre


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=PROVIDERS)
async def theatre(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncGenerator[Theatre]:
    async with Theatre(request.param) as theatre:
        yield theatre


@pytest.fixture(scope="module")
async def open_theatre(anyio_backend: str) -> AsyncGenerator[Theatre]:
    """A stage without a cage."""
    async with Theatre("none") as theatre:
        yield theatre
