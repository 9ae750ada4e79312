"""Compare the engine with recorded values: `python -m tests.golden_model DIR [--device cuda]`.

DIR holds one folder per checkpoint (config.json, model.safetensors, io.safetensors) and optionally `units`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.golden_model.checkpoints import check_checkpoint
from tests.golden_model.report import Result
from tests.golden_model.units import check_units


def check_folder(folder: Path, device: str) -> Iterator[Result]:
    """Compare whatever `folder` holds."""
    if (folder / "units.safetensors").is_file():
        yield from check_units(folder / "units.safetensors")
    if (folder / "config.json").is_file():
        yield from check_checkpoint(folder, device)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden_model", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    # Full float32 products on the GPU: TensorFloat-32 would miss every tolerance.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    directory: Path = options.directory
    folders = [directory, *sorted(path for path in directory.iterdir() if path.is_dir())]
    failed = total = 0
    for folder in folders:
        results = list(check_folder(folder, options.device))
        if results:
            print(f"{folder.name}:")
        for result in results:
            total += 1
            failed += not result.holds
            print(f"  {result}")
    print(f"{total - failed} of {total} comparisons hold")
    if total == 0:
        print(f"{directory} holds no recorded checkpoint", file=sys.stderr)
    return 1 if failed or total == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
