"""Packed weights and back."""

from __future__ import annotations

import torch

from dsv4agent.engine.runner.unpacked import unpacked
from dsv4agent.engine.runner.weights import pack_weights
from dsv4agent.engine.weights.inventory import tensors
from dsv4agent.engine.weights.loader import Checkpoint


def test_packing_loses_nothing(checkpoint: Checkpoint, device: torch.device) -> None:
    weights = pack_weights(checkpoint, device, on_host=lambda layer, expert: expert == 1)
    found = dict(unpacked(weights, checkpoint.config))
    assert list(found) != [] and set(found) == {spec.name for spec in tensors(checkpoint.config)}
    for name, tensor in found.items():
        expected = checkpoint.tensor(name)
        if name.endswith("tid2eid"):
            expected = expected.sort(dim=-1).values
        assert torch.equal(tensor.cpu().to(expected.dtype), expected), name
