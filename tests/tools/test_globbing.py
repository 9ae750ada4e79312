import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4agent.tools.globbing import PatternError, path_filter


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.py", ["a.py", "d/a.py", ".py", "d/e/f.py"], ["a.pyc", "a.py/b"]),
        ("/*.py", ["a.py"], ["d/a.py"]),
        ("./*.py", ["a.py"], ["d/a.py"]),
        ("src/*.py", ["src/a.py"], ["src/d/a.py", "x/src/a.py"]),
        ("src/**", ["src/a", "src/d/e"], ["src", "srcx/a"]),
        ("src/**/*.py", ["src/a.py", "src/d/e/a.py"], ["a.py"]),
        ("**/a", ["a", "d/a", "d/e/a"], ["ba", "d/ba"]),
        ("**", ["a", "d/a"], []),
        ("a**b", ["ab", "axb"], ["a/b"]),
        ("?.c", ["a.c", "😀.c"], ["ab.c", "/.c"]),
        ("[a-c].c", ["a.c", "c.c"], ["d.c", "-.c"]),
        ("[!a-c].c", ["d.c"], ["a.c"]),
        ("[^a].c", ["b.c"], ["a.c"]),
        ("[]a].c", ["].c", "a.c"], ["b.c"]),
        ("[a\\]].c", ["].c", "a.c"], ["b.c"]),
        ("[a-].c", ["-.c", "a.c"], ["b.c"]),
        ("[c-a].c", [], ["a.c", "b.c"]),
        ("x[!a]y/z", ["xby/z"], ["x/y/z"]),
        ("*.{js,ts}", ["a.js", "d/a.ts"], ["a.jsx", "a.{js,ts}"]),
        ("{a,b/{c,d}}/x", ["a/x", "b/c/x", "b/d/x"], ["b/x"]),
        ("{src,lib}/**/*.c", ["src/a.c", "lib/x/y.c"], ["a.c"]),
        ("a,b", ["a,b"], ["a"]),
        ("a}", ["a}"], ["a"]),
        ("\\*.c", ["*.c"], ["a.c"]),
        ("a.c\\", ["a.c\\"], ["a.c"]),
        ("a\nb", ["a\nb"], ["a"]),
        ("*", ["a\nb", "d/\n"], []),
    ],
)
def test_path_filter(pattern: str, matching: list[str], others: list[str]) -> None:
    wanted = path_filter(pattern)
    assert [path for path in [*matching, *others] if wanted.fullmatch(path)] == matching


@pytest.mark.parametrize(
    ("pattern", "reason"), [("[a", "a bracket is not closed"), ("{a,b", "a brace is not closed")]
)
def test_open_ends_are_refused(pattern: str, reason: str) -> None:
    with pytest.raises(PatternError, match=reason):
        path_filter(pattern)


@given(st.text(alphabet="ab/*?[]!^-\\{},.é\n", max_size=12), st.text(alphabet="ab/]-,.\n", max_size=8))
def test_any_pattern_is_understood_or_refused(pattern: str, path: str) -> None:
    try:
        wanted = path_filter(pattern)
    except PatternError:
        return
    wanted.fullmatch(path)


@given(
    st.text(alphabet="ab/*?[]!-\\{},é", min_size=1, max_size=8).filter(lambda path: path.strip("/.") == path)
)
def test_an_escaped_path_means_itself(path: str) -> None:
    assert path_filter("".join(f"\\{character}" for character in path)).fullmatch(path)
