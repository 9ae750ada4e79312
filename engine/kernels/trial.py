"""Checks and times every kernel at Flash's and Pro's shapes, on the card.

    python -m dsv4agent.engine.kernels.trial [--json FILE] [--only NAME] [--model flash|pro] [--seconds N]

Every kernel is compared with its torch reference on fresh random data, its rows with those of other batches,
bit by bit, and then timed: replays of a CUDA graph that goes through several sets of weights, together larger
than the second-level cache. The floor of a kernel is the longer of two times: its bytes at the speed of a
streaming read, its operations at the speed of a large matrix product, both measured in the same run. Times of
a few microseconds are those of launches. A kernel that fails is reported in its row.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import triton

from dsv4agent.engine.kernels.ceilings import Ceilings, measure_ceilings, time_calls
from dsv4agent.engine.kernels.trial_cases import cases
from dsv4agent.engine.kernels.trial_shapes import FLASH, PRO, Case

_MODELS = {"flash": FLASH, "pro": PRO}


@dataclass(frozen=True)
class Row:
    """What was found for one case.

    Attributes:
        error: From the reference.
        passed: Whether the error is within the tolerance, and no row changed its bits.
        same_bits: Whether rows have the same bits in every batch; None where only one form exists.
        micros: Microseconds per call.
        share: Floor over measured time.
        failure: What went wrong, else empty.
    """

    model: str
    kernel: str
    shape: str
    error: float | None = None
    passed: bool = False
    same_bits: bool | None = None
    micros: float | None = None
    gigabytes: float | None = None
    teraflops: float | None = None
    share: float | None = None
    failure: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trial; 0 if all passed, 1 if a kernel failed, 2 without a card."""
    parser = argparse.ArgumentParser(prog="python -m dsv4agent.engine.kernels.trial")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument("--model", choices=sorted(_MODELS), help="shapes of one model only")
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
    _write(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}, seed {seed}"
    )
    rates = ", ".join(f"{unit} {rate / 1e12:.0f} TFLOP/s" for unit, rate in ceilings.operations.items())
    _write(f"streaming read {ceilings.read / 1e9:.0f} GB/s, products {rates}")
    _write(_HEADER)
    rows: list[Row] = []
    for model in [options.model] if options.model else list(_MODELS):
        for case in cases(_MODELS[model]):
            if options.only not in case.kernel:
                continue
            if time.monotonic() - started > options.seconds:
                row = Row(model, case.kernel, case.shape, failure="not tried: out of time")
            else:
                row = try_case(model, case, ceilings, torch.Generator("cuda").manual_seed(seed))
            rows.append(row)
            _write(_line(row))
            if options.json:
                options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    failed = sum(not row.passed for row in rows)
    _write(f"{len(rows)} cases, {failed} not passed, {time.monotonic() - started:.0f} s")
    return int(failed > 0)


def try_case(model: str, case: Case, ceilings: Ceilings, generator: torch.Generator) -> Row:
    """Check and time one case; whatever it raises becomes the row's failure."""
    try:
        prepared = case.prepare(generator)
        error = prepared.error()
        same = None if prepared.same_bits is None else prepared.same_bits()
        seconds = time_calls(prepared.runs)
    except Exception as failure:  # A kernel that does not compile must not stop the others.
        text = " ".join(f"{type(failure).__name__}: {failure}".split())
        return Row(model, case.kernel, case.shape, failure=text[:300])
    finally:
        torch.cuda.empty_cache()
    floor = max(case.moved / ceilings.read, case.operations / ceilings.operations[case.unit])
    return Row(
        model,
        case.kernel,
        case.shape,
        error=error,
        passed=error <= case.tolerance and same is not False,
        same_bits=same,
        micros=seconds * 1e6,
        gigabytes=case.moved / seconds / 1e9,
        teraflops=case.operations / seconds / 1e12,
        share=floor / seconds,
    )


_HEADER = f"{'model':5} {'kernel':21} {'shape':22} {'error':>8} {'bits':>6} {'us':>9} GB/s   TF/s   share"


def _line(row: Row) -> str:
    start = f"{row.model:5} {row.kernel:21} {row.shape:22}"
    if row.failure:
        return f"{start} {row.failure}"
    bits = {None: "-", True: "same", False: "DIFFER"}[row.same_bits]
    mark = "" if row.passed else "  FAILED"
    return (
        f"{start} {row.error:8.1e} {bits:>6} {row.micros:9.2f} {row.gigabytes:4.0f} {row.teraflops:6.1f} "
        f"{100 * (row.share or 0):5.0f}%{mark}"
    )


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
