"""Errors of the encoding.

ProtocolError
├── EncodingError            messages cannot be rendered (reason code)
├── CompletionParseError     a completion breaks the strict grammar (reason code)
├── ApiRequestError          a wire request is refused, as an HTTP 400 would be
└── TokenizerError           tokenizer.json is missing, broken or unfit
"""

from __future__ import annotations


class ProtocolError(ValueError):
    """Raised when text, ids or messages do not fit the chat protocol.

    Attributes:
        reason: Stable snake_case code of the condition.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class EncodingError(ProtocolError):
    """Raised when a conversation cannot be rendered into a prompt."""


class CompletionParseError(ProtocolError):
    """Raised when a completion does not follow the strict grammar of its revision."""


class ApiRequestError(ProtocolError):
    """Raised when a wire request is invalid.

    Attributes:
        status: The HTTP status a server answers with.
    """

    def __init__(self, message: str, *, reason: str = "invalid_request_error", status: int = 400) -> None:
        super().__init__(message, reason=reason)
        self.status = status

    def body(self) -> dict[str, object]:
        """Return the JSON body of the error response in the OpenAI shape."""
        return {"error": {"message": str(self), "type": self.reason, "param": None, "code": self.reason}}


class TokenizerError(ProtocolError):
    """Raised when a tokenizer file is missing, broken, or lacks what the protocol needs."""
