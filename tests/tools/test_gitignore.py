"""Which files are walked must be what git would add: git itself is asked."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4agent.tools.gitignore import files_below

NAMES = ["a", "b", "ab", "a.b", "x"]
PARTS = st.sampled_from(["a", "b", "*", "**", "a*", "?", "[ab]", "[!a]", "*.b", "x", "\\a", "a.b", "!", "#"])


def rule(negated: str, leading: str, parts: list[str], trailing: str) -> str:
    return negated + leading + "/".join(parts) + trailing


RULES = st.builds(
    rule,
    st.sampled_from(["", "", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(PARTS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", " "]),
)
FILES = st.lists(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join), min_size=1, max_size=12
)


def what_git_lists(folder: str) -> list[str]:
    listed = subprocess.run(
        ["git", "-C", folder, "ls-files", "-z", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"},
    )
    return sorted(name for name in listed.stdout.decode().split("\0") if name)


def what_we_list(folder: str) -> list[str]:
    return sorted(os.path.relpath(path, folder) for path in files_below(folder, folder))


@given(FILES, st.lists(RULES, max_size=4), st.lists(RULES, max_size=2), st.sampled_from(NAMES))
@settings(max_examples=60, deadline=None)
def test_agrees_with_git(files: list[str], rules: list[str], deeper: list[str], below: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "init", "-q", folder], check=True)
        for name in [*files, f"{below}/a"]:
            path = Path(folder, name)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            except OSError:
                continue  # One of the names is a folder, or below a file.
        Path(folder, ".gitignore").write_text("\n".join(rules))
        if Path(folder, below).is_dir():
            Path(folder, below, ".gitignore").write_text("\r\n".join(deeper))
        assert what_we_list(folder) == what_git_lists(folder)


def make(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ("*.log", ["b.txt", "d/c.txt"]),
        ("*.log\n!d/a.log", ["b.txt", "d/a.log", "d/c.txt"]),
        ("/a.log", ["b.txt", "d/a.log", "d/c.txt"]),
        ("d/", ["a.log", "b.txt"]),
        ("d/\n!d/c.txt", ["a.log", "b.txt"]),
        ("d/*\n!d/c.txt", ["a.log", "b.txt", "d/c.txt"]),
        ("**/c.txt", ["a.log", "b.txt", "d/a.log"]),
        ("# comment\n\\#x\n\n[", ["a.log", "b.txt", "d/a.log", "d/c.txt"]),
        ("*.log   \n[a-b].txt", ["d/c.txt"]),
    ],
)
def test_rules(tmp_path: Path, rules: str, kept: list[str]) -> None:
    make(tmp_path, {"a.log": "", "b.txt": "", "d/a.log": "", "d/c.txt": "", ".gitignore": rules})
    assert what_we_list(str(tmp_path)) == [".gitignore", *kept]


def test_rules_of_folders_above_count_up_to_the_top(tmp_path: Path) -> None:
    make(tmp_path, {".gitignore": "*", "top/.gitignore": "*.log", "top/d/a.log": "", "top/d/b": ""})
    top = str(tmp_path / "top")
    assert list(files_below(f"{top}/d", top)) == [f"{top}/d/b"]
    assert list(files_below(top, top)) == [f"{top}/.gitignore", f"{top}/d/b"]


def test_an_excluded_root_is_walked_when_asked_for(tmp_path: Path) -> None:
    make(tmp_path, {".gitignore": "build/\n*.log", "build/x/a.log": "", "build/b": ""})
    found = list(files_below(str(tmp_path / "build"), str(tmp_path)))
    assert found == [str(tmp_path / "build/b"), str(tmp_path / "build/x/a.log")]


def test_repositories_links_and_pipes_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, {".git/config": "", ".hidden/a": "", "b": ""})
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "link").symlink_to("b")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / ".gitignore").symlink_to("fifo")
    assert what_we_list(str(tmp_path)) == [".hidden/a", "b"]


def test_the_order_is_that_of_names_within_folders(tmp_path: Path) -> None:
    make(tmp_path, dict.fromkeys(["b", "a/z", "a.txt", "A", "a/b/c"], ""))
    found = [os.path.relpath(path, tmp_path) for path in files_below(str(tmp_path), str(tmp_path))]
    assert found == ["A", "a/b/c", "a/z", "a.txt", "b"]
