"""A process that runs a scripted session and is killed again and again.

It forks one child per line of standard input, `FOLDER OUTPUT`: the child goes on with the session of that
home folder, or starts one, and prints its events to the output file. The parent of all writes the child's
pid at once and
`end` when it is gone. Forking saves the seconds that importing everything would take each time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

from dsv4agent import Agent, RunFinished
from dsv4agent.transcript import list_sessions
from tests.scripted import ScriptedBackend, Turn, calls, says

STEPS = 8


def script() -> list[Turn]:
    """Return turns whose commands leave a trace each: what ran, and how often."""
    turns: list[Turn] = [
        calls(
            ("bash", {"command": f"echo {step}.1 >> trace; sleep 0.02; echo ok {step}.1"}),
            ("bash", {"command": f"echo {step}.2 >> trace; echo ok {step}.2"}),
            text=f"Step {step}. " + "Thinking aloud. " * 4,
        )
        for step in range(1, STEPS + 1)
    ]
    return [*turns, says("All steps are done.")]


async def work(workspace: Path, output: Path) -> None:
    """Run or resume, printing events as they come."""
    agent: Agent[None] = Agent(ScriptedBackend(script(), delay=0.001, chunk=5))
    known = list_sessions()
    task = None
    if known:
        session = agent.session(resume=known[0].session_id, sandbox="none")
    else:
        session = agent.session(workspace, sandbox="none", seed=1)
        task = "do all steps"
    with output.open("a", buffering=1) as file:
        async with session:
            if not session.messages()[1:]:
                task = "do all steps"
            async for event in session.run(task):
                file.write(event.model_dump_json() + "\n")
                if isinstance(event, RunFinished):
                    return


def main() -> None:
    for line in sys.stdin:
        folder, output = line.split()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            os.environ["DSV4AGENT_HOME"] = folder
            anyio.run(work, Path(folder) / "workspace", Path(output))
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        os.waitpid(pid, 0)
        sys.stdout.write("end\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
