"""Attacks on the end of programs: survivors, held pipes, and a host that collects what they print."""
# ruff: noqa: ASYNC240 - the host only looks, at files of its own
# ruff: noqa: E501 - programs of attackers stand as they would be run

from __future__ import annotations

import os
import time
from pathlib import Path

import anyio

from dsv4agent.sandboxes import Policy, SandboxError
from tests.attacks.attack import Attack, Run, family
from tests.attacks.programs import py, sh
from tests.attacks.stage import Stage, host_processes


async def _mark_is_gone(mark: str, patience: float = 2.0) -> bool:
    for _ in range(int(patience / 0.05)):
        if not any(mark in view.command() for view in host_processes()):
            return True
        await anyio.sleep(0.05)
    return False


def _outlives(source: str) -> Run:
    """Run a program that tries to stay; see whether anything of it is left once the run has ended."""

    async def run(stage: Stage) -> str:
        mark = f"dsv4agent-survivor-{os.urandom(6).hex()}"
        program = py(source)
        started = time.monotonic()
        await stage.run(program, timeout=1.0, env={"MARK": mark})
        if time.monotonic() - started > 6:
            return "the host waited for it"
        if await _mark_is_gone(mark):
            return ""
        for view in host_processes():
            if mark in view.command():
                os.kill(view.pid, 9)
        return "a process outlived its program"

    return run


# Survivors are `sleep 20`s by another name, so that they end by themselves.
_SLEEP = """
def sleeper(*before):
    return [*before, "bash", "-c", 'exec -a "$MARK" sleep 20']
"""
_HOPPER = r"""
# A process that lives a moment and hands on to a child: whoever lists processes sees only the dead.
import os, time, sys
end = time.time() + 6
for _ in range(6):
    if os.fork() == 0:
        break
while time.time() < end:
    if os.fork():
        os._exit(0)
    try:
        os.setsid()
    except OSError:
        pass
"""


async def _hopper(stage: Stage) -> str:
    mark = f"dsv4agent-hopper-{os.urandom(6).hex()}"
    program = py("os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', T['HOPPER'], T['MARK']])")
    await stage.run(program, timeout=0.5, env={"MARK": mark, "HOPPER": _HOPPER})
    seen = 0
    for _ in range(60):
        seen += any(mark in view.command() for view in host_processes())
        await anyio.sleep(0.01)
    await _mark_is_gone(mark, 8.0)
    return "a process that forks all the time outlived its program" if seen else ""


async def _deep_folder(stage: Stage) -> str:
    """Leave a temporary folder that is deep: the host that clears it must not stumble."""
    program = py("""
os.chdir(T["TMPDIR"])
for _ in range(1200):
    os.mkdir("d")
    os.chdir("d")
""")
    before = set(Path("/tmp").glob("dsv4agent-*"))
    sandbox = await stage.open(Policy(str(stage.workspace)))
    scratch = set(Path("/tmp").glob("dsv4agent-*")) - before
    await sandbox.run(program.argv(), timeout=8)
    try:
        await sandbox.aclose()
    except RecursionError:
        return "closing the sandbox fails with a RecursionError"
    finally:
        for folder in scratch:
            await anyio.run_process(["rm", "-rf", str(folder)], check=False)
    return ""


async def _flood(stage: Stage) -> str:
    """Print without end: a run must end at its time limit, and the sandbox must go on."""
    started = time.monotonic()
    await stage.run(sh("timeout 1 head -c 300000000 /dev/zero; yes | head -c 100000000"), timeout=2)
    spent = time.monotonic() - started
    alive = await stage.run(sh("echo alive"))
    if alive.stdout != b"alive\n":
        return "after a flood of output no program runs"
    return f"a flood of output held the host for {spent:.1f} s" if spent > 8 else ""


async def _held_pipes(stage: Stage) -> str:
    """End while a daemon keeps the pipes open; the host must not wait for it."""
    started = time.monotonic()
    await stage.run(sh("(sleep 6; true) & disown; exit 0"), timeout=5)
    return "the host waits for pipes that a survivor holds" if time.monotonic() - started > 4 else ""


async def _closed_pipes(stage: Stage) -> str:
    """Close every descriptor and go on: the host must not take that for the end, nor wait for ever."""
    process = await stage.sandbox.spawn(["bash", "-c", "exec 0<&- 1>&- 2>&- 3>&-; sleep 20"])
    try:
        await anyio.sleep(0.2)
        await process.kill(0.5)
        with anyio.fail_after(3):
            await process.read()
    except TimeoutError:
        return "the host waits for descriptors that are closed"
    except (OSError, SandboxError) as error:
        return f"the host failed: {error}"
    return ""


ATTACKS = family(
    "survivors",
    "processes",
    *(
        Attack(name, description, "processes", _outlives(_SLEEP + source), alone=False)
        for name, description, source in (
            (
                "double_fork",
                "Forks twice and leaves its session.",
                """
if not os.fork():
    os.setsid()
    if not os.fork():
        os.execvp("bash", sleeper())
    os._exit(0)
time.sleep(0.2)
""",
            ),
            (
                "nohup",
                "Starts with nohup and setsid, disowned.",
                """
subprocess.Popen(["bash", "-c", "nohup setsid bash -c 'exec -a \\"$MARK\\" sleep 20' >/dev/null 2>&1 & disown"])
time.sleep(0.2)
""",
            ),
            (
                "subreaper",
                "Adopts its orphans itself and leaves many generations.",
                """
libc.prctl(36, 1, 0, 0, 0)
for _ in range(5):
    if os.fork():
        time.sleep(0.3)
        os._exit(0)
    os.setsid()
    libc.prctl(36, 1, 0, 0, 0)
os.execvp("bash", sleeper())
""",
            ),
            (
                "ignored_signals",
                "Ignores and blocks every signal that can be, and never ends.",
                """
for number in range(1, 65):
    quietly(signal.signal, number, signal.SIG_IGN)
quietly(signal.pthread_sigmask, signal.SIG_BLOCK, range(1, 65))
subprocess.run(sleeper(), start_new_session=True)
""",
            ),
            (
                "stopped",
                "Stops itself and its children, so that signals wait.",
                """
child = subprocess.Popen(sleeper(), start_new_session=True)
time.sleep(0.2)
os.kill(child.pid, signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGSTOP)
""",
            ),
            (
                "killed_parents",
                "Kills all processes above it, the cage's own if it can.",
                """
if not os.fork():
    os.setsid()
    for pid in (os.getppid(), 1):
        pass
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and b"launcher" in (
            quietly(lambda: open(f"/proc/{name}/cmdline", "rb").read()) or b""):
            quietly(os.kill, int(name), signal.SIGKILL)
    os.execvp("bash", sleeper())
time.sleep(0.2)
""",
            ),
            (
                "vfork_chain",
                "Starts ever new sessions under other names while its parent ends.",
                """
for _ in range(20):
    if os.fork():
        os._exit(0)
    os.setsid()
    libc.prctl(15, b"kworker/0:0", 0, 0, 0)
os.execvp("bash", sleeper())
""",
            ),
            (
                "job_services",
                "Asks systemd, at and cron to run it.",
                """
command = 'exec -a "$MARK" sleep 20'
for line in (["systemd-run", "--user", "bash", "-c", command], ["systemd-run", "bash", "-c", command],
             ["at", "now"], ["batch"], ["crontab", "-"], ["start-stop-daemon", "-S", "-b", "-x", "/bin/sleep", "--", "20"]):
    quietly(subprocess.run, line, input=command.replace("$MARK", T["MARK"]).encode(), timeout=1, capture_output=True)
""",
            ),
        )
    ),
    Attack(
        "hopper", "Forks on without pause, so that no list of processes shows it alive.", "processes", _hopper
    ),
    Attack("deep_folder", "Leaves a temporary folder 1,200 levels deep.", "host", _deep_folder),
    Attack("output_flood", "Prints four hundred million bytes.", "host", _flood),
    Attack("held_pipes", "Ends while a daemon holds its pipes.", "host", _held_pipes),
    Attack("closed_pipes", "Closes all of its descriptors and goes on.", "host", _closed_pipes),
)
