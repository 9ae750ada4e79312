"""Reasoning effort: the names a revision accepts and the prefix each puts before the conversation."""

from __future__ import annotations

from typing import Final

from dsv4agent.encoding.errors import EncodingError
from dsv4agent.encoding.revision import Revision
from dsv4agent.encoding.wording import EFFORT_ABSOLUTE, EFFORT_BEYOND, effort_number

# The same name stands for another tier in each revision: what the preview calls max, the next one calls high.
_TEXTS: Final[dict[Revision, dict[object, str]]] = {
    Revision.V4_PREVIEW: {None: "", "high": "", "max": EFFORT_ABSOLUTE},
    Revision.V4_0731: {None: "", "": "", "low": "", "high": EFFORT_ABSOLUTE, "max": EFFORT_BEYOND},
}
_NUMBERS: Final[dict[object, int]] = {None: 75, "low": 50, "high": 75, "max": 100}


def effort_text(effort: object, revision: Revision) -> str:
    """Return the effort prefix, possibly empty.

    Args:
        effort: None or a name; with V4.1 also an int of 1 to 100.
        revision: The revision whose table applies.

    Raises:
        EncodingError: `invalid_reasoning_effort`.
    """
    if revision is Revision.V4_1:
        if effort is None or isinstance(effort, str):
            number = _NUMBERS.get(effort)
        else:
            number = effort if type(effort) is int and 1 <= effort <= 100 else None
        if number is not None:
            return effort_number(number)
        accepted = "None, 'low', 'high', 'max' or an int of 1 to 100"
    else:
        table = _TEXTS[revision]
        if effort is None or isinstance(effort, str):
            text = table.get(effort)
            if text is not None:
                return text
        accepted = ", ".join(repr(name) for name in table)
    raise EncodingError(
        f"Invalid reasoning effort {effort!r} for {revision.value}; use {accepted}.",
        reason="invalid_reasoning_effort",
    )
