"""Control tokens as symbols that text can never hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsv4agent.encoding.control_tokens import DSML, EOS
from dsv4agent.encoding.symbols import DSML_SYMBOL, EOS_SYMBOL, SYMBOLS, IdSource, TextSource, to_text
from tests.encoding.corpus import hostile_text
from tests.golden.tokenizers import v4_tokenizer


@given(hostile_text, st.data())
def test_text_in_pieces_gives_the_same_symbols(text: str, data: st.DataObject) -> None:
    whole = TextSource()
    expected = whole.push(text) + whole.flush()
    source = TextSource()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(source.push(piece) for piece in pieces) + source.flush() == expected
    assert to_text(expected) == text


def test_a_lone_surrogate_in_text_is_no_symbol() -> None:
    source = TextSource()
    assert source.push(f"a{DSML_SYMBOL}b") == "a\ufffdb"


def test_only_ids_make_symbols() -> None:
    tokenizer = v4_tokenizer()
    source = IdSource(tokenizer)
    assert source.push(tokenizer.encode_text(DSML + EOS)) == DSML + EOS
    assert source.push([tokenizer.control_id(DSML), 1]) == DSML_SYMBOL + EOS_SYMBOL
    assert to_text("".join(SYMBOLS.values())) == "".join(SYMBOLS)


def test_a_control_id_ends_an_unfinished_character() -> None:
    tokenizer = v4_tokenizer()
    half = tokenizer.encode_text("\U0001fae8")[:1]
    source = IdSource(tokenizer)
    assert source.push([*half, 1]) == "\ufffd" + EOS_SYMBOL
    assert source.flush() == ""
