from collections.abc import Callable

import pytest

from tests.tools.editor_desk import EditorDesk


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def make_desk() -> Callable[..., EditorDesk]:
    return EditorDesk
