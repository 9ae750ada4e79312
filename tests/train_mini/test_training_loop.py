from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.train_mini.collection import Collector
from examples.train_mini.decoding import BatchDecoder
from examples.train_mini.export import load_model
from examples.train_mini.packing import RowStream, load_documents
from examples.train_mini.ranks import Ranks
from examples.train_mini.tensors import from_array
from examples.train_mini.trainer import (
    Schedule,
    Trainer,
    compile_layers,
    mean_where,
    save_compile_cache,
    use_compile_cache,
)
from examples.train_mini.training import make_trainer, model_config, parser, random_rows, run
from tests.train_mini.training_fixtures import TINY, TINY_JSON, pattern_rows, write_byte_tokenizer

SOURCE = "tests.train_mini.training_documents:documents"


def command_line(folder: Path, *more: str) -> list[str]:
    tokenizer = write_byte_tokenizer(folder)
    common = ["--rows", "2", "--row-length", "512", "--workers", "1", "--source", SOURCE, "--device", "cpu"]
    common += [
        "--tokenizer",
        str(tokenizer),
        "--config",
        TINY_JSON,
        "--no-check",
        "--cache-dir",
        str(folder / "k"),
    ]
    return [*common, "--out", str(folder / "run"), *more]


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "status.json").read_text())


def test_schedule_rises_holds_and_falls() -> None:
    schedule = Schedule(warmup=10, anneal_from=0.5, final=0.02)
    assert schedule.factor(0.0, 0) == pytest.approx(0.1)
    assert schedule.factor(0.3, 50) == 1.0
    assert schedule.factor(0.75, 50) == pytest.approx(0.51)
    assert schedule.factor(1.0, 50) == pytest.approx(0.02)
    assert schedule.factor(1.2, 50) == pytest.approx(0.02)


def test_mean_where_ignores_what_is_not_marked() -> None:
    values = torch.tensor([1.0, 5.0, 100.0])
    assert float(mean_where(values, torch.tensor([True, True, False]))) == 3.0
    assert float(mean_where(values, torch.zeros(3, dtype=torch.bool))) == 0.0


def test_losses_count_each_kind_of_token_apart() -> None:
    trainer = Trainer(TINY, device="cpu")
    rows = pattern_rows()
    rows.weight[:] = 1
    rows.weight[:, 100:110] = 2
    assistant, environment, indexer, _ = trainer.gradients(rows, sparse=False)
    with torch.no_grad():
        ids = from_array(rows.ids).long()
        out = trainer.model(ids, torch.zeros_like(ids), sparse=False)
        log_p = torch.log_softmax(trainer.model.logits(out.hidden).float(), -1)
        wanted = -log_p[:, 99:109].gather(-1, ids[:, 100:110, None]).mean()
    assert float(assistant) == pytest.approx(float(wanted), abs=1e-5)
    assert float(environment) != pytest.approx(float(assistant), abs=1e-3)
    assert float(indexer) > 0


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_layers_have_no_graph_break_and_the_same_gradients() -> None:
    import torch._dynamo.utils as dynamo

    config = replace(TINY, ratios=(4,))
    plain, compiled = Trainer(config, device="cpu"), Trainer(config, device="cpu")
    compile_layers(compiled.model, backend="aot_eager")
    rows = random_rows(1, 256, 64)
    before = {name: master.clone() for name, master in compiled.optimizer.masters().items()}
    compiled.warm_up(rows)
    for name, master in compiled.optimizer.masters().items():
        assert torch.equal(master, before[name])
    for sparse in (False, True):
        losses = [trainer.gradients(rows, sparse=sparse)[0] for trainer in (plain, compiled)]
        assert float(losses[0]) == pytest.approx(float(losses[1]), abs=1e-6)
    # Decoding between two steps, as a collection does, compiles nothing again and changes no gradient.
    graphs = dynamo.counters["stats"]["unique_graphs"]
    decoder = BatchDecoder(compiled.model, 2, 256)
    decoder.extend([0, 1], [[3, 4, 5], [6]])
    decoder.step(torch.tensor([7, 8]), torch.tensor([True, True]), 4)
    for trainer in (plain, compiled):
        trainer.gradients(rows, sparse=False)
    assert dynamo.counters["stats"]["unique_graphs"] == graphs > 0
    wanted = dict(plain.model.named_parameters())
    for name, parameter in compiled.model.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, wanted[name].grad, atol=1e-6), name  # pyright: ignore[reportArgumentType]


def test_kernel_cache_travels_as_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(variable, "unset")
    first, second, archive = tmp_path / "a", tmp_path / "b", tmp_path / "kernels.tar.xz"
    use_compile_cache(first, archive)
    assert os.environ["TRITON_CACHE_DIR"] == str(first / "triton")
    (first / "triton").mkdir()
    (first / "triton" / "kernel.cubin").write_bytes(b"code")
    assert save_compile_cache(first, archive) == archive.stat().st_size
    use_compile_cache(second, archive)
    assert (second / "triton" / "kernel.cubin").read_bytes() == b"code"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(second / "inductor")


def test_vocabulary_of_the_tokenizer_sets_the_model(tmp_path: Path) -> None:
    config = model_config(write_byte_tokenizer(tmp_path), '{"ratios": [0, 4], "window": 64}')
    assert config.ratios == (0, 4)
    assert config.window == 64
    assert (
        config.vocab_size
        == max(json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"].values()) + 1
    )


@pytest.fixture
def own_signals() -> Any:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_run_resumes_and_starts_from_an_export(tmp_path: Path) -> None:
    run(
        parser().parse_args(
            command_line(tmp_path, "--minutes", "2", "--max-steps", "3", "--save-minutes", "0")
        )
    )
    first = status(tmp_path)
    assert first["state"] == "done"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "step 3 " in log
    assert log.count("saved") == 4
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    run(
        parser().parse_args(
            command_line(tmp_path, "--minutes", "2", "--max-steps", "4", "--resume", str(checkpoint))
        )
    )
    assert "resumed at step 3" in (tmp_path / "run" / "log.txt").read_text()
    exported = load_model(tmp_path / "run" / "export")
    run(
        parser().parse_args(
            command_line(
                tmp_path,
                "--minutes",
                "2",
                "--max-steps",
                "0",
                "--init-from",
                str(tmp_path / "run" / "export"),
            )
        )
    )
    again = load_model(tmp_path / "run" / "export")
    for name, parameter in exported.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
    card = (tmp_path / "run" / "export" / "README.md").read_text()
    assert "| training | 0 M tokens, 4 steps; then 0 M tokens, 0 steps |" in card


def collecting(folder: Path, *more: str) -> list[str]:
    """Return a command line that collects before the first step."""
    config = json.dumps(json.loads(TINY_JSON) | {"max_positions": 8192})
    line = command_line(folder, "--minutes", "2", "--max-steps", "2", "--collect-at", "0.0")
    line += ["--collect-runs", "2", "--collect-worlds", "tests.train_mini.training_worlds:world"]
    return [*line, "--config", config, "--row-length", "2560", "--rows", "1", *more]


@pytest.mark.usefixtures("own_signals")
def test_run_collects_documents_and_goes_on(tmp_path: Path) -> None:
    run(parser().parse_args(collecting(tmp_path)))
    assert status(tmp_path)["state"] == "done"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert re.search(r"collected: 2 runs, 0 solved, 0 on the first try, 2 documents, \d+ tokens", log)
    assert log.index("collected") < log.index("step 1 ")
    documents = load_documents(tmp_path / "run" / "collected-0.npz")
    assert len(documents) == 2
    assert all(len(document.ids) <= 2560 and (document.weight == 2).any() for document in documents)


@pytest.mark.usefixtures("own_signals")
def test_run_goes_on_if_a_collection_fails(tmp_path: Path) -> None:
    run(
        parser().parse_args(
            collecting(tmp_path, "--collect-worlds", "tests.train_mini.training_worlds:broken")
        )
    )
    assert status(tmp_path)["state"] == "done"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert re.search(r"collected: 0 runs.*; 1 ranks failed and go on without: WorldPoolError", log)
    assert "step 2 " in log
    assert not (tmp_path / "run" / "collected-0.npz").exists()


def test_phases_are_prepared_skipped_and_numbered_apart(tmp_path: Path) -> None:
    arguments = parser().parse_args(collecting(tmp_path, "--collect-at", "0.5,0.3,0.68"))
    assert arguments.collect_at == (0.5, 0.3, 0.68)
    trainer = make_trainer(arguments, Ranks())
    (tmp_path / "run").mkdir()
    stream = RowStream(SOURCE, workers=1, length=2560, seed=1, further=tmp_path / "run" / "collected-0.npz")
    collector = Collector(arguments, trainer, stream)
    try:
        assert not collector.due(0.29)
        collector.prepare(0.3)
        assert collector.due(0.3)
        weights = {name: master.clone() for name, master in trainer.optimizer.masters().items()}
        # The phase at 0.5 is over as well when the first one begins late.
        report = collector.collect(0.55)
        assert (report.runs, report.documents, report.failed, report.error) == (2, 2, 0, "")
        assert not collector.due(0.6)
        assert collector.due(0.68)
        assert collector.collect(0.7).documents == 2
        assert not collector.due(1.0)
        assert len(load_documents(tmp_path / "run" / "collected-0.npz")) == 4
        for name, master in trainer.optimizer.masters().items():
            assert torch.equal(master, weights[name])
        later = Collector(arguments, trainer, stream)
        later.skip(0.4)
        assert not later.due(0.4)
        assert later.due(0.5)
        stopped = Collector(arguments, trainer, stream, lambda: True)
        assert stopped.collect(0.3).runs == 0
    finally:
        collector.close()
        stream.close()


def test_collecting_with_rounded_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--quantise-from"):
        run(parser().parse_args(collecting(tmp_path, "--collect-at", "0.3,0.8")))


@pytest.mark.usefixtures("own_signals")
def test_failure_is_told_in_the_status(tmp_path: Path) -> None:
    arguments = parser().parse_args(
        command_line(tmp_path, "--source", "tests.train_mini.training_documents:failing")
    )
    with pytest.raises(RuntimeError, match="feeder"):
        run(arguments)
    assert status(tmp_path)["state"] == "failed"
    assert "FeederError" in (tmp_path / "run" / "log.txt").read_text()


def test_sigterm_ends_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "examples.train_mini.training",
        *command_line(tmp_path, "--minutes", "5"),
    ]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 100
        log = tmp_path / "run" / "log.txt"
        while not (log.exists() and "step 1 " in log.read_text()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
    assert status(tmp_path)["state"] == "done"
    assert "stopped at step" in log.read_text()
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    assert (tmp_path / "run" / "export" / "model.safetensors").exists()
