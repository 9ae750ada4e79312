import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4agent.tools.patch_format import UpdateFile, parse_patch
from dsv4agent.tools.patch_match import Mismatch, Patched, apply_chunks

LINES = st.lists(st.text(alphabet="ab \t*@+-é", max_size=4), max_size=12)


def patch_between(old: list[str], new: list[str]) -> str:
    """Return a patch with all lines of the file as context, in one chunk: it fits in one place only."""
    lines: list[str] = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for tag, start, end, new_start, new_end in matcher.get_opcodes():
        if tag == "equal":
            lines += [f" {line}" for line in old[start:end]]
        else:
            lines += [f"-{line}" for line in old[start:end]]
            lines += [f"+{line}" for line in new[new_start:new_end]]
    return "\n".join(
        ["*** Begin Patch", "*** Update File: f", "@@", *lines, "*** End of File", "*** End Patch"]
    )


def apply(text: str, patch: str) -> Patched | Mismatch:
    (section,) = parse_patch(patch)
    assert isinstance(section, UpdateFile)
    return apply_chunks(text, section.chunks)


def file_of(lines: list[str], ending: str, *, last: bool) -> str:
    text = "".join(line + ending for line in lines)
    return text if last else text.removesuffix(ending)


@given(LINES, LINES, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\ufeff"]))
def test_a_difference_applied_gives_the_new_file(
    old: list[str], new: list[str], ending: str, mark: str
) -> None:
    if old == new:
        return
    patched = apply(mark + file_of(old, ending, last=True), patch_between(old, new))
    usual = ending if old else "\n"
    assert patched == Patched(mark + file_of(new, usual, last=True), ())


@given(LINES.filter(lambda lines: bool(lines) and lines[-1] != ""), LINES)
def test_a_missing_last_newline_stays_missing(old: list[str], new: list[str]) -> None:
    if old == new or (new and new[-1] == ""):
        return
    patched = apply(file_of(old, "\n", last=False), patch_between(old, new))
    assert patched == Patched(file_of(new, "\n", last=False), ())


@given(LINES, LINES, LINES)
def test_lines_outside_a_chunk_keep_their_bytes(before: list[str], new: list[str], after: list[str]) -> None:
    text = "".join(f"{line}\r\n" for line in before) + "the line\n" + "".join(f"{line}\n" for line in after)
    patch = "\n".join(
        ["*** Begin Patch", "*** Update File: f", "-the line", *(f"+{line}" for line in new), "*** End Patch"]
    )
    patched = apply(text, patch)
    assert isinstance(patched, Patched)
    start, end = text.split("the line\n")
    assert patched.text.startswith(start) and patched.text.endswith(end)
    assert patched.text[len(start) : len(patched.text) - len(end)].replace("\r\n", "\n") == "".join(
        f"{line}\n" for line in new
    )


def test_a_mismatch_says_what_and_where() -> None:
    patch = "*** Begin Patch\n*** Update File: f\n@@\n-b\n+c\n@@ x\n-a\n+d\n*** End Patch"
    assert apply("a\nb\nx\n", patch) == Mismatch(chunk=2, wanted=("a",), header=False, after=3, earlier=1)
    assert apply("a\nb\n", patch) == Mismatch(chunk=2, wanted=("x",), header=True, after=2, earlier=None)


@pytest.mark.parametrize(
    ("line", "written", "rule"),
    [
        ("x", "x", None),
        ("x  ", "x", "ignoring trailing blanks"),
        ("\tx", "  x", "ignoring leading and trailing blanks"),
        (
            "a \u2014 \u2018b\u2019\u00a0\u201cc\u201d",
            "a - 'b' \"c\"",
            "ignoring blanks and typographic punctuation",
        ),
        ("a - 'b'", "a \u2212 \u2019b\u2019", "ignoring blanks and typographic punctuation"),
    ],
)
def test_rules(line: str, written: str, rule: str | None) -> None:
    patch = f"*** Begin Patch\n*** Update File: f\n-{written}\n+new\n*** End Patch"
    assert apply(f"{line}\n", patch) == Patched("new\n", () if rule is None else ((1, rule),))
