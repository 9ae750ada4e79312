"""Every golden vector holds, and the runner notices one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.__main__ import main
from tests.golden.runner import CHECKS, run_file

DATA = Path(__file__).parent / "data"
COUNTS = {"encode": 387, "parse": 160, "recover": 56, "api_render": 92, "tokens": 37}


@pytest.mark.parametrize("kind", CHECKS)
def test_every_vector_holds(kind: str) -> None:
    report = run_file(DATA / f"{kind}.jsonl")
    assert report.count == COUNTS[kind]
    assert report.failures == ()


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("encode", "expected"),
        ("parse", "text"),
        ("recover", "text"),
        ("api_render", "expected_prompt"),
        ("tokens", "ids"),
    ],
)
def test_a_changed_vector_fails(
    kind: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (DATA / f"{kind}.jsonl").read_text(encoding="utf-8").split("\n")
    vectors = [json.loads(line) for line in lines if line]
    vector = next(item for item in vectors if "error" not in item and len(item[key]) > 0)
    vector[key] = vector[key][:-1]
    if kind == "recover":
        vector["text"] = "r</think>not what it was"
    (tmp_path / f"{kind}_2.jsonl").write_text(json.dumps(vector) + "\n", encoding="utf-8")
    assert main([str(tmp_path)]) == 1
    assert vector["name"] in capsys.readouterr().out


def test_the_command_passes_on_the_stored_vectors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "tokens.jsonl").write_bytes((DATA / "tokens.jsonl").read_bytes())
    assert main([str(tmp_path)]) == 0
    assert "tokens.jsonl: 37 vectors, 0 failed" in capsys.readouterr().out


def test_a_folder_without_vectors_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.jsonl").write_text("{}\n")
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "missing")]) == 2
    assert main([]) == 2
    assert "holds no encode" in capsys.readouterr().err
