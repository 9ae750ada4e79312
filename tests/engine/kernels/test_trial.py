from __future__ import annotations

import pytest
import torch

from dsv4agent.engine.kernels import trial
from dsv4agent.engine.kernels.trial_cases import cases
from dsv4agent.engine.kernels.trial_shapes import FLASH, PRO, Case, ModelShape

SMALL = ModelShape("small", 256, 128, 4, 2, 1500, 128, 512, 2, 128, tokens=(2,), cold_bytes=1)


def test_without_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    assert trial.main([]) == 2
    assert capsys.readouterr().out == "needs a CUDA device\n"


def name_of(case: Case) -> str:
    return f"{case.kernel} {case.shape}"


@pytest.mark.parametrize("case", list(cases(SMALL)), ids=name_of)
def test_every_case_at_a_small_size(generator: torch.Generator, case: Case) -> None:
    prepared = case.prepare(generator)
    assert prepared.error() <= case.tolerance
    for run in prepared.runs:
        run()
    assert case.moved > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", [*cases(FLASH), *cases(PRO)], ids=name_of)
def test_real_shapes(generator: torch.Generator, case: Case) -> None:
    prepared = case.prepare(generator)
    assert prepared.error() <= case.tolerance
    assert prepared.same_bits is None or prepared.same_bits()
    del prepared
    torch.cuda.empty_cache()
