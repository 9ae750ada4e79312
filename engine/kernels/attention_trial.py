"""Checks and times the kernels of attention at Flash's and Pro's shapes, on the card.

    python -m dsv4agent.engine.kernels.attention_trial [--json FILE] [--only NAME] [--model flash|pro]

As `trial` does for the other kernels: references on fresh random data, bits against other batches, cuts and
forms, then replays of a CUDA graph on caches larger than the second-level cache, beside the floor of the same
run. Contexts are 8K, 128K and 1M tokens; steps are 1 and 8 tokens of a sequence, and a chunk of 4096.
"""

from __future__ import annotations

from collections.abc import Sequence

from dsv4agent.engine.kernels.attention_cases import FLASH, PRO, cases
from dsv4agent.engine.kernels.trial_table import Models, run_trial

_MODELS: Models = {"flash": lambda: cases(FLASH), "pro": lambda: cases(PRO)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trial; 0 if all passed, 1 if a kernel failed, 2 without a card."""
    return run_trial("attention_trial", _MODELS, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
