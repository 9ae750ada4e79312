import os
import subprocess
from pathlib import Path

import pytest

from dsv4agent.sandboxes.survey import git_folders, linked_main_folder, survey


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def repository(folder: Path) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder


@pytest.mark.parametrize(
    ("name", "secret"),
    {
        ".env": True,
        ".env.local": True,
        ".env.production": True,
        "prod.env": True,
        ".envrc": True,
        ".netrc": True,
        ".pypirc": True,
        "id_ed25519": True,
        ".env.example": False,
        ".env.local.sample": False,
        "example.env": False,
        "environment.py": False,
        "env": False,
        "id_ed25519.pub": False,
        "server.pem": False,
    }.items(),
)
def test_secrets_are_known_by_name(tmp_path: Path, name: str, secret: bool) -> None:
    (tmp_path / name).write_text("TOKEN=1\n")
    assert survey([str(tmp_path)]).secrets == ((str(tmp_path / name),) if secret else ())


def test_a_package_configuration_is_secret_with_a_token_only(tmp_path: Path) -> None:
    (tmp_path / ".npmrc").write_text("registry=https://example.org/\n# _authToken=none\n")
    assert survey([str(tmp_path)]).secrets == ()
    (tmp_path / ".npmrc").write_text("//example.org/:_authToken=abc\n")
    assert survey([str(tmp_path)]).secrets == (str(tmp_path / ".npmrc"),)


def test_links_lead_to_the_secret_and_folders_are_none(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("TOKEN=1\n")
    top = tmp_path / "top"
    (top / "sub" / ".env").mkdir(parents=True)
    (top / ".env").symlink_to("../outside")
    (top / ".env.local").symlink_to("nowhere")
    assert survey([str(top)]).secrets == (str(tmp_path / "outside"),)


def test_filled_folders_are_skipped_unless_they_are_the_top(tmp_path: Path) -> None:
    inner = tmp_path / "node_modules" / "package"
    inner.mkdir(parents=True)
    (inner / ".env").touch()
    assert survey([str(tmp_path)]).secrets == ()
    assert survey([str(tmp_path / "node_modules")]).secrets == (str(inner / ".env"),)


def test_the_walk_is_bounded_and_says_so(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}").mkdir()
    (tmp_path / ".env").touch()
    found = survey([str(tmp_path)], most_entries=10)
    assert found.secrets == (str(tmp_path / ".env"),) and not found.complete
    assert survey([str(tmp_path)]).complete


def test_repositories_of_all_shapes_are_found(tmp_path: Path) -> None:
    main = repository(tmp_path / "main")
    other = repository(tmp_path / "other")
    git(main, "submodule", "add", "-q", str(other), "sub")
    git(main, "worktree", "add", "-q", str(tmp_path / "tree"))
    found = survey([str(tmp_path)])
    assert found.repositories == tuple(
        str(tmp_path / name) for name in ("main/.git", "main/sub/.git", "other/.git", "tree/.git")
    )
    assert list(git_folders(str(main / "sub/.git"))) == [str(main / ".git/modules/sub")]
    assert list(git_folders(str(tmp_path / "tree/.git"))) == [
        str(main / ".git/worktrees/tree"),
        str(main / ".git"),
    ]
    assert list(git_folders(str(main / ".git"))) == []


def test_a_worktree_is_believed_only_if_git_points_back(tmp_path: Path) -> None:
    main = repository(tmp_path / "main")
    git(main, "worktree", "add", "-q", str(tmp_path / "tree"))
    own = str(tmp_path / "tree/.git")
    assert linked_main_folder(own, [str(tmp_path / "tree")]) == str(main / ".git")
    # Another folder that names the same worktree is not the one that git knows.
    (tmp_path / "thief").mkdir()
    (tmp_path / "thief" / ".git").write_text((tmp_path / "tree/.git").read_text())
    assert linked_main_folder(str(tmp_path / "thief/.git"), [str(tmp_path / "thief")]) is None


def test_what_a_program_can_write_proves_nothing(tmp_path: Path) -> None:
    """Folders called `worktrees` could make the folder above them look like git's."""
    victim = tmp_path / "home"
    top = victim / "worktrees"
    fake = top / "fake"
    fake.mkdir(parents=True)
    for name in ("HEAD", "objects", "refs"):
        (victim / name).touch()
    (fake / "gitdir").write_text(str(top / ".git"))
    (fake / "commondir").write_text("../..")
    (top / ".git").write_text(f"gitdir: {fake}")
    assert linked_main_folder(str(top / ".git"), [str(top)]) is None


def test_strange_pointers_are_ignored(tmp_path: Path) -> None:
    pointer = tmp_path / ".git"
    for text in ("", "gitdir", "gitdir: a\nb", "gitdir: " + "x" * 5000):
        pointer.write_text(text)
        assert list(git_folders(str(pointer))) == []
        assert linked_main_folder(str(pointer), [str(tmp_path)]) is None
    pointer.unlink()
    os.mkfifo(pointer)
    assert list(git_folders(str(pointer))) == []
