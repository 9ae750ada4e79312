"""Run golden vectors: `python -m tests.golden DIR` checks every line of every vector file in DIR."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.golden.runner import run_directory


def main(arguments: list[str]) -> int:
    """Return the exit status: 0 if no vector fails, 1 if one does, 2 if there is none to run."""
    if len(arguments) != 1:
        print("usage: python -m tests.golden DIR", file=sys.stderr)
        return 2
    directory = Path(arguments[0])
    reports = run_directory(directory) if directory.is_dir() else []
    if not sum(report.count for report in reports):
        print(
            f"{directory} holds no encode, parse, recover, api_render or tokens vectors (*.jsonl).",
            file=sys.stderr,
        )
        return 2
    for report in reports:
        print(f"{report.name}: {report.count} vectors, {len(report.failures)} failed")
        for failure in report.failures:
            print(f"  FAILED {failure.name}: {failure.why}")
    return 1 if any(report.failures for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
