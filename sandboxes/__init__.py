"""Sandboxes: the only door from a tool to processes and files."""

from dsv4agent.sandboxes.protocol import (
    Completed,
    Enforcement,
    EnforcementReport,
    FileStat,
    Policy,
    Process,
    Sandbox,
)

__all__ = [
    "Completed",
    "Enforcement",
    "EnforcementReport",
    "FileStat",
    "Policy",
    "Process",
    "Sandbox",
]
