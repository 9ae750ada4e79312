from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsv4agent.engine import Engine, EngineConfig, ModelConfig
from dsv4agent.engine.errors import DeviceUnavailable, EmptySequence, InvalidToken, ModelTooLarge, NoDrafter
from dsv4agent.engine.memory import check_fit, choose_device
from dsv4agent.engine.weights import mini_config, resident_bytes, write_random_checkpoint
from tests.engine.conftest import tiny_config
from tests.engine.test_bits import draw_ids


def test_a_model_that_does_not_fit_says_what_it_takes() -> None:
    flash = ModelConfig.from_dict(
        mini_config(
            vocab_size=129280,
            hidden_size=4096,
            num_hidden_layers=43,
            compress_ratios=[0, 0, *[4, 128] * 20, 4],
            n_routed_experts=256,
            num_experts_per_tok=6,
            moe_intermediate_size=2048,
        )
    )
    with pytest.raises(ModelTooLarge, match="GiB") as caught:
        check_fit(flash, torch.device("cpu"), available=64 * 2**30)
    assert caught.value.needed_bytes == resident_bytes(flash) > 2**40
    assert caught.value.available_bytes == 64 * 2**30
    check_fit(ModelConfig.from_dict(mini_config()), torch.device("cpu"), available=2**30)


@pytest.mark.parametrize("name", ["tpu9", "meta"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(DeviceUnavailable, match=name):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_cuda(tiny_folder: Path) -> None:
    assert choose_device("auto").type == "cpu"
    with pytest.raises(DeviceUnavailable, match="CUDA"):
        Engine.load(tiny_folder, device="cuda")


def test_settings(tiny_folder: Path) -> None:
    with Engine.load(EngineConfig(tiny_folder, device="cpu", max_context=40)) as engine:
        assert engine.max_context == 40
        assert engine.precision == "fp32"
        assert engine.stats.computed_tokens == 0
    with Engine.load(tiny_folder) as engine:
        assert engine.max_context == 700


def test_oracles_check_their_input(shared_engine: Engine) -> None:
    with pytest.raises(EmptySequence):
        shared_engine.logits([])
    with pytest.raises(InvalidToken):
        shared_engine.logits([96])
    with pytest.raises(NoDrafter, match="none"):
        shared_engine.mtp_logits([1, 2, 3])
    with pytest.raises(NoDrafter, match="none"):
        shared_engine.dspark_draft([1, 2, 3], 0)


def test_results_are_ordinary_tensors(shared_engine: Engine) -> None:
    logits = shared_engine.logits([1, 2, 3])
    assert not logits.is_inference()
    assert logits.dtype is torch.float32 and logits.shape == (3, 96)


def test_quantised_storage_computes_what_its_weights_say(tmp_path: Path) -> None:
    """FP4 and FP8 files give the logits of the same weights stored in float32."""
    from dsv4agent.engine.weights import Checkpoint, save_checkpoint
    from dsv4agent.engine.weights.inventory import tensors

    quantised = write_random_checkpoint(tmp_path / "q", tiny_config())
    config = ModelConfig.from_file(quantised)
    read = Checkpoint(quantised, config)
    weights = {spec.name: read.tensor(spec.name) for spec in tensors(config)}
    save_checkpoint(tmp_path / "f", weights, tiny_config(), quantize=False)
    ids = draw_ids(150)
    with Engine.load(quantised, device="cpu") as a, Engine.load(tmp_path / "f", device="cpu") as b:
        assert torch.equal(a.logits(ids), b.logits(ids))


def test_dspark_checkpoints_draft(tmp_path: Path) -> None:
    config = tiny_config(
        compress_ratios=[0, 4, 128, 4, 0, 0, 0],
        num_nextn_predict_layers=1,
        dspark_block_size=5,
        dspark_noise_token_id=95,
        dspark_target_layer_ids=[1, 2, 3],
        dspark_markov_rank=8,
    )
    write_random_checkpoint(tmp_path, config)
    ids = draw_ids(140)
    with Engine.load(tmp_path, device="cpu") as engine:
        drafts = engine.dspark_drafts(ids, [126, 3, 127])
        assert [draft.token_ids[0] for draft in drafts] == [ids[127], ids[4], ids[128]]
        again = engine.dspark_draft(ids[:129], 127)
        assert again.token_ids == drafts[2].token_ids
        assert torch.equal(again.logits, drafts[2].logits)
        assert drafts[0].logits.shape == (5, 96) and drafts[0].confidence.shape == (5,)
        for draft in drafts:
            assert draft.token_ids[1:] == tuple(int(row.argmax()) for row in draft.logits)
        with pytest.raises(ValueError, match="138"):
            engine.dspark_draft(ids, 139)
