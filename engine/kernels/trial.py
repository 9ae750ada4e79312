"""Checks and times every kernel at Flash's and Pro's shapes, on the card.

    python -m dsv4agent.engine.kernels.trial [--json FILE] [--only NAME] [--model flash|pro] [--seconds N]

Every kernel is compared with its torch reference on fresh random data, its rows with those of other batches,
bit by bit, and then timed: replays of a CUDA graph that goes through several sets of weights, together larger
than the second-level cache. Times of a few microseconds are those of launches. A kernel that fails is
reported in its row.
"""

from __future__ import annotations

from collections.abc import Sequence

from dsv4agent.engine.kernels.trial_cases import cases
from dsv4agent.engine.kernels.trial_shapes import FLASH, PRO
from dsv4agent.engine.kernels.trial_table import Models, run_trial

_MODELS: Models = {"flash": lambda: cases(FLASH), "pro": lambda: cases(PRO)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trial; 0 if all passed, 1 if a kernel failed, 2 without a card."""
    return run_trial("trial", _MODELS, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
