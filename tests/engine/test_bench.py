from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dsv4agent.engine import bench
from dsv4agent.engine.bench_transformers import official_to_transformers


def test_it_measures_the_engine(tiny_folder: Path) -> None:
    report = bench.measure(tiny_folder, context=60, decoded=4, repeats=2, threads=1, compare=False)
    assert report.engine.prefill > 0 and report.engine.decode > 0
    assert report.reference is None and report.decode_ratio is None


def test_the_command_prints_a_table(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(tiny_folder), "--context", "40", "--tokens", "2", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["bench", *arguments, "--no-compare"])
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    assert "context 40" in lines[0] and lines[2].startswith("dsv4agent")


@pytest.mark.parametrize(
    ("official", "theirs"),
    [
        ("embed.weight", "model.embed_tokens.weight"),
        ("head.weight", "lm_head.weight"),
        ("hc_head_fn", "model.hc_head.hc_fn"),
        ("layers.3.hc_attn_scale", "model.layers.3.attn_hc.scale"),
        ("layers.3.attn.compressor.wkv.weight", "model.layers.3.self_attn.compressor.kv_proj.weight"),
        ("layers.3.attn.wkv.weight", "model.layers.3.self_attn.kv_proj.weight"),
        (
            "layers.3.attn.indexer.compressor.ape",
            "model.layers.3.self_attn.compressor.indexer.position_bias",
        ),
        (
            "layers.3.attn.indexer.weights_proj.weight",
            "model.layers.3.self_attn.compressor.indexer.scorer.weights_proj.weight",
        ),
        ("layers.3.ffn.gate.bias", "model.layers.3.mlp.gate.e_score_correction_bias"),
        ("layers.3.ffn.shared_experts.w2.weight", "model.layers.3.mlp.shared_experts.down_proj.weight"),
    ],
)
def test_names(official: str, theirs: str) -> None:
    assert official_to_transformers(official) == theirs
