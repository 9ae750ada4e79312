"""Tools cancelled at random moments leave nothing behind. More: `python -m tests.tools.cancel_sweep`."""

from pathlib import Path

import pytest

from tests.tools.cancel_rows import ROWS
from tests.tools.cancellation import Sweep

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", list(ROWS))
async def test_cancelled_calls_leave_nothing_behind(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    cancelled = await Sweep(row, tmp_path, "none", seed=1).run(row.trials)
    assert cancelled > 1, "the moments of cancellation are too late for this call"
