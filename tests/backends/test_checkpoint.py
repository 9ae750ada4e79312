from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsv4agent import ModelNotFound
from dsv4agent.backends import Checkpoint
from dsv4agent.encoding import Revision


def make(folder: Path, config: dict[str, object]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}data")
    return folder


def test_defaults_come_from_the_checkpoint(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "m", {"max_position_embeddings": 512, "dsv4agent": {"mode": "non-think", "max_steps": 9}}
    )
    plain = Checkpoint.find(folder)
    assert (plain.context_window, plain.name, plain.revision) == (512, "m", Revision.V4_PREVIEW)
    assert (plain.defaults.mode, plain.defaults.max_steps) == ("non-think", 9)
    assert (plain.defaults.temperature, plain.defaults.top_p) == (1.0, 1.0)
    (folder / "generation_config.json").write_text('{"temperature": 0.6, "top_p": 0.95}')
    assert Checkpoint.find(folder).defaults.temperature == 0.6
    bare = Checkpoint.find(make(tmp_path / "n", {}))
    assert (bare.context_window, bare.defaults.mode) == (1 << 20, "think-high")


def test_the_fingerprint_covers_every_file_that_matters(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", {})
    seen = {Checkpoint.find(folder).fingerprint}
    assert seen == {Checkpoint.find(folder).fingerprint}
    for name, data in (
        ("config.json", b'{"a": 1}'),
        ("tokenizer.json", b"{ }"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0{}dato"),
        ("model-2.safetensors", b""),
    ):
        (folder / name).write_bytes(data)
        seen.add(Checkpoint.find(folder).fingerprint)
    assert len(seen) == 5


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_folder_is_no_model(tmp_path: Path, missing: str) -> None:
    folder = make(tmp_path / "m", {})
    (folder / missing).unlink()
    with pytest.raises(ModelNotFound, match="safetensors" if "safe" in missing else missing):
        Checkpoint.find(folder)


def test_a_broken_config_is_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", {})
    for text in ("{", "[]"):
        (folder / "config.json").write_text(text)
        with pytest.raises(ModelNotFound, match=r"config\.json"):
            Checkpoint.find(folder)
