from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4agent.engine.weights import fake_fp4, fake_fp8_block
from examples.train_mini.official_names import Storage, load_stored, storage_of, stored_tensors
from examples.train_mini.optimizer import Optimizer, orthogonalise
from examples.train_mini.quantization import power_of_two_above, round_fp4, round_fp8
from examples.train_mini.tensors import transposed
from examples.train_mini.trainer import Trainer
from tests.train_mini.training_fixtures import TINY, pattern_rows, tiny_model


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(128, 64), (200, 288), (32, 96)]), st.floats(-20, 20))
def test_rounding_equals_what_the_checkpoint_stores(
    seed: int, shape: tuple[int, int], exponent: float
) -> None:
    weight = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    weight[0, 0, 0] = 448 * 2.0 ** round(exponent)
    weight[1, 0, :32] = 0
    for batched, single in ((round_fp8, fake_fp8_block), (round_fp4, fake_fp4)):
        rounded = batched(weight)
        assert torch.equal(rounded, torch.stack([single(matrix) for matrix in weight]))
        assert torch.equal(batched(rounded), rounded)
        assert torch.equal(rounded.bfloat16().float(), rounded)


def test_power_of_two_above_is_exact_at_powers() -> None:
    values = torch.tensor([1.0, 1.0000001, 0.9999999, 2.0**-126, 3.0, 2.0**100])
    wanted = torch.tensor([1.0, 2.0, 1.0, 2.0**-126, 4.0, 2.0**100])
    assert torch.equal(power_of_two_above(values), wanted)


@pytest.mark.parametrize("shape", [(3, 24, 64), (3, 64, 24)])
def test_orthogonalise_makes_rows_nearly_orthonormal(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    products = orthogonalise(matrices).float()
    gram = products @ transposed(products) if shape[1] < shape[2] else transposed(products) @ products
    values = torch.stack([torch.diagonal(square) for square in gram])
    assert values.shape == (3, 24)
    assert 0.4 < values.min() < values.max() < 1.5
    off_diagonal = gram - torch.diag_embed(values)
    assert off_diagonal.abs().max() < 0.35


def test_parameters_are_views_that_follow_their_masters() -> None:
    model = tiny_model()
    optimizer = Optimizer(model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    masters = optimizer.masters()
    assert set(masters) == set(before)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.fill_(0.01)
    optimizer.step(1.0)
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name
        assert torch.equal(parameter, masters[name].to(parameter.dtype)), name
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_quantised_weights_equal_an_exported_checkpoint() -> None:
    model = tiny_model()
    optimizer = Optimizer(model, compute=torch.float32)
    optimizer.quantised = True
    optimizer.write()
    mirror = tiny_model(seed=1)
    exact = tiny_model()
    rounded: dict[str, torch.Tensor] = {}
    for tensor in stored_tensors(exact):
        match tensor.storage:
            case Storage.FP4:
                value = fake_fp4(tensor.value)
            case Storage.FP8:
                value = fake_fp8_block(tensor.value)
            case Storage.BF16:
                value = tensor.value.bfloat16().float()
            case _:
                value = tensor.value
        rounded[tensor.key] = value
    load_stored(mirror, rounded.__getitem__)
    wanted = dict(mirror.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, wanted[name]), name
    assert {storage_of(name) for name in wanted} == {Storage.FP4, Storage.FP8, Storage.BF16, Storage.F32}


def test_training_learns_a_pattern_also_with_rounded_weights() -> None:
    trainer = Trainer(TINY, device="cpu")
    rows = pattern_rows()
    losses: list[float] = []
    for step in range(45):
        if step == 30:
            trainer.set_quantised(True)
        losses.append(float(trainer.step(rows, min(1.0, (step + 1) / 10), sparse=step >= 30).assistant))
    assert losses[0] > 3.5
    assert losses[29] < 1.5
    assert losses[-1] < 1.0


def test_state_round_trip_continues_identically() -> None:
    rows = pattern_rows()
    first = Trainer(TINY, device="cpu")
    first.step(rows, 1.0, sparse=False)
    state = first.optimizer.state_dict()
    second = Trainer(TINY, device="cpu", seed=9)
    second.optimizer.load_state_dict(state)
    second.model.load_state_dict(dict(first.model.named_buffers()), strict=False)
    for trainer in (first, second):
        trainer.step(rows, 1.0, sparse=False)
    after = second.optimizer.masters()
    assert all(torch.equal(master, after[name]) for name, master in first.optimizer.masters().items())
