"""Cancels every tool of the table at random moments: `python -m tests.tools.cancel_sweep --count 300`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import anyio

from dsv4agent.sandboxes.choice import ProviderName
from tests.tools.cancel_rows import ROWS
from tests.tools.cancellation import Sweep


async def sweep(count: int, seed: int, provider: ProviderName, names: list[str]) -> None:
    """Run `count` trials, in equal parts for each row that works in the sandbox."""
    names = [name for name in names if provider not in ROWS[name].not_on]
    each = -(-count // len(names))
    for name in names:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="dsv4agent-sweep-", dir="/var/tmp") as folder:
            cancelled = await Sweep(ROWS[name], Path(folder), provider, seed).run(each)
        seconds = time.monotonic() - begin
        print(f"{name}: {each} trials, {cancelled} cancelled before their end, {seconds:.1f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="trials in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sandbox", choices=["auto", "bubblewrap", "landlock", "none"], default="none")
    parser.add_argument("--row", choices=list(ROWS), action="append", help="only this row; may be repeated")
    options = parser.parse_args()
    anyio.run(sweep, options.count, options.seed, options.sandbox, options.row or list(ROWS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
