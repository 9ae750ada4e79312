from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsv4agent.engine.config import DrafterKind, LayerKind, ModelConfig
from dsv4agent.engine.errors import ContradictoryConfig, MissingConfigKey, UnsupportedArchitecture
from dsv4agent.engine.weights import mini_config


def test_layers_are_a_table() -> None:
    config = ModelConfig.from_dict(mini_config())
    assert [layer.ratio for layer in config.layers] == [0, 0, 4, 128, 4, 128, 4, 128]
    kinds = [layer.kind for layer in config.layers[:4]]
    assert kinds == [LayerKind.SLIDING, LayerKind.SLIDING, LayerKind.SPARSE, LayerKind.HEAVY]
    assert [layer.hash_routed for layer in config.layers] == [True] + [False] * 7
    assert [layer.compress_rope for layer in config.layers[:3]] == [False, False, True]
    assert config.drafter is DrafterKind.NONE and config.draft_layers == ()


def test_one_nextn_layer_is_an_mtp_block() -> None:
    ratios = [0, 0, 4, 128, 4, 128, 4, 128, 0]
    config = ModelConfig.from_dict(mini_config(num_nextn_predict_layers=1, compress_ratios=ratios))
    assert config.drafter is DrafterKind.MTP
    assert [layer.prefix for layer in config.draft_layers] == ["mtp.0"]


def test_dspark_keys_win_over_nextn() -> None:
    config = ModelConfig.from_dict(
        mini_config(
            num_nextn_predict_layers=1,
            compress_ratios=[0, 0, 4, 128, 4, 128, 4, 128, 0, 0, 0],
            dspark_block_size=5,
            dspark_noise_token_id=7,
            dspark_target_layer_ids=[5, 6, 7],
            dspark_markov_rank=16,
        )
    )
    assert config.drafter is DrafterKind.DSPARK
    assert [layer.prefix for layer in config.draft_layers] == ["mtp.0", "mtp.1", "mtp.2"]


@pytest.mark.parametrize("key", ["hidden_size", "rope_scaling", "compress_ratios", "swiglu_limit"])
def test_missing_key_is_named(key: str) -> None:
    config = mini_config()
    del config[key]
    with pytest.raises(MissingConfigKey, match=key):
        ModelConfig.from_dict(config)


def test_missing_nested_key_is_named() -> None:
    with pytest.raises(MissingConfigKey, match=r"rope_scaling\.factor"):
        ModelConfig.from_dict(mini_config(rope_scaling={"type": "yarn"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compress_ratios": [0, 4]}, "2 entries"),
        ({"compress_ratios": [0, 0, 4, 100, 4, 128, 4, 128]}, "100 does not divide"),
        ({"compress_ratios": [0, 0, 4, 128, 4, 128, 4, 128, 4]}, "draft layers"),
        ({"o_groups": 4}, "o_groups"),
        ({"num_experts_per_tok": 7}, "num_experts_per_tok"),
        ({"hidden_size": "384"}, "hidden_size must be an integer"),
        ({"hidden_size": True}, "hidden_size must be an integer"),
        ({"scoring_func": "softmax"}, "scoring_func"),
        ({"index_head_dim": 48}, "power of two"),
        ({"qk_rope_head_dim": 256}, "qk_rope_head_dim"),
        ({"hc_mult": 2}, "hc_mult"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ContradictoryConfig, match=message):
        ModelConfig.from_dict(mini_config(**change))


def test_other_architectures_are_refused() -> None:
    with pytest.raises(UnsupportedArchitecture, match="deepseek_v41"):
        ModelConfig.from_dict(mini_config(model_type="deepseek_v41"))


def test_files(tmp_path: Path) -> None:
    with pytest.raises(MissingConfigKey, match="does not exist"):
        ModelConfig.from_file(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ContradictoryConfig, match="not valid JSON"):
        ModelConfig.from_file(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(mini_config()), encoding="utf-8")
    assert ModelConfig.from_file(tmp_path) == ModelConfig.from_file(tmp_path / "config.json")
