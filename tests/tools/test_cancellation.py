"""Tools cancelled at random moments leave nothing behind. More: `python -m tests.tools.cancel_sweep`."""

from pathlib import Path

import pytest

from tests.tools.cancellation import ROWS, Sweep

pytestmark = pytest.mark.anyio

TRIALS = 120


@pytest.mark.parametrize("name", list(ROWS))
async def test_cancelled_calls_leave_nothing_behind(name: str, tmp_path: Path) -> None:
    cancelled = await Sweep(ROWS[name], tmp_path, "none", seed=1).run(TRIALS // len(ROWS))
    assert cancelled > 2, "the moments of cancellation are too late for this call"
