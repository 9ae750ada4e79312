"""The strict parser of completions: accepts exactly what the official parser accepts.

For output of a running model use `StreamParser`, which validates arguments and never takes a cut-off call for
a whole one.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, Final

from dsv4agent.encoding.control_tokens import BOS, DSML, EOS, THINK_CLOSE, THINK_OPEN
from dsv4agent.encoding.errors import CompletionParseError
from dsv4agent.encoding.namespaces import NamespaceConflict, split_name
from dsv4agent.encoding.revision import DEFAULT_REVISION, Revision, as_revision, dsml_tags

_FORBIDDEN: Final = (BOS, EOS, THINK_OPEN, THINK_CLOSE, DSML)
# `$` also matches before a final newline: that is how an invoke without parameters may hold one blank line.
_INVOKE_HEAD: Final = re.compile(r'\s*name="(.*?)">\n$', re.DOTALL)
_PARAMETER: Final = re.compile(r' name="(.*?)" string="(true|false)">(.*?)<$', re.DOTALL)


def parse_message_from_completion_text(
    text: str, thinking_mode: str, *, revision: str = DEFAULT_REVISION
) -> dict[str, Any]:
    """Parse a complete completion, its end-of-sentence token included.

    Like the official parser, it takes the JSON of parameters as it is, without looking into it, and a call
    without its end of sentence for complete.

    Args:
        text: The completion text.
        thinking_mode: `thinking`, or anything else for chat.
        revision: Which tag names to expect; V4.1 also splits `namespace::name`.

    Returns:
        `role`, `content`, `reasoning_content` and `tool_calls` in the OpenAI shape, calls without ids.

    Raises:
        CompletionParseError: `missing_think_close`, `missing_eos`, `malformed_block`, `malformed_invoke`,
            `malformed_parameter`, `duplicate_parameter`, `invalid_name`, `text_after_calls`, `text_after_eos`
            or `control_token_in_text`.
    """
    rev = as_revision(revision)
    return _StrictParser(text, rev).parse(thinking_mode == "thinking")


class _StrictParser:
    def __init__(self, text: str, revision: Revision) -> None:
        self.text = text
        self.position = 0
        self.revision = revision
        tags = dsml_tags(revision)
        self.block_open = f"\n\n<{DSML}{tags.block}"
        self.block_close = f"</{DSML}{tags.block}>"
        self.invoke_open = f"<{DSML}{tags.invoke}"
        self.invoke_close = f"</{DSML}{tags.invoke}"
        self.parameter_open = f"<{DSML}{tags.parameter}"
        self.parameter_close = f"/{DSML}{tags.parameter}"

    def parse(self, thinking: bool) -> dict[str, Any]:
        reasoning = ""
        if thinking:
            reasoning, stop = self.read_until(THINK_CLOSE, self.block_open)
            if stop != THINK_CLOSE:
                raise CompletionParseError("The reasoning has no </think>.", reason="missing_think_close")
        content, stop = self.read_until(EOS, self.block_open)
        calls: list[dict[str, Any]] = []
        if stop == self.block_open:
            calls = self.block()
            rest, stop = self.read_until(EOS)
            if rest:
                raise CompletionParseError(
                    f"Text after the tool calls: {rest[:80]!r}.", reason="text_after_calls"
                )
        elif stop is None:
            raise CompletionParseError(f"The completion has no {EOS}.", reason="missing_eos")
        if self.position != len(self.text):
            raise CompletionParseError(f"Text after {EOS}.", reason="text_after_eos")
        for part in (content, reasoning):
            for token in _FORBIDDEN:
                if token in part:
                    raise CompletionParseError(
                        f"Control token {token!r} in text.", reason="control_token_in_text"
                    )
        return {"role": "assistant", "content": content, "reasoning_content": reasoning, "tool_calls": calls}

    def block(self) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []
        while True:
            between, stop = self.read_until(self.invoke_open, self.block_close)
            if between != ">\n" or stop is None:
                raise CompletionParseError(
                    f"Expected '>' and a newline before the next tag, found {between[:80]!r}.",
                    reason="malformed_block",
                )
            if stop == self.block_close:
                return calls
            calls.append(self.invoke())

    def invoke(self) -> dict[str, Any]:
        head, stop = self.read_until(self.parameter_open, self.invoke_close)
        match = _INVOKE_HEAD.match(head)
        if match is None or stop is None:
            raise CompletionParseError(f"Malformed invoke tag: {head[:80]!r}.", reason="malformed_invoke")
        parameters: dict[str, str] = {}
        while stop == self.parameter_open:
            written, end = self.read_until(self.parameter_close)
            parameter = _PARAMETER.match(written)
            if parameter is None or end is None:
                raise CompletionParseError(
                    f"Malformed parameter: {written[:80]!r}.", reason="malformed_parameter"
                )
            name, is_string, value = parameter.groups()
            if name in parameters:
                raise CompletionParseError(f"Duplicate parameter {name!r}.", reason="duplicate_parameter")
            parameters[name] = json.dumps(value, ensure_ascii=False) if is_string == "true" else value
            after, stop = self.read_until(self.parameter_open, self.invoke_close)
            if after != ">\n" or stop is None:
                raise CompletionParseError(
                    f"Expected '>' and a newline after a parameter, found {after[:80]!r}.",
                    reason="malformed_parameter",
                )
        fields = (f"{json.dumps(name, ensure_ascii=False)}: {value}" for name, value in parameters.items())
        return self.call(match.group(1), "{" + ", ".join(fields) + "}")

    def call(self, name: str, arguments: str) -> dict[str, Any]:
        if self.revision is not Revision.V4_1:
            return {"type": "function", "function": {"name": name, "arguments": arguments}}
        try:
            namespace, bare = split_name(name)
        except NamespaceConflict as error:
            raise CompletionParseError(str(error), reason="invalid_name") from error
        call: dict[str, Any] = {"type": "function", "function": {"name": bare, "arguments": arguments}}
        return call if namespace is None else {**call, "namespace": namespace}

    def read_until(self, *stops: str) -> tuple[str, str | None]:
        """Return the text up to the first of `stops`, and that stop; move behind it, or to the end."""
        match = _pattern(stops).search(self.text, self.position)
        start = self.position
        if match is None:
            self.position = len(self.text)
            return self.text[start:], None
        self.position = match.end()
        return self.text[start : match.start()], match.group()


@cache
def _pattern(stops: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, stops)))
