"""What works on this machine, what does not, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import asdict
from importlib import metadata

import anyio
from rich.console import Console

from dsv4agent import __version__
from dsv4agent.backends.checkpoint import BUNDLED, Checkpoint
from dsv4agent.cli.exits import ExitCode
from dsv4agent.cli.listings import write_json
from dsv4agent.cli.machine import Finding, examine_machine
from dsv4agent.errors import ModelNotFound
from dsv4agent.sandboxes import Enforcement, ProviderStatus, probe
from dsv4agent.transcript import sessions_dir

_PROGRAMS = {
    "git": ("--version", "the agent's repositories and the summary of changes", "apt install git"),
    "rg": ("--version", "fast search in large repositories", "apt install ripgrep"),
    "bwrap": ("--version", "the strongest sandbox", "apt install bubblewrap"),
}

_NO_SANDBOX = "get one of those above; on a machine that is itself disposable, ask for --sandbox none"


def examine() -> list[Finding]:
    """Try everything that a run depends on."""
    findings = [
        Finding("dsv4agent", True, __version__),
        Finding("python", True, f"{platform.python_version()} on {platform.platform()}"),
        _torch(),
        *map(_program, _PROGRAMS),
        *examine_machine(),
        *map(_model, BUNDLED),
        _state_folder(),
    ]
    statuses = anyio.run(probe)
    working = [status.name for status in statuses if status.available]
    findings += [_sandbox(status, needed=not working) for status in statuses]
    findings.append(
        Finding("sandbox auto", True, f"takes {working[0]}")
        if working
        else Finding("sandbox auto", False, "finds none, so no session starts", True, _NO_SANDBOX)
    )
    return findings


def show_report(*, as_json: bool) -> ExitCode:
    """Print the findings. The exit code tells whether the agent can run here."""
    findings = examine()
    console = Console()
    for finding in findings:
        if as_json:
            write_json(asdict(finding))
            continue
        mark, style = (
            ("ok", "green")
            if finding.ok
            else (("MISSING", "red") if finding.needed else ("absent", "yellow"))
        )
        console.print(f"[{style}]{mark:>8}[/]  ", end="")
        console.print(f"{finding.name}: {finding.detail}", markup=False, highlight=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"          {finding.remedy}", markup=False, highlight=False, soft_wrap=True)
    missing = [finding for finding in findings if finding.needed and not finding.ok]
    if any(finding.name.startswith("sandbox") for finding in missing):
        return ExitCode.SANDBOX_UNAVAILABLE
    return ExitCode.MODEL if missing else ExitCode.OK


def _torch() -> Finding:
    # Imported here, because only this and a loaded model need it and it takes long.
    import torch

    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} cores"
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("torch", True, f"{metadata.version('torch')}, {threads}, {', '.join(devices) or 'no GPU'}")


def _sandbox(status: ProviderStatus, *, needed: bool) -> Finding:
    name = f"sandbox {status.name}"
    if status.report is None:
        return Finding(name, False, "does not open", needed, status.reason)
    words = {Enforcement.FULL: "fully", Enforcement.PARTIAL: "partly", Enforcement.NONE: "not"}
    parts: list[str] = []
    for level, word in words.items():
        names = [name for name, found in status.report.guarantees.items() if found is level]
        parts += [f"{word}: {', '.join(names)}"] if names else []
    return Finding(name, True, "; ".join((*parts, *status.report.notes)))


def _program(name: str) -> Finding:
    flag, purpose, remedy = _PROGRAMS[name]
    path = shutil.which(name)
    if path is None:
        return Finding(
            name, False, f"not found; needed for {purpose}", remedy=f"{remedy} (or your system's like)"
        )
    try:
        output = subprocess.run([path, flag], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name, False, f"{path} does not run: {error}", remedy=remedy)
    return Finding(name, True, f"{output.splitlines()[0]} ({path})" if output else path)


def _model(name: str) -> Finding:
    try:
        checkpoint = Checkpoint.find(name)
    except ModelNotFound as error:
        return Finding(
            f"model {name}", False, str(error), True, "reinstall the package, or give --model a folder"
        )
    size = checkpoint.size_bytes / 1e6
    return Finding(f"model {name}", True, f"{size:.1f} MB, context {checkpoint.context_window} tokens")


def _state_folder() -> Finding:
    try:
        folder = sessions_dir()
    except OSError as error:
        return Finding("sessions", False, str(error), True, "set DSV4AGENT_HOME to a folder you may write")
    return Finding("sessions", os.access(folder, os.W_OK), str(folder), True)
