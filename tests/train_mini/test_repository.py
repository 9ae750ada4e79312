from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random

import pytest

from examples.train_mini.mutations import Family
from examples.train_mini.pytest_text import run_tests
from examples.train_mini.repository import make_repository, write
from examples.train_mini.verify_tools import normalized
from tests.train_mini.test_pytest_text import real

POOLS = ["known", "program", "unseen"]


@pytest.mark.parametrize("pool", POOLS)
def test_the_tests_detect_the_one_bug(pool: str, library_bank: Path) -> None:
    rng = Random(f"detect {pool}")
    for _ in range(15):
        repository = make_repository(rng, pool)
        bug = repository.bug
        assert repository.files[bug.path].split("\n")[bug.line - 1] == bug.bad_line != bug.good_line
        assert run_tests(repository.files, repository.workspace).exit_code == 1
        fixed = {**repository.files, bug.path: repository.good_text}
        assert run_tests(fixed, repository.workspace).exit_code == 0


def test_the_same_seed_gives_the_same_repository(library_bank: Path) -> None:
    for pool in [*POOLS, "library"]:
        assert make_repository(Random(pool), pool) == make_repository(Random(pool), pool)


@pytest.mark.parametrize("family", list(Family))
def test_every_family_can_be_asked_for(family: Family, library_bank: Path) -> None:
    assert make_repository(Random(family.value), "program", family=family).bug.family is family


def test_repositories_on_disk_behave_as_in_memory(tmp_path: Path, library_bank: Path) -> None:
    rng = Random("disk")
    for number in range(8):
        repository = make_repository(rng, [*POOLS, "library"][number % 4])
        folder = tmp_path / str(number)
        write(repository, folder)
        listed = subprocess.run(
            ["git", "ls-files"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout
        assert listed.split("\n")[:-1] == sorted(repository.files)
        text, code = real(folder)
        assert code == 1
        assert normalized(text) == normalized(run_tests(repository.files, str(folder)).text)
        (folder / repository.bug.path).write_text(repository.good_text)
        assert real(folder)[1] == 0


def test_commits_are_the_same_every_time(tmp_path: Path, library_bank: Path) -> None:
    repository = make_repository(Random(5), "program")
    heads: list[str] = []
    for name in ("a", "b"):
        write(repository, tmp_path / name)
        command = ["git", "log", "--format=%H %an %ad", "main"]
        heads.append(
            subprocess.run(command, cwd=tmp_path / name, capture_output=True, text=True, check=True).stdout
        )
    assert heads[0] == heads[1] and heads[0].count("\n") == 1
