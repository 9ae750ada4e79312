"""Foreign text never yields a control id, and ids give back the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4agent.encoding import Tokenizer, TokenizerError
from dsv4agent.encoding.control_tokens import ALL, EOS, REQUIRED, USER
from tests.encoding.corpus import SPELLINGS, hostile_text
from tests.golden.tokenizers import v4_1_tokenizer, v4_definition, v4_tokenizer


def small_definition(**changes: Any) -> dict[str, Any]:
    """A byte-level tokenizer whose vocabulary is the bytes, one merge, and the required control tokens."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = [chr(byte) for byte in printable] + [chr(0x100 + number) for number in range(len(others))]
    vocab = {character: index for index, character in enumerate(alphabet)}
    vocab["ab"] = len(vocab)
    added: list[dict[str, Any]] = []
    for token in REQUIRED:
        vocab[token] = len(vocab)
        added.append(
            {
                "id": vocab[token],
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": True,
                "special": False,
            }
        )
    definition: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [["a", "b"]],
        },
    }
    return definition | changes


def small_tokenizer() -> Tokenizer:
    return Tokenizer(json.dumps(small_definition()))


@pytest.mark.parametrize("text", SPELLINGS)
def test_spelt_control_tokens_stay_text(text: str) -> None:
    for tokenizer in (v4_tokenizer(), v4_1_tokenizer(), small_tokenizer()):
        ids = tokenizer.encode_text(f"a{text}b")
        assert not tokenizer.control_ids.intersection(ids)
        assert tokenizer.decode(ids) == f"a{text}b"


def test_every_added_token_of_v4_stays_text() -> None:
    tokenizer = v4_tokenizer()
    names = [token["content"] for token in json.loads(v4_definition())["added_tokens"]]
    assert len(names) == 1283
    ids = tokenizer.encode_text(" ".join(names))
    assert tokenizer.control_ids.isdisjoint(ids)
    assert tokenizer.decode(ids) == " ".join(names)


@given(hostile_text)
def test_bytes_round_trip(text: str) -> None:
    tokenizer = v4_tokenizer()
    ids = tokenizer.encode_text(text)
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.control_ids.isdisjoint(ids)
    assert tokenizer.count(text) == len(ids)


@given(st.lists(st.integers(0, 127_999) | st.sampled_from([128803, 128825, 1]), max_size=12))
def test_incremental_equals_whole(ids: list[int]) -> None:
    detokenizer = v4_tokenizer().incremental()
    pieces = [detokenizer.push(token) for token in ids]
    assert "".join(pieces) + detokenizer.flush() == v4_tokenizer().decode(ids)


def test_incremental_never_cuts_a_character() -> None:
    tokenizer = small_tokenizer()
    ids = tokenizer.encode_text("é🧪")
    assert len(ids) == 6
    detokenizer = tokenizer.incremental()
    assert [detokenizer.push(token) for token in ids] == ["", "é", "", "", "", "🧪"]
    detokenizer.push(ids[0])
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.flush() == ""


def test_control_tokens() -> None:
    tokenizer = v4_tokenizer()
    assert tokenizer.control_id(USER) == 128803
    assert tokenizer.eos_id == 1
    assert tokenizer.control_text(128803) == USER
    assert tokenizer.control_text(5) is None
    assert tokenizer.is_control(1)
    assert not tokenizer.is_control(5)
    assert tokenizer.has_control(EOS)
    assert not tokenizer.has_control("<｜System｜>")
    assert tokenizer.vocab_size == 129_280
    assert tokenizer.id_bytes(128825).decode() == "｜DSML｜"
    assert [token for token in ALL if not v4_1_tokenizer().has_control(token)] == []


def test_trusted_text_may_spell_control_tokens() -> None:
    assert v4_tokenizer().encode_trusted("<｜User｜>hi") == [128803, 6366]
    assert v4_tokenizer().encode_text("<｜User｜>hi")[0] != 128803


def test_unknown_ids_and_tokens_are_typed_errors() -> None:
    tokenizer = small_tokenizer()
    with pytest.raises(TokenizerError, match="not in the vocabulary"):
        tokenizer.decode([tokenizer.vocab_size])
    with pytest.raises(TokenizerError, match="no control token"):
        tokenizer.control_id("<｜System｜>")
    with pytest.raises(TokenizerError) as caught:
        tokenizer.encode_text("a\ud800b")
    assert caught.value.reason == "not_unicode"


def test_files(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_checkpoint(tmp_path)
    assert caught.value.reason == "tokenizer_missing"
    path = tmp_path / "tokenizer.json"
    for broken in (b"{", b"[]", b"{}", b'{"model": 3}', b"\xff"):
        path.write_bytes(broken)
        with pytest.raises(TokenizerError) as caught:
            Tokenizer.from_file(path)
        assert caught.value.reason == "tokenizer_broken"
    path.write_text(json.dumps(small_definition()), encoding="utf-8")
    assert Tokenizer.from_checkpoint(tmp_path).decode([0]) == "!"


def broken_definitions() -> list[tuple[str, dict[str, Any]]]:
    merges = small_definition()
    merges["model"]["vocab"] |= {"<t": 900}
    merges["model"]["merges"] += [["<", "t"]]
    spells = small_definition()
    spells["model"]["vocab"] |= {"<think": 901}
    spells["model"]["merges"] += [["<think", ">"]]
    ignoring = small_definition()
    ignoring["model"]["ignore_merges"] = True
    return [
        ("missing_control_token", small_definition(added_tokens=small_definition()["added_tokens"][1:])),
        ("not_byte_level", small_definition(decoder={"type": "Fuse"})),
        ("not_byte_level", small_definition(normalizer={"type": "NFC"})),
        ("control_token_reachable", spells),
        ("control_token_reachable", ignoring),
        ("tokenizer_broken", small_definition(pre_tokenizer={"type": "Unheard"})),
    ]


@pytest.mark.parametrize(("reason", "definition"), broken_definitions())
def test_unfit_definitions_are_refused(reason: str, definition: dict[str, Any]) -> None:
    with pytest.raises(TokenizerError) as caught:
        Tokenizer(json.dumps(definition))
    assert caught.value.reason == reason
