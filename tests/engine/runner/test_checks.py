"""The checks that run for minutes on a card, briefly."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
import torch

from dsv4agent.engine import Engine
from dsv4agent.engine.runner.equality import run_trials
from dsv4agent.engine.runner.runner import Runner
from dsv4agent.engine.runner.state import Capacity
from dsv4agent.engine.runner.weights import pack_weights
from dsv4agent.engine.soak import holdings, soak, warm_up
from dsv4agent.engine.weights.loader import Checkpoint

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="takes minutes in the interpreter")


def test_trials_compare_every_row(checkpoint: Checkpoint, device: torch.device) -> None:
    runner = Runner(checkpoint.config, pack_weights(checkpoint, device), Capacity.of(32, 512, 256), device)
    (trial,) = run_trials(runner, 1, longest=300)
    assert trial.different == 0
    assert trial.rows == trial.tokens + trial.decoded
    (broken,) = run_trials(runner, 1, longest=300, same=lambda _a, _b: False)
    assert broken.different == broken.rows == trial.rows
    assert runner.sequences.count == 0


def test_nothing_is_lost_in_some_seconds(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with Engine.load(
        checkpoint.folder, device="cuda", compute="kernels", max_context=1024, sequences=4
    ) as engine:
        warm_up(engine)
        before = holdings(engine)
        tally = anyio.run(soak, engine, 5.0, 8, 0)
        assert holdings(engine) == before
    assert tally.tokens > 100 and tally.events["cancelled"]
