from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dsv4agent.encoding import Tokenizer
from dsv4agent.engine.weights.reader import read_header
from examples.train_mini.architecture import MiniConfig
from examples.train_mini.export import ExportMismatch, engine_difference, export, load_model
from examples.train_mini.export import main as export_main
from examples.train_mini.model import MiniModel
from examples.train_mini.optimizer import Optimizer
from examples.train_mini.trainer import Trainer
from tests.train_mini.training_fixtures import TINY, pattern_rows, tiny_model, write_byte_tokenizer


def test_engine_computes_the_exported_model(tmp_path: Path) -> None:
    model = tiny_model()
    tokenizer = write_byte_tokenizer(tmp_path)
    report = export(model, dict(model.named_parameters()), tmp_path / "out", tokenizer=tokenizer)
    assert report.difference is not None
    assert 0 < report.difference < 1e-3
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "README.md",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert report.size == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    stored = read_header(tmp_path / "out" / "model.safetensors")
    dtypes = {name: entry.dtype for name, entry in stored.items()}
    assert dtypes["layers.1.ffn.experts.3.w2.weight"] == "I8"
    assert dtypes["layers.1.ffn.experts.3.w2.scale"] == "F8_E8M0"
    assert dtypes["layers.2.attn.wo_a.weight"] == "F8_E4M3"
    assert dtypes["layers.0.ffn.gate.tid2eid"] == "I64"
    assert dtypes["layers.1.attn.compressor.ape"] == "F32"
    assert dtypes["head.weight"] == "BF16"
    Tokenizer.from_checkpoint(tmp_path / "out")


def test_loaded_weights_are_the_quantised_ones(tmp_path: Path) -> None:
    model = tiny_model()
    export(
        model,
        dict(model.named_parameters()),
        tmp_path / "out",
        tokenizer=write_byte_tokenizer(tmp_path),
        check=False,
    )
    loaded = load_model(tmp_path / "out")
    assert loaded.config == replace(model.config, chunk=loaded.config.chunk)
    optimizer = Optimizer(tiny_model(), compute=torch.float32)
    optimizer.quantised = True
    optimizer.write()
    for stack in (*optimizer.matrices, *optimizer.vectors):
        for name, value in stack.views(stack.compute):
            assert torch.equal(loaded.get_parameter(name), value), name
    again = export(
        loaded,
        dict(loaded.named_parameters()),
        tmp_path / "again",
        tokenizer=tmp_path / "tokenizer.json",
        check=False,
    )
    assert again.difference is None
    # Rounded weights are exact in the format, whatever scale they are stored with.
    second = load_model(tmp_path / "again")
    for name, value in loaded.named_parameters():
        assert torch.equal(second.get_parameter(name), value), name


def test_a_difference_from_the_engine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    tokenizer = write_byte_tokenizer(tmp_path)
    masters = dict(model.named_parameters())
    export(model, masters, tmp_path / "out", tokenizer=tokenizer, check=False)
    config = tmp_path / "out" / "config.json"
    official = json.loads(config.read_text())
    assert engine_difference(tmp_path / "out") < 1e-3
    monkeypatch.setattr("examples.train_mini.export.SIZE_LIMIT", 1000)
    with pytest.raises(ExportMismatch, match="bytes"):
        export(model, masters, tmp_path / "large", tokenizer=tokenizer)
    assert official["num_nextn_predict_layers"] == 0
    assert replace(MiniConfig.from_official(official), chunk=TINY.chunk) == TINY


def test_default_model_fits_the_bundle() -> None:
    model = MiniModel(MiniConfig(vocab_size=2560))
    optimizer = Optimizer(model)
    assert 23e6 < sum(master.numel() for master in optimizer.masters().values()) < 25e6
    assert {stack.compute.dtype for stack in optimizer.matrices} == {torch.bfloat16}


def test_training_checkpoint_can_be_exported_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer(TINY, device="cpu")
    trainer.step(pattern_rows(), 1.0, sparse=False)
    trainer.save(tmp_path / "checkpoint.pt", step=1)
    tokenizer = write_byte_tokenizer(tmp_path)
    out = tmp_path / "out"
    arguments = ["export", str(tmp_path / "checkpoint.pt"), "--out", str(out), "--tokenizer", str(tokenizer)]
    monkeypatch.setattr("sys.argv", arguments)
    export_main()
    assert "largest difference" in capsys.readouterr().out
    loaded = load_model(out)
    bias = trainer.model.blocks[1].ffn.bias
    assert bias.abs().max() > 0
    assert torch.equal(loaded.blocks[1].ffn.bias, bias)
