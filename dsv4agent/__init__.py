"""A Python agent runtime with the DeepSeek-V4 engine in the same process: the transcript is tokens.

```python
from dsv4agent import Agent, RunFinished

async with Agent("mini") as agent, agent.session(repo=".") as session:
    async for event in session.run("make the failing test pass"):
        print(event)
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsv4agent.agent import Agent
    from dsv4agent.budgets import Limits
    from dsv4agent.errors import (
        BackendError,
        CheckpointMismatch,
        Dsv4agentError,
        ModelNotFound,
        SessionBusy,
        SessionClosed,
        SessionCorrupt,
        SessionError,
        SessionNotFound,
        ToolDefinitionError,
        ToolError,
        UsageError,
    )
    from dsv4agent.functions import RunContext, ToolFunction, tool
    from dsv4agent.sandboxes import Policy, SandboxError, SandboxUnavailable
    from dsv4agent.session import Ledger, Session
    from dsv4agent.transcript import (
        Event,
        ReasoningDelta,
        Rewound,
        RunFinished,
        SessionStarted,
        SessionWarning,
        StepFinished,
        StepStarted,
        StopReason,
        TextDelta,
        ToolCallFinished,
        ToolCallStarted,
        ToolOutput,
        TurnDiscarded,
        UserMessage,
    )

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "BackendError",
    "CheckpointMismatch",
    "Dsv4agentError",
    "Event",
    "Ledger",
    "Limits",
    "ModelNotFound",
    "Policy",
    "ReasoningDelta",
    "Rewound",
    "RunContext",
    "RunFinished",
    "SandboxError",
    "SandboxUnavailable",
    "Session",
    "SessionBusy",
    "SessionClosed",
    "SessionCorrupt",
    "SessionError",
    "SessionNotFound",
    "SessionStarted",
    "SessionWarning",
    "StepFinished",
    "StepStarted",
    "StopReason",
    "TextDelta",
    "ToolCallFinished",
    "ToolCallStarted",
    "ToolDefinitionError",
    "ToolError",
    "ToolFunction",
    "ToolOutput",
    "TurnDiscarded",
    "UsageError",
    "UserMessage",
    "__version__",
    "tool",
]

# Names are loaded when they are first used: importing one room of the house (`dsv4agent.engine`, say) must
# not bring the runtime with it, and this module is loaded with each of them.
_PLACES = {
    "dsv4agent.agent": ("Agent",),
    "dsv4agent.budgets": ("Limits",),
    "dsv4agent.errors": (
        "BackendError",
        "CheckpointMismatch",
        "Dsv4agentError",
        "ModelNotFound",
        "SessionBusy",
        "SessionClosed",
        "SessionCorrupt",
        "SessionError",
        "SessionNotFound",
        "ToolDefinitionError",
        "ToolError",
        "UsageError",
    ),
    "dsv4agent.functions": (
        "RunContext",
        "ToolFunction",
        "tool",
    ),
    "dsv4agent.sandboxes": (
        "Policy",
        "SandboxError",
        "SandboxUnavailable",
    ),
    "dsv4agent.session": (
        "Ledger",
        "Session",
    ),
    "dsv4agent.transcript": (
        "Event",
        "ReasoningDelta",
        "Rewound",
        "RunFinished",
        "SessionStarted",
        "SessionWarning",
        "StepFinished",
        "StepStarted",
        "StopReason",
        "TextDelta",
        "ToolCallFinished",
        "ToolCallStarted",
        "ToolOutput",
        "TurnDiscarded",
        "UserMessage",
    ),
}


def __getattr__(name: str) -> object:
    for module, names in _PLACES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module 'dsv4agent' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
