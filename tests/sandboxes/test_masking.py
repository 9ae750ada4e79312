import os
import socket
import sys
from pathlib import Path

import pytest

from dsv4agent.sandboxes import Policy, SandboxError
from dsv4agent.sandboxes.masking import (
    home_folders,
    is_below,
    masked_paths,
    resolved_policy,
    service_sockets,
    shown_paths,
)


def test_is_below_respects_names() -> None:
    assert is_below("/a/b", "/a") and is_below("/a", "/a") and is_below("/a", "/")
    assert not is_below("/ab", "/a") and not is_below("/a", "/a/b")


def test_homes_are_outermost_and_hold_ours() -> None:
    homes = home_folders()
    ours = os.path.realpath(os.path.expanduser("~"))
    assert any(is_below(ours, home) for home in homes)
    assert not any(a != b and is_below(a, b) for a in homes for b in homes)


def test_an_unusual_home_is_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path) in home_folders()


def test_masked_paths_hold_the_policy_s_own_if_they_exist(tmp_path: Path) -> None:
    masked = masked_paths(Policy("/w", masked=(str(tmp_path), "/no/such/path")))
    assert str(tmp_path) in masked and "/no/such/path" not in masked


def test_the_interpreter_stays_visible_wherever_it_is_hidden() -> None:
    policy = Policy("/w", masked=(sys.prefix, os.path.dirname(sys.base_prefix)))
    shown = shown_paths(policy)
    assert sys.prefix in shown and sys.base_prefix in shown


def test_policies_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    policy = resolved_policy(Policy(str(tmp_path / "link"), masked=(str(tmp_path / "link"),)))
    assert policy.workspace == str(tmp_path / "real")
    assert policy.masked == (str(tmp_path / "real"),)
    with pytest.raises(SandboxError, match="not the absolute path of a folder"):
        resolved_policy(Policy(str(tmp_path), writable=("missing",)))


def test_listening_sockets_are_found(tmp_path: Path) -> None:
    path = str(tmp_path / "service")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as service:
        service.bind(path)
        service.listen()
        assert path in service_sockets()
    os.unlink(path)
    assert path not in service_sockets()
