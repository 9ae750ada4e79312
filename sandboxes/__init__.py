"""Sandboxes: the only door from a tool to processes and files."""

from dsv4agent.sandboxes.choice import ProviderName, ProviderStatus, choose_sandbox, probe
from dsv4agent.sandboxes.errors import (
    ProgramsUnsupported,
    SandboxClosed,
    SandboxCrashed,
    SandboxError,
    SandboxUnavailable,
)
from dsv4agent.sandboxes.memory import MemorySandbox
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
    "MemorySandbox",
    "Policy",
    "Process",
    "ProgramsUnsupported",
    "ProviderName",
    "ProviderStatus",
    "Sandbox",
    "SandboxClosed",
    "SandboxCrashed",
    "SandboxError",
    "SandboxUnavailable",
    "choose_sandbox",
    "probe",
]
