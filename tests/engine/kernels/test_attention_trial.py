from __future__ import annotations

import pytest
import torch

from dsv4agent.engine.kernels import attention_trial
from dsv4agent.engine.kernels.attention_cases import FLASH, PRO, AttentionShape, cases
from dsv4agent.engine.kernels.trial_shapes import Case

SMALL = AttentionShape("small", 2, 8, chunk=256, decode=(2,), contexts=(512,), cold_bytes=1)
SMALL_CASES = [
    case
    for case in cases(SMALL)
    # The rest takes long in the interpreter, and has tests of its own.
    if case.shape.split()[0] == "2" and case.kernel not in ("compress 4", "compress index")
]


def test_without_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    assert attention_trial.main([]) == 2
    assert capsys.readouterr().out == "needs a CUDA device\n"


def name_of(case: Case) -> str:
    return f"{case.kernel} {case.shape}"


@pytest.mark.parametrize("case", SMALL_CASES, ids=name_of)
def test_a_case_at_a_small_size(generator: torch.Generator, case: Case) -> None:
    prepared = case.prepare(generator)
    assert prepared.error() <= case.tolerance
    assert prepared.same_bits is not None
    assert prepared.same_bits()
    assert case.moved > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("model", [FLASH, PRO], ids=["flash", "pro"])
def test_real_shapes(generator: torch.Generator, model: AttentionShape) -> None:
    for case in cases(model):
        prepared = case.prepare(generator)
        assert prepared.error() <= case.tolerance, case
        assert prepared.same_bits is not None, case
        assert prepared.same_bits(), case
        del prepared
        torch.cuda.empty_cache()
