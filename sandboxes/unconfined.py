"""No cage at all, for machines that are disposable themselves. Never chosen unless asked for by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from dsv4agent.sandboxes.caged import WATCHED, CagedCommand, CagedSandbox
from dsv4agent.sandboxes.enforcement import Facts
from dsv4agent.sandboxes.landlock import launcher_command
from dsv4agent.sandboxes.protocol import Enforcement, EnforcementReport, NetworkMode


class UnconfinedSandbox(CagedSandbox):
    """Runs programs with all rights of this user, but a scrubbed environment and no surviving daemons."""

    provider = "none"
    machinery = 1  # the supervisor
    promises = ()

    @classmethod
    def require(cls) -> None:
        """Need nothing."""

    @classmethod
    def remedy(cls) -> str:
        """Say what is missing when not even this works."""
        return "check that Python can start processes here"

    def _prepare(self) -> None:
        pass  # There are no rules to work out.

    def _trials(self) -> tuple[list[str], list[str]]:
        # Nothing would refuse a trial, so the host is left alone.
        return [], []

    def _assess(self, facts: Facts) -> EnforcementReport:
        notes = ["nothing is confined, as asked for by name"]
        if self._policy.network.mode is NetworkMode.ALLOW_LIST:
            notes.append("network: the list of hosts binds the runtime's own requests only")
        if self._group is None:
            notes.append(f"limits: {WATCHED}")
        return EnforcementReport(
            self.provider,
            {
                "writes": Enforcement.NONE,
                "reads": Enforcement.NONE,
                "network": Enforcement.NONE,
                "environment": Enforcement.NONE if facts.secrets else Enforcement.FULL,
                "system_calls": Enforcement.NONE,
                "processes": Enforcement.NONE,
                "secrets": Enforcement.NONE,
                "repositories": Enforcement.NONE,
                "limits": Enforcement.FULL if self._group is not None else Enforcement.PARTIAL,
            },
            tuple(notes),
        )

    def _home_and_temporary(self) -> tuple[str, str]:
        return os.path.expanduser("~"), self._scratch

    def _command(
        self, argv: Sequence[str], cwd: str, environment: Mapping[str, str], *, repositories: bool
    ) -> CagedCommand:
        return launcher_command({"landlock": None, "seccomp": None, "cwd": cwd}, argv, environment)
