"""The revision follows from the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsv4agent.encoding import EncodingError, Revision, dsml_tags, revision_for_checkpoint


@pytest.mark.parametrize(
    ("config", "revision"),
    [
        ({}, Revision.V4_PREVIEW),
        ({"model_type": "deepseek_v4"}, Revision.V4_PREVIEW),
        ({"model_type": "deepseek_v4", "dspark_block_size": 5}, Revision.V4_0731),
        ({"model_type": "deepseek_v41"}, Revision.V4_1),
        ({"model_type": "deepseek_v41", "dsv4agent_encoding": "v4-0731"}, Revision.V4_0731),
    ],
)
def test_config(config: dict[str, Any], revision: Revision) -> None:
    assert revision_for_checkpoint(config) is revision


def test_weights_of_the_drafter(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "deepseek_v4"}')
    assert revision_for_checkpoint(tmp_path) is Revision.V4_PREVIEW
    index = {"weight_map": {"mtp.0.main_proj.weight": "model-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert revision_for_checkpoint(tmp_path) is Revision.V4_0731
    assert revision_for_checkpoint(tmp_path / "config.json") is Revision.V4_0731


def test_unreadable_checkpoints_are_typed_errors(tmp_path: Path) -> None:
    for content in (None, "{", "[]"):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(EncodingError) as caught:
            revision_for_checkpoint(tmp_path)
        assert caught.value.reason == "checkpoint_unreadable"
    with pytest.raises(EncodingError, match="v4-preview"):
        revision_for_checkpoint({"dsv4agent_encoding": "v9"})


def test_tag_names() -> None:
    assert dsml_tags(Revision.V4_0731).block == "tool_calls"
    assert dsml_tags(Revision.V4_1).invoke == " invoke"
