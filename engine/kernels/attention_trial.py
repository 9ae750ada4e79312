"""Checks and times the kernels of attention at Flash's and Pro's shapes, on the card.

    python -m dsv4agent.engine.kernels.attention_trial [--json FILE] [--only NAME] [--model NAME] [--sweep]

As `trial` does for the other kernels: references on fresh random data, bits against other batches, cuts and
forms, then replays of a CUDA graph on caches larger than the second-level cache, beside the floor of the same
run. Contexts are 8K, 128K and 1M tokens; steps are 1 and 8 tokens of a sequence, and a chunk of 4096.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import triton

from dsv4agent.engine.kernels.attention_cases import FLASH, PRO, cases
from dsv4agent.engine.kernels.ceilings import measure_ceilings
from dsv4agent.engine.kernels.trial import Row, try_case


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trial; 0 if all passed, 1 if a kernel failed, 2 without a card."""
    parser = argparse.ArgumentParser(prog="python -m dsv4agent.engine.kernels.attention_trial")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument("--model", choices=("flash", "pro"), help="shapes of one model only")
    parser.add_argument("--sweep", action="store_true", help="also try other plans")
    parser.add_argument("--seconds", type=float, default=220.0, help="skip what is left after this time")
    parser.add_argument("--seed", type=int, default=None, help="of the data; drawn if not given")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stdout.write("needs a CUDA device\n")
        return 2
    started = time.monotonic()
    torch.backends.cuda.matmul.allow_tf32 = False
    seed = torch.seed() % 2**32 if options.seed is None else options.seed
    ceilings = measure_ceilings()
    product = ceilings.operations["bf16"]
    versions = f"torch {torch.__version__}, triton {triton.__version__}"
    _write(f"{torch.cuda.get_device_name()}, {versions}, seed {seed}")
    _write(f"streaming read {ceilings.read / 1e9:.0f} GB/s, products bf16 {product / 1e12:.0f} TFLOP/s")
    _write(_HEADER)
    rows: list[Row] = []
    for model in (FLASH, PRO):
        if options.model not in (None, model.name):
            continue
        for case in cases(model, sweep=options.sweep):
            if options.only not in case.kernel:
                continue
            if time.monotonic() - started > options.seconds:
                row = Row(model.name, case.kernel, case.shape, failure="not tried: out of time")
            else:
                row = try_case(model.name, case, ceilings, torch.Generator("cuda").manual_seed(seed))
            rows.append(row)
            _write(_line(row))
            if options.json:
                options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    failed = sum(not row.passed for row in rows)
    _write(f"{len(rows)} cases, {failed} not passed, {time.monotonic() - started:.0f} s")
    return int(failed > 0)


_HEADER = f"{'model':5} {'kernel':14} {'shape':30} {'error':>8} {'bits':>6} {'us':>10} GB/s  TF/s share"


def _line(row: Row) -> str:
    start = f"{row.model:5} {row.kernel:14} {row.shape:30}"
    if row.failure:
        return f"{start} {row.failure}"
    bits = {None: "-", True: "same", False: "DIFFER"}[row.same_bits]
    mark = "" if row.passed else "  FAILED"
    return (
        f"{start} {row.error:8.1e} {bits:>6} {row.micros:10.2f} {row.gigabytes:4.0f} {row.teraflops:5.0f} "
        f"{100 * (row.share or 0):4.0f}%{mark}"
    )


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
