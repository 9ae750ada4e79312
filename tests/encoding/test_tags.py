"""Single tags: what is one, what may become one, what is only text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4agent.encoding.symbols import DSML_SYMBOL as D
from dsv4agent.encoding.tags import MAX_TAG, Markup, Tag, TagKind, Undecided, read_tag

TAGS: list[tuple[str, TagKind, Markup, dict[str, str]]] = [
    (f"<{D}tool_calls>", TagKind.BLOCK, Markup.GENUINE, {}),
    (f"<{D} calls>", TagKind.BLOCK, Markup.GENUINE, {}),
    (f"</{D}tool_calls>", TagKind.BLOCK, Markup.GENUINE, {}),
    (f'<{D}invoke name="f">', TagKind.INVOKE, Markup.GENUINE, {"name": "f"}),
    (f'<{D} parameter name="a" string="true">', TagKind.PARAMETER, Markup.GENUINE,
     {"name": "a", "string": "true"}),
    (f'<{D}parameter name="with "q"" string="false">', TagKind.PARAMETER, Markup.GENUINE,
     {"name": 'with "q"', "string": "false"}),
    (f"<{D}parameter string='true' name=a>", TagKind.PARAMETER, Markup.GENUINE,
     {"string": "true", "name": "a"}),
    (f"<{D}invoke name=“f”>", TagKind.INVOKE, Markup.GENUINE, {"name": "f"}),
    (f'<{D}invoke\n  name="f"\n>', TagKind.INVOKE, Markup.GENUINE, {"name": "f"}),
    (f'<｜{D}｜invoke name="f">', TagKind.INVOKE, Markup.VARIANT, {"name": "f"}),
    (f'<{D}invoke｜ name="f">', TagKind.INVOKE, Markup.VARIANT, {"name": "f"}),
    ('<|DSML|invoke name="f">', TagKind.INVOKE, Markup.VARIANT, {"name": "f"}),
    ("</‖DSML‖parameter>", TagKind.PARAMETER, Markup.VARIANT, {}),
    ('<invoke name="f">', TagKind.INVOKE, Markup.PLAIN, {"name": "f"}),
    ("<tool_call>", TagKind.JSON_CALL, Markup.PLAIN, {}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "markup", "attributes"), TAGS)
def test_tags(text: str, kind: TagKind, markup: Markup, attributes: dict[str, str]) -> None:
    tag = read_tag("xy" + text + "z", 2, by_text=True)
    assert isinstance(tag, Tag)
    assert (tag.kind, tag.markup, tag.attributes, tag.end) == (kind, markup, attributes, 2 + len(text))
    assert tag.closing == text.startswith("</")
    # Every beginning of it is undecided, and says whether its marker is genuine and complete.
    for length in range(1, len(text)):
        part = read_tag(text[:length], 0, by_text=True)
        assert part in (Undecided.MORE, Undecided.MORE_GENUINE), text[:length]
        if part is Undecided.MORE_GENUINE:
            assert text[:length].lstrip("</").startswith(D)


@pytest.mark.parametrize(
    "text",
    [
        "<div>",
        "< 3",
        "<invoker>",
        "<invoke>",
        f"<{D}>x",
        f"<{D}invoke>",
        f"<{D}`",
        "<parameter x>",
        "<<",
        "<tool_calls x>",
    ],
)
def test_other_brackets_are_text(text: str) -> None:
    found = read_tag(text + " more text\n", 0, by_text=True)
    assert found is Undecided.TEXT or (text.startswith(f"<{D}>") and isinstance(found, Tag))


def test_with_ids_only_the_control_id_marks_a_tag() -> None:
    for text, _, markup, _ in TAGS:
        found = read_tag(text, 0, by_text=False)
        if D in text:
            assert isinstance(found, Tag)
        else:
            assert found is Undecided.TEXT
            assert markup is not Markup.GENUINE


@given(
    st.sampled_from([text for text, *_ in TAGS]),
    st.text(f"<>/\"'= ｜|DSMLinvoke{D}\n", max_size=8),
    st.data(),
)
def test_more_text_never_changes_a_decision(text: str, tail: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(1, len(text)))
    whole = text[:position] + tail
    decided = [read_tag(whole[:length], 0, by_text=True) for length in range(1, len(whole) + 1)]
    settled = next((item for item in decided if item not in (Undecided.MORE, Undecided.MORE_GENUINE)), None)
    if settled is not None:
        later = decided[decided.index(settled) :]
        assert all(item == settled for item in later)


def test_long_candidates_are_text() -> None:
    text = f'<{D}invoke name="{"a" * MAX_TAG}'
    assert read_tag(text, 0, by_text=True) is Undecided.TEXT
    assert read_tag(text + '">', 0, by_text=True) is Undecided.TEXT
