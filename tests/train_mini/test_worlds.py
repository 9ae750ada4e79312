from __future__ import annotations

from pathlib import Path
from random import Random

from examples.train_mini.mutations import mutants
from examples.train_mini.repository import make_repository
from examples.train_mini.teacher import edit_arguments
from examples.train_mini.worlds import RepositoryWorld


def world_of(seed: str) -> RepositoryWorld:
    repository = make_repository(Random(seed), "known")
    return RepositoryWorld(seed, "Fix it.", repository, Random(seed))


def view(world: RepositoryWorld) -> None:
    path = world.repository.bug.path
    world.call("str_replace_editor", {"command": "view", "path": path})


def edit(world: RepositoryWorld, text: str, path: str, line: int, new: str) -> None:
    arguments = edit_arguments(text, path, line, new)
    assert world.call("str_replace_editor", arguments).startswith("Edited")


def test_repair_puts_the_file_back_before_it_fixes_the_bug(library_bank: Path) -> None:
    damaged = 0
    for number in range(12):
        world = world_of(f"repair:{number}")
        view(world)
        bug, files = world.repository.bug, world.repository.files
        found = files[bug.path]
        for mutant in mutants(found)[:2]:
            if mutant.line + 1 == bug.line and mutant.new_line == bug.good_line:
                continue
            edit(world, found, bug.path, mutant.line + 1, mutant.new_line)
            break
        calls = world.repair_calls()
        if calls is None:
            continue
        damaged += 1
        edits = [arguments for name, arguments in calls if name == "str_replace_editor"]
        text = found.replace(edits[-1]["old_str"], edits[-1]["new_str"], 1)
        assert text == world.repository.good_text
        results = [world.call(name, arguments) for name, arguments in calls]
        assert " passed" in results[-1]
        assert world.solved() and world.tests_untouched()
    assert damaged > 6


def test_nothing_to_put_back_leaves_the_fix_alone(library_bank: Path) -> None:
    world = world_of("repair:untouched")
    view(world)
    calls = world.repair_calls()
    assert calls is not None
    assert [name for name, _ in calls] == ["str_replace_editor", "bash"]


def test_a_line_that_was_never_shown_is_not_repaired(library_bank: Path) -> None:
    world = world_of("repair:untouched")
    assert world.repair_calls() is None
    world.call("bash", {"command": "git ls-files"})
    assert world.repair_calls() is None
    view(world)
    assert world.repair_calls() is not None
    assert world.bug_lines() == (world.repository.bug.bad_line, world.repository.bug.good_line)


def test_changes_to_other_files_are_not_repaired(library_bank: Path) -> None:
    world = world_of("repair:other")
    view(world)
    create = {"command": "create", "path": "notes.txt", "file_text": "x\n"}
    world.call("str_replace_editor", create)
    assert world.repair_calls() is None


def test_a_fix_that_stands_is_kept(library_bank: Path) -> None:
    world = world_of("repair:fixed")
    bug = world.repository.bug
    found = world.repository.files[bug.path]
    edit(world, found, bug.path, bug.line, bug.good_line)
    assert world.repair_calls() is None
    good = world.repository.good_text
    mutant = next(m for m in mutants(good) if m.line + 1 != bug.line)
    edit(world, good, bug.path, mutant.line + 1, mutant.new_line)
    calls = world.repair_calls()
    assert calls is not None
    assert [name for name, _ in calls] == ["str_replace_editor", "bash"]
    for name, arguments in calls:
        world.call(name, arguments)
    assert world.solved()
