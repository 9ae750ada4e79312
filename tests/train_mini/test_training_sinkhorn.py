from __future__ import annotations

import pytest
import torch

from examples.train_mini.sinkhorn import reference_backward, sinkhorn, sinkhorn_reference
from examples.train_mini.tensors import seed


def test_columns_sum_to_one_and_gradient_matches_autograd() -> None:
    seed(0)
    logits = (torch.randn(3, 5, 4, 4) * 2).requires_grad_()
    upstream = torch.randn(3, 5, 4, 4)
    result = sinkhorn(logits, 20)
    assert torch.allclose(result.sum(-2), torch.ones(3, 5, 4), atol=1e-5)
    (gradient,) = torch.autograd.grad(result, logits, upstream)
    (wanted,) = torch.autograd.grad(sinkhorn_reference(logits, 20), logits, upstream)
    assert torch.allclose(gradient, wanted, atol=1e-6)
    assert wanted.abs().max() > 0.01


def test_written_backward_agrees_with_finite_differences() -> None:
    seed(1)
    logits = torch.randn(2, 4, 4, dtype=torch.float64)
    upstream = torch.randn(2, 4, 4, dtype=torch.float64)
    gradient = reference_backward(logits, upstream, 5)
    step = 1e-6
    moved = logits.clone()
    moved[1, 2, 3] += step
    change = (sinkhorn_reference(moved, 5) - sinkhorn_reference(logits, 5)) / step
    assert float((change * upstream).sum()) == pytest.approx(float(gradient[1, 2, 3]), rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_match_torch() -> None:
    logits = (torch.randn(1000, 4, 4, device="cuda") * 2).requires_grad_()
    upstream = torch.randn(1000, 4, 4, device="cuda")
    result = sinkhorn(logits, 20)
    (gradient,) = torch.autograd.grad(result, logits, upstream)
    reference = sinkhorn_reference(logits, 20)
    (wanted,) = torch.autograd.grad(reference, logits, upstream)
    assert torch.allclose(result, reference, atol=1e-5)
    assert torch.allclose(gradient, wanted, atol=1e-5)
