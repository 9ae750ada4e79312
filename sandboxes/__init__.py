"""Sandboxes: the only door from a tool to processes and files."""

from dsv4agent.sandboxes.choice import ProviderName, ProviderStatus, choose_sandbox, probe
from dsv4agent.sandboxes.errors import (
    ProgramsUnsupported,
    SandboxClosed,
    SandboxCrashed,
    SandboxError,
    SandboxUnavailable,
)
from dsv4agent.sandboxes.gate import Connection, Gate, NetworkDenied
from dsv4agent.sandboxes.memory import MemorySandbox
from dsv4agent.sandboxes.protocol import (
    Completed,
    Enforcement,
    EnforcementReport,
    FileStat,
    Network,
    NetworkMode,
    Policy,
    Process,
    ResourceLimits,
    Sandbox,
)

__all__ = [
    "Completed",
    "Connection",
    "Enforcement",
    "EnforcementReport",
    "FileStat",
    "Gate",
    "MemorySandbox",
    "Network",
    "NetworkDenied",
    "NetworkMode",
    "Policy",
    "Process",
    "ProgramsUnsupported",
    "ProviderName",
    "ProviderStatus",
    "ResourceLimits",
    "Sandbox",
    "SandboxClosed",
    "SandboxCrashed",
    "SandboxError",
    "SandboxUnavailable",
    "choose_sandbox",
    "probe",
]
