from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.golden_model.__main__ import check_folder

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.iterdir() if path.is_dir()))
def test_recorded_values(name: str) -> None:
    results = list(check_folder(DATA / name, "cpu"))
    assert len(results) >= 3
    failed = [str(result) for result in results if not result.holds]
    assert not failed, "\n".join(failed)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", sorted(path.name for path in DATA.iterdir() if path.is_dir()))
def test_recorded_values_on_cuda(name: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    failed = [str(result) for result in check_folder(DATA / name, "cuda") if not result.holds]
    assert not failed, "\n".join(failed)
