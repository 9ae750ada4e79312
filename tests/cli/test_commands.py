"""The command in processes of its own, on a small random model."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dsv4agent import __version__
from dsv4agent.transcript import EVENT_ADAPTER, find_session, list_sessions
from tests.backends.checkpoints import write_checkpoint

WITHOUT_CARD = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
COMMAND = (sys.executable, "-c", "from dsv4agent.cli.main import run; run()")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("model")))


def dsv4agent(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120)
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result


def events_of(output: str) -> list[dict[str, object]]:
    """Parse lines of JSON; every line must be an event."""
    lines = output.splitlines()
    assert lines
    return [EVENT_ADAPTER.validate_json(line).model_dump() for line in lines]


def test_version() -> None:
    assert dsv4agent("version").stdout.strip() == __version__


def test_json_has_events_and_nothing_else_and_resumes(model: str, workspace: Path) -> None:
    options = (
        "--repo",
        str(workspace),
        "--model",
        model,
        "--sandbox",
        "none",
        "--max-tokens",
        "40",
        "--json",
    )
    first = dsv4agent("run", *options, "go", code=1)
    events = events_of(first.stdout)
    assert [events[0]["type"], events[-1]["type"]] == ["session_started", "run_finished"]
    assert events[-1]["stop_reason"] == "max_tokens"
    assert f"dsv4agent resume {events[0]['session_id']}" in first.stderr
    again = events_of(dsv4agent("resume", "--sandbox", "none", "--max-tokens", "9", "--json", code=1).stdout)
    assert again[0]["resumed"] is True
    assert again[0]["session_id"] == events[0]["session_id"]
    assert again[-1]["sampled_tokens"] == 9
    [listed] = map(json.loads, dsv4agent("sessions", "list", "--json").stdout.splitlines())
    assert listed["session_id"] == events[0]["session_id"]
    assert listed["task"].startswith("go")
    shown = json.loads(dsv4agent("sessions", "show", "--json").stdout)
    assert shown["messages"][1]["content"] == f"go\n\nWorkspace: {workspace}"
    assert shown["header"]["model"]["path"] == model
    text = dsv4agent("sessions", "show", str(listed["session_id"])).stdout
    assert "go" in text
    assert "step 1" in text
    assert str(listed["session_id"]) in dsv4agent("sessions", "list").stdout


def test_text_shows_summary_and_changes(model: str, workspace: Path) -> None:
    git = ("git", "-C", str(workspace), "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
    (workspace / "a.txt").write_text("hello\nmoon\n")
    (workspace / "new.txt").write_text("new")
    options = ("--repo", str(workspace), "--model", model, "--max-tokens", "20")
    output = dsv4agent("run", *options, "go", code=1).stdout
    for part in (
        "-world",
        "+moon",
        "new file: new.txt",
        "sampled at",
        "resume  dsv4agent resume",
        "max_tokens: ",
    ):
        assert part in output


def test_git_configuration_of_the_workspace_runs_nothing_outside_the_sandbox(
    model: str, workspace: Path
) -> None:
    subprocess.run(["git", "-C", str(workspace), "init", "-q"], check=True)
    witness = workspace.parent / "witness"
    subprocess.run(
        ["git", "-C", str(workspace), "config", "core.fsmonitor", f"touch {witness}; false"], check=True
    )
    options = ("--repo", str(workspace), "--model", model, "--max-tokens", "5")
    dsv4agent("run", *options, "go", code=1)
    assert not witness.exists()


def test_ctrl_c_leaves_a_session_that_goes_on(model: str, workspace: Path) -> None:
    options = ("--repo", str(workspace), "--model", model, "--sandbox", "none", "--json")
    with subprocess.Popen(
        [*COMMAND, "run", *options, "go"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(6)]
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    events = events_of("".join(seen) + output)
    assert events[-1]["stop_reason"] == "interrupted"
    assert f"dsv4agent resume {find_session().name}" in errors
    assert [session.problem for session in list_sessions()] == [None]
    resumed = events_of(
        dsv4agent("resume", "--sandbox", "none", "--max-tokens", "5", "--json", code=1).stdout
    )
    assert resumed[-1]["stop_reason"] == "max_tokens"


def test_ctrl_c_while_loading_stores_nothing(model: str, workspace: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", "--repo", str(workspace), "--model", model, "--sandbox", "none", "go"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        deadline = time.monotonic() + 60
        # The handler stands as soon as the engine's library is being loaded.
        while not handles_sigint(process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert all(session.problem is None for session in list_sessions())


def handles_sigint(pid: int) -> bool:
    """Whether asyncio has taken over the signal, which it does with a wake-up descriptor of its own."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return "libtorch_cpu" in maps


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "--model", "/nowhere", "go"), 4, "No model at /nowhere: config.json is missing."),
        (("run", "--model", "{model}", "--mode", "loud", "go"), 2, "--mode"),
        (("run", "--repo", "/nowhere", "go"), 2, "--repo"),
        (("run", "--max-steps", "0", "go"), 2, "--max-steps"),
        (("resume", "nothing"), 5, "No session has the id 'nothing'."),
        (("sessions", "show"), 5, "There is no session yet."),
        (("models", "/nowhere"), 4, "No model at /nowhere"),
        (("plan", "/nowhere", "--gpu", "1"), 4, "No model at /nowhere"),
        pytest.param(("bench", "engine"), 4, "No CUDA device is usable here", marks=WITHOUT_CARD),
        pytest.param(("profile", "step", "--json"), 4, "No CUDA device", marks=WITHOUT_CARD),
        (("plan", "flash", "--gpu", "139"), 4, "not enough memory for routed experts: pinned host memory"),
        (("plan", "pro", "--gpu", "139", "--gpus", "3"), 2, "3 GPUs cannot divide 384 experts"),
        ((), 2, "Usage"),
    ],
)
def test_errors_are_one_message_and_a_code(
    model: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = dsv4agent(*(part.replace("{model}", model) for part in arguments), code=code)
    assert message in result.stderr + result.stdout


def test_without_its_sandbox_nothing_runs(model: str, workspace: Path, home: Path, tmp_path: Path) -> None:
    options = ("--repo", str(workspace), "--model", model, "--sandbox", "bubblewrap")
    result = subprocess.run(
        [*COMMAND, "run", *options, "go"],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": str(tmp_path), "DSV4AGENT_HOME": str(home)},
    )
    assert result.returncode == 3, result.stderr
    assert "install the package `bubblewrap`" in result.stderr
    assert "Traceback" not in result.stderr
    assert list_sessions() == []
    assert list((home / "sessions").iterdir()) == []


def test_models_are_described(model: str) -> None:
    rows = [json.loads(line) for line in dsv4agent("models", model, "--json").stdout.splitlines()]
    assert rows[-1]["path"] == model
    assert rows[-1]["context_window"] == 8192
    assert rows[-1]["mode"] == "non-think"
    assert model in dsv4agent("models", model).stdout


def test_a_plan_says_what_goes_where() -> None:
    arguments = ("plan", "flash", "--gpu", "139", "--host", "120")
    lines = dsv4agent(*arguments).stdout.splitlines()
    assert re.fullmatch(r"needs \d+\.\d GiB: \d+\.\d on the GPU, \d+\.\d in pinned host memory", lines[0])
    assert any(line.startswith("routed experts") for line in lines)
    [plan] = map(json.loads, dsv4agent(*arguments, "--json").stdout.splitlines())
    assert f"{plan['gpu_bytes'] / 2**30:.1f} on the GPU" in lines[0]
    assert plan["gpu_bytes"] == sum(part["gpu"] for part in plan["parts"]) <= 139 * 2**30
    assert plan["floor_ms"]["overlapped"] < plan["floor_ms"]["serial"]


def test_a_folder_is_planned_before_its_weights_are_there(model: str, tmp_path: Path) -> None:
    shutil.copy(Path(model) / "config.json", tmp_path)
    [plan] = map(json.loads, dsv4agent("plan", str(tmp_path), "--gpu", "4", "--json").stdout.splitlines())
    assert plan["context"] == 8192
    assert plan["host_bytes"] == 0


def test_the_doctor_tries_and_tells() -> None:
    result = subprocess.run([*COMMAND, "doctor", "--json"], capture_output=True, text=True, timeout=120)
    findings = {row["name"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert {
        "python",
        "torch",
        "git",
        "rg",
        "bwrap",
        "sessions",
        "sandbox bubblewrap",
        "sandbox landlock",
    } <= set(findings)
    assert "threads" in findings["torch"]["detail"]
    for finding in findings.values():
        assert finding["ok"] or finding["remedy"]
    assert result.returncode == (0 if all(row["ok"] for row in findings.values() if row["needed"]) else 4)


def test_a_failed_check_is_taken_back_and_tried_again(model: str, workspace: Path) -> None:
    options = ("--repo", str(workspace), "--model", model, "--max-tokens", "20", "--seed", "5")
    marker = workspace / "tries"
    # The check itself counts; what it wrote stays, because no agent's step did.
    check = f"echo x >> {marker}; test $(wc -l < {marker}) = 2"
    done = dsv4agent("run", *options, "--check", check, "--attempts", "3", "go", code=0)
    assert "The check failed (exit code 1)." in done.stderr and "attempt 2 of 3" in done.stderr
    assert done.stderr.rstrip().endswith("The check passed.")
    assert marker.read_text() == "x\nx\n"
    failed = dsv4agent("run", *options, "--check", "echo so it is; exit 3", "go", code=7)
    assert "so it is\nThe check failed (exit code 3)." in failed.stderr
    refused = dsv4agent("run", *options, "--attempts", "2", "go", code=2)
    assert "--check" in refused.stderr


def test_profile_and_network_reach_the_session(model: str, workspace: Path) -> None:
    options = ("--repo", str(workspace), "--model", model, "--max-tokens", "5", "--json")
    first = dsv4agent(
        "run", *options, "--profile", "full", "--network", "example.org,*.example.com", "go", code=1
    )
    started = events_of(first.stdout)[0]
    tools, sandbox = started["tools"], started["sandbox"]
    assert isinstance(tools, tuple) and "git" in tools and "web_fetch" in tools
    assert isinstance(sandbox, dict)
    if sandbox["provider"] == "bubblewrap":
        assert "network: only example.org, *.example.com, through the proxy" in sandbox["notes"]
    wrong = dsv4agent("run", *options, "--network", "http://example.org/", "go", code=2)
    assert "write a host name, not a URL" in wrong.stderr
