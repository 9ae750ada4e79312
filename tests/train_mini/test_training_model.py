from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

from examples.train_mini.decoding import BatchDecoder, sample
from examples.train_mini.export import load_model
from examples.train_mini.tensors import integers
from tests.train_mini.training_fixtures import tiny_model

GOLDEN = Path(__file__).parents[1] / "golden_model" / "data"


@pytest.mark.parametrize("name", ["swa16_mix", "win128_pro"])
def test_packed_and_incremental_logits_match_the_official_outputs(name: str) -> None:
    model = load_model(GOLDEN / name)
    recorded = load_file(GOLDEN / name / "io.safetensors")
    ids = recorded["input_ids"].long()
    wanted = recorded["logits_prefill"].view(ids.shape[1], -1)
    tokens = ids.shape[1]
    # Two copies in one row: the second must not notice the first.
    padded = -(-tokens // 128) * 128
    row = torch.zeros(1, 2 * padded, dtype=torch.int64)
    row[:, :tokens] = row[:, padded : padded + tokens] = ids
    starts = torch.zeros_like(row)
    starts[:, padded:] = padded
    with torch.no_grad():
        logits = model.logits(model(row, starts).hidden)[0]
    assert (logits[:tokens] - wanted).abs().max() < 1e-4
    assert (logits[padded : padded + tokens] - wanted).abs().max() < 1e-4
    decoder = BatchDecoder(model, 2, tokens)
    cuts = [0, 1, 5, 70, 201, tokens]
    for start, end in pairwise(cuts):
        last = decoder.extend([1], [integers(ids[0, start:end])], chunk=64)
        assert (last[0] - wanted[end - 1]).abs().max() < 1e-4


def test_steps_of_some_sequences_leave_the_others_alone() -> None:
    model = tiny_model()
    ids = torch.randint(0, 64, (256,), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = model.logits(model(ids[None], torch.zeros(1, 256, dtype=torch.int64)).hidden)[0]
    decoder = BatchDecoder(model, 3, 256)
    decoder.extend([2, 0], [integers(ids[:120]), integers(ids[:133])])
    advance = torch.tensor([True, False, True])
    for k in range(20):
        logits = decoder.step(torch.stack((ids[133 + k], ids[0], ids[120 + k])), advance, 134 + k)
        assert (logits[0] - wanted[133 + k]).abs().max() < 1e-4
        assert (logits[2] - wanted[120 + k]).abs().max() < 1e-4
    assert integers(decoder.lengths) == [153, 0, 140]
    rest = decoder.extend([0, 1], [integers(ids[153:]), integers(ids[:7])], chunk=32)
    assert (rest[0] - wanted[-1]).abs().max() < 1e-4
    assert (rest[1] - wanted[6]).abs().max() < 1e-4


def test_extend_refuses_what_does_not_fit() -> None:
    decoder = BatchDecoder(tiny_model(), 1, 128)
    with pytest.raises(ValueError, match="do not fit"):
        decoder.extend([0], [[3] * 129])
    with pytest.raises(ValueError, match="1024"):
        BatchDecoder(tiny_model(), 1, 4096)


def test_dense_and_sparse_selection_differ_only_past_the_top_k() -> None:
    model = tiny_model()
    ids = torch.randint(0, 64, (1, 256), generator=torch.Generator().manual_seed(4))
    starts = torch.zeros_like(ids)
    with torch.no_grad():
        sparse, dense = (model(ids, starts, sparse=flag).hidden[0] for flag in (True, False))
    # 16 entries of 4 tokens: until position 66 every entry is selected anyway.
    assert torch.equal(sparse[:67], dense[:67])
    assert (sparse[67:] - dense[67:]).abs().max() > 1e-3


def test_indexer_learns_only_from_its_own_loss() -> None:
    model = tiny_model().train()
    ids = torch.randint(0, 64, (1, 256), generator=torch.Generator().manual_seed(5))
    out = model(ids, torch.zeros_like(ids), sparse=False)
    index_names = {name for name, _ in model.named_parameters() if ".index_" in name}
    out.hidden.square().mean().backward(retain_graph=True)
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert not touched & index_names
    model.zero_grad()
    out.indexer_loss.backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert touched == {name for name in index_names if not name.endswith("ape")} | (touched & index_names)
    assert len(touched) >= 4


def test_balance_moves_the_bias_towards_starved_experts() -> None:
    model = tiny_model()
    routed = [layer.ffn for layer in model.blocks if not layer.ffn.hashed]
    loads = [torch.tensor([1.0, 0.2, 0.4, 0.4]) for _ in routed]
    model.balance(loads, 0.01)
    for router in routed:
        assert torch.allclose(router.bias, torch.tensor([-0.01, 0.01, 0.01, 0.01]))


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([[0.0, 2.0, -50.0]]).expand(4000, 3)
    assert integers(sample(logits, 0.0)) == [1] * 4000
    drawn = sample(logits, 1.0, torch.Generator().manual_seed(0))
    assert float((drawn == 1).float().mean()) == pytest.approx(0.88, abs=0.03)
    assert not bool((drawn == 2).any())
