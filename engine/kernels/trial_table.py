"""What `trial`, `attention_trial` and `sweep` share: their options, the ceilings of the run, and a table.

A row holds a case's distance from its reference, whether its rows have the same bits in every batch, and its
time beside the floor: the longer of its bytes at the speed of a streaming read and its operations at the
speed of a large matrix product, both measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
import triton

from dsv4agent.engine.kernels.ceilings import Ceilings, measure_ceilings, time_calls
from dsv4agent.engine.kernels.trial_shapes import Case
from dsv4agent.engine.lines import say

Models = Mapping[str, Callable[[], Iterable[Case]]]
"""Cases by the name of the model, made when they are needed."""


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


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        json: Where to write what was found.
        only: Part of the names and shapes of what to try; `*` stands for anything.
        model: The only model to try.
        seconds: After this time what is left is skipped.
        seed: Of the data.
    """

    json: Path | None
    only: str
    model: str | None
    seconds: float
    seed: int

    def takes(self, case: Case) -> bool:
        """Whether a case is to be tried."""
        return fnmatchcase(f"{case.kernel} {case.shape}", f"*{self.only}*")


def parse(prog: str, models: Iterable[str], arguments: Sequence[str] | None, *, seconds: float) -> Options:
    """Return the options of a program; `seconds` is the default of its own."""
    parser = argparse.ArgumentParser(prog=f"python -m dsv4agent.engine.kernels.{prog}")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--only", default="", help="what to try, by name and shape, like 'linear*4096 x'")
    parser.add_argument("--model", choices=sorted(models), help="shapes of one model only")
    parser.add_argument("--seconds", type=float, default=seconds, help="skip what is left after this time")
    parser.add_argument("--seed", type=int, default=None, help="of the data; drawn if not given")
    found = parser.parse_args(arguments)
    seed = torch.seed() % 2**32 if found.seed is None else found.seed
    return Options(found.json, found.only, found.model, found.seconds, seed)


def start(seed: int) -> Ceilings | None:
    """Measure what the card does at best and write it down; None, and a line that says so, without a card."""
    if not torch.cuda.is_available():
        say("needs a CUDA device")
        return None
    torch.backends.cuda.matmul.allow_tf32 = False
    ceilings = measure_ceilings()
    versions = f"torch {torch.__version__}, triton {triton.__version__}"
    say(f"{torch.cuda.get_device_name()}, {versions}, seed {seed}")
    rates = ", ".join(f"{unit} {rate / 1e12:.0f} TFLOP/s" for unit, rate in ceilings.operations.items())
    say(f"streaming read {ceilings.read / 1e9:.0f} GB/s, products {rates}")
    return ceilings


def run_trial(prog: str, models: Models, arguments: Sequence[str] | None) -> int:
    """Check and time every case; 0 if all passed, 1 if one failed, 2 without a card."""
    options = parse(prog, models, arguments, seconds=220.0)
    started = time.monotonic()
    ceilings = start(options.seed)
    if ceilings is None:
        return 2
    say(_HEADER)
    rows: list[Row] = []
    for model in [options.model] if options.model else list(models):
        for case in models[model]():
            if not options.takes(case):
                continue
            if time.monotonic() - started > options.seconds:
                row = Row(model, case.kernel, case.shape, failure="not tried: out of time")
            else:
                row = try_case(model, case, ceilings, torch.Generator("cuda").manual_seed(options.seed))
            rows.append(row)
            say(_line(row))
            save(options.json, rows)
    failed = sum(not row.passed for row in rows)
    say(f"{len(rows)} cases, {failed} not passed, {time.monotonic() - started:.0f} s")
    return int(failed > 0)


def try_case(model: str, case: Case, ceilings: Ceilings, generator: torch.Generator) -> Row:
    """Check and time one case; whatever it raises becomes the row's failure."""
    try:
        prepared = case.prepare(generator)
        error = prepared.error()
        same = None if prepared.same_bits is None else prepared.same_bits()
        seconds = time_calls(prepared.runs)
    except Exception as failure:  # A kernel that does not compile must not stop the others.
        return Row(model, case.kernel, case.shape, failure=describe(failure))
    finally:
        torch.cuda.empty_cache()
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
        share=floor(case, ceilings) / seconds,
    )


def floor(case: Case, ceilings: Ceilings) -> float:
    """Return the seconds that a case must take."""
    return max(case.moved / ceilings.read, case.operations / ceilings.operations[case.unit])


def describe(failure: BaseException) -> str:
    """Return one line for an exception, not too long a one."""
    return " ".join(f"{type(failure).__name__}: {failure}".split())[:300]


def save(path: Path | None, rows: Sequence[object]) -> None:
    """Write dataclasses to a file, if there is one to write to."""
    if path is not None:
        text = json.dumps([asdict(row) for row in rows], indent=1)  # pyright: ignore[reportArgumentType]
        path.write_text(text + "\n")


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
