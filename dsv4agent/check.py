"""A command that says whether a task is done."""

from __future__ import annotations

from dataclasses import dataclass

from dsv4agent.sandboxes import Completed, Sandbox

NOT_ENDED = 124
"""Exit code of a check that took too long, as `timeout` gives it."""


@dataclass(frozen=True)
class Check:
    """A shell command, run in the session's sandbox in the workspace; exit code 0 means done.

    Attributes:
        command: For bash.
        seconds: After so many it counts as failed.
    """

    command: str
    seconds: float = 600.0

    async def run(self, sandbox: Sandbox) -> Completed:
        """Return how the command ended.

        Raises:
            SandboxError: The sandbox failed.
        """
        try:
            return await sandbox.run(("bash", "-c", self.command), timeout=self.seconds)
        except TimeoutError:
            said = f"the check did not end within {self.seconds:g} s\n"
            return Completed(NOT_ENDED, b"", said.encode())
