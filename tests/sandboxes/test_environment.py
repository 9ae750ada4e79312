import os
import sys

import pytest

from dsv4agent.sandboxes.environment import scrubbed_environment


def test_only_harmless_variables_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANG", "LC_ALL", "TZ", "API_KEY", "SSH_AUTH_SOCK", "LD_PRELOAD", "PYTHONPATH", "BASH_ENV"):
        monkeypatch.setenv(name, "value")
    environment = scrubbed_environment("/h", "/t", {"EXTRA": "1"})
    kept = {"LANG", "LC_ALL", "TZ"} | {name for name in os.environ if name.startswith("LC_")} | {"LANGUAGE"}
    assert environment.keys() - kept == {"PATH", "HOME", "TMPDIR", "TERM", "PYTHONDONTWRITEBYTECODE", "EXTRA"}
    assert (environment["HOME"], environment["TMPDIR"], environment["TERM"]) == ("/h", "/t", "dumb")


def test_the_running_interpreter_is_first_and_relative_entries_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", ".:/usr/bin::bin:/bin")
    path = scrubbed_environment("/h", "/t", None)["PATH"]
    assert path == f"{os.path.dirname(sys.executable)}:/usr/bin:/bin"


def test_the_policy_wins() -> None:
    assert scrubbed_environment("/h", "/t", {"HOME": "/other"})["HOME"] == "/other"
