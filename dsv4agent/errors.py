"""The errors of the runtime, one tree.

```
Dsv4agentError
├── ModelNotFound          no checkpoint under the given name or path
├── CheckpointMismatch     a session was recorded with another model
├── ToolDefinitionError    a function or tool cannot be offered to the model
├── ToolError              raised by a tool function: an expected failure that the model reads
├── BackendError           the model cannot go on
├── UsageError             arguments that contradict each other or the state of a session
└── SessionError
    ├── SessionNotFound    no stored session under that id
    ├── SessionBusy        another process is writing the session
    ├── SessionCorrupt     the stored log fails its check
    └── SessionClosed      a call on a session after its end
```

The engine, the encoding and the sandboxes have trees of their own (`dsv4agent.engine`, `dsv4agent.encoding`,
`dsv4agent.sandboxes`). What a model can act on is never an exception but a tool result.
"""

from __future__ import annotations


class Dsv4agentError(Exception):
    """Base of the runtime's errors; the message says what is wrong and what to do next."""


class ModelNotFound(Dsv4agentError):
    """Raised when a model name or path holds no checkpoint."""


class CheckpointMismatch(Dsv4agentError):
    """Raised when a session is resumed with a model other than the one that wrote it."""


class ToolDefinitionError(Dsv4agentError):
    """Raised when a tool has a name, signature or schema that cannot be offered to the model."""


class ToolError(Dsv4agentError):
    """Raised by a tool function to hand the model an expected failure.

    Args:
        code: A stable word such as `not_found`.
        message: What is wrong and the next useful step.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class BackendError(Dsv4agentError):
    """Raised when the model cannot be loaded or cannot go on; the session stays as it is stored."""


class UsageError(Dsv4agentError):
    """Raised when arguments contradict each other or the state of the session."""


class SessionError(Dsv4agentError):
    """Base of the errors about one stored session."""


class SessionNotFound(SessionError):
    """Raised when no stored session has the given id or prefix."""


class SessionBusy(SessionError):
    """Raised when another process holds the session's writer lock."""


class SessionCorrupt(SessionError):
    """Raised when a stored session cannot be read or its chain of digests does not hold."""


class SessionClosed(SessionError):
    """Raised when a session is used before it is entered or after it is closed."""
