from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dsv4agent import Event, SessionStarted
from dsv4agent.transcript import EVENT_ADAPTER

NUMBERS = st.floats(0, 4e9)
GIVEN = {
    "time": NUMBERS,
    "seconds": NUMBERS,
    "duration_ms": NUMBERS,
    "sandbox": st.just({"provider": "none", "notes": ["é"]}),
}


def events() -> st.SearchStrategy[Event]:
    kinds: tuple[type[SessionStarted], ...] = get_args(Event)
    assert len(kinds) == 13
    return st.one_of(
        *(
            st.builds(kind, **{name: given for name, given in GIVEN.items() if name in kind.model_fields})
            for kind in kinds
        )
    )


@given(events())
def test_every_event_survives_json(event: Event) -> None:
    assert EVENT_ADAPTER.validate_json(event.model_dump_json()) == event


def test_unknown_events_and_fields_are_refused() -> None:
    with pytest.raises(ValidationError):
        EVENT_ADAPTER.validate_python({"type": "nonsense"})
    with pytest.raises(ValidationError):
        EVENT_ADAPTER.validate_python({"type": "text_delta", "text": "a", "extra": 1})
