"""Limits of the bundled model's runs, which its data, its checkpoint and the product must share."""

from typing import Final

CONTEXT: Final = 8192
"""Tokens of a whole session."""
MAX_STEPS: Final = 20
"""Assistant turns of one run."""
DOCUMENT_TOKENS: Final = 6144
"""Tokens of one training document at most."""
COMMAND_SECONDS: Final = 10
"""Seconds after which a command is stopped: a wrong edit may loop for ever."""
REDRAWS: Final = 4
"""Draws of a turn that are discarded at most because its edits leave nothing new."""
