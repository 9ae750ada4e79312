"""Checkpoints of the workspace around each step, so that files can go back with the conversation."""

from __future__ import annotations

from dsv4agent.errors import UsageError
from dsv4agent.tools import Actor, Checkpoints, GitRefused, Refused, Restored


class WorkspaceSaves:
    """Saves the files before and after the calls of each step.

    What changed between an `after` and the next `before` is the user's, the rest the agent's; only the
    agent's changes ever go back.

    Args:
        checkpoints: Of the session.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._open_step: int | None = None
        self._refusal: GitRefused | None = None

    async def before(self, step: int) -> str | None:
        """Save the files before the first call of a step.

        Returns:
            Why there are no checkpoints, told once; None otherwise.
        """
        if self._refusal is not None or self._open_step == step:
            return None
        self._open_step = step
        return await self._save(_before(step), Actor.AGENT)

    async def after(self, step: int) -> str | None:
        """Save the files after the calls of a step, if there were any. Returns as `before`."""
        if self._refusal is not None or self._open_step != step:
            return None
        self._open_step = None
        return await self._save(f"after step {step}", Actor.USER)

    async def restore(self, step: int) -> Restored | None:
        """Take the agent's changes since before a step back; None if the steps since then had no calls.

        Raises:
            UsageError: The files cannot go back (HEAD moved, the user changed the same files, no repository).
        """
        try:
            saved = await self._checkpoints.list()
        except GitRefused as refusal:
            raise UsageError(f"The files cannot go back: {refusal}") from refusal
        labels = {_before(number): number for number in range(step, step + len(saved) + 1)}
        last = {labels[found.label]: found for found in saved if found.label in labels}
        if not last:
            return None
        done = await self._checkpoints.restore(last[min(last)])
        if isinstance(done, Refused):
            about = f" ({', '.join(done.paths[:5])})" if done.paths else ""
            raise UsageError(f"The files cannot go back: {done.code}{about}: {done.reason}.")
        return done

    async def aclose(self) -> None:
        """End the git server; the checkpoints stay."""
        await self._checkpoints.aclose()

    async def _save(self, label: str, hands_to: Actor) -> str | None:
        try:
            await self._checkpoints.save(label, hands_to=hands_to)
        except GitRefused as refusal:
            self._refusal = refusal
            return f"no checkpoints of the files are made: {refusal}"
        return None


def _before(step: int) -> str:
    return f"before step {step}"
