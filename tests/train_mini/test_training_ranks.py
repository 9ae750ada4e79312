from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from examples.train_mini.packing import load_documents
from tests.train_mini.test_training_loop import collecting, command_line, status

RANKS = """
import sys
import torch
from examples.train_mini.ranks import Ranks
from examples.train_mini.trainer import Trainer
from tests.train_mini.training_fixtures import TINY, pattern_rows

ranks = Ranks()
trainer = Trainer(TINY, device="cpu", ranks=ranks)
rows = pattern_rows()
rows.weight[:] = 1
rows.ids[:] = (rows.ids + ranks.rank) % 64
trainer.gradients(rows, sparse=False)
own = [gradient.clone() for gradient in trainer.optimizer.gradients()]
ranks.average(trainer.optimizer.gradients())
mean = [gradient.clone() for gradient in trainer.optimizer.gradients()]
trainer.optimizer.step(1.0)
masters = trainer.optimizer.masters()
word = ranks.agree(0.25 + ranks.rank)
assert ranks.total([1.0, ranks.rank]) == [2.0, 1.0]
torch.save({"own": own, "mean": mean, "masters": masters, "word": word}, sys.argv[1] + f"/{ranks.rank}.pt")
ranks.close()
"""


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *arguments,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)


def test_ranks_average_gradients_and_follow_the_first(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    done = torchrun(str(script), str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["word"] == second["word"] == 0.25
    differ = False
    for a, b, mean, other in zip(first["own"], second["own"], first["mean"], second["mean"], strict=True):
        assert torch.equal(mean, other)
        assert torch.allclose(mean, (a + b) / 2, atol=1e-6)
        differ = differ or not torch.allclose(a, b, atol=1e-4)
    assert differ
    for name, master in first["masters"].items():
        assert torch.equal(master, second["masters"][name]), name


def test_training_on_two_ranks_writes_one_checkpoint(tmp_path: Path) -> None:
    line = command_line(tmp_path, "--minutes", "3", "--max-steps", "3")
    done = torchrun("-m", "examples.train_mini.training", *line)
    assert done.returncode == 0, done.stderr[-2000:]
    assert status(tmp_path)["state"] == "done"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("step 3 ") == 1
    assert log.count("saved") == 1
    progress = torch.load(tmp_path / "run" / "checkpoint.pt")["progress"]
    assert progress["tokens"] == 3 * 2 * 2 * 512
    assert json.loads((tmp_path / "run" / "export" / "config.json").read_text())["vocab_size"] > 0


def test_two_ranks_collect_together_and_apart(tmp_path: Path) -> None:
    done = torchrun("-m", "examples.train_mini.training", *collecting(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "collected: 4 runs, 0 solved, 0 on the first try, 4 documents" in log
    assert "step 2 " in log
    first, second = (load_documents(tmp_path / "run" / f"collected-{rank}.npz") for rank in range(2))
    assert len(first) == len(second) == 2
    assert not any(a.ids.tolist() == b.ids.tolist() for a in first for b in second)
