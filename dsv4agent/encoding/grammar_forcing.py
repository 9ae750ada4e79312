"""Which ids must come next inside a block: the tokenizer's own split of the only text that can follow.

Between two control tokens the encoder splits text in one run. So all possible runs of a block are split
beforehand and kept in trees; where a block can only go one way along them, that way is certain. Runs with
values that are not listed are known only up to their value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llguidance import LLMatcher

from dsv4agent.encoding.grammar_layout import (
    MARKER,
    OPEN,
    Stretch,
    ToolShape,
    frame_stretches,
    value_stretches,
)
from dsv4agent.encoding.grammar_vocabulary import Vocabulary
from dsv4agent.encoding.revision import DsmlTags


@dataclass
class _Node:
    children: dict[int, _Node] = field(default_factory=dict[int, "_Node"])
    open: bool = False
    """Whether anything may follow here, also what the tree does not hold."""


class ForcedRuns:
    """The trees of runs of one grammar: one for the frame, and one per tool for its parameters."""

    def __init__(self, tools: Sequence[ToolShape], tags: DsmlTags, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._call_head = f'{tags.invoke} name="'.encode()
        self._frame = self._tree(frame_stretches(tools, tags))
        self._values = {tool.name: self._tree(value_stretches(tool, tags)) for tool in tools}

    def open_call(self, run: Sequence[int], before: str | None) -> str | None:
        """Return which tool's call is open behind a whole run; `before`: behind the run before it."""
        tokenizer = self._vocabulary.tokenizer
        # One id at least has one byte; the runs of long values are not decoded.
        if not tokenizer.decode_bytes(run[: len(self._call_head)]).startswith(self._call_head):
            return before
        return tokenizer.decode(run)[len(self._call_head.decode()) :].rpartition('">\n')[0]

    def ahead(self, run: Sequence[int], tool: str | None, matcher: LLMatcher) -> list[int]:
        """Return the ids that must follow; none if the run has left the tokenizer's own split.

        Args:
            run: Ids since the last control id.
            tool: The tool whose call is open.
            matcher: The block's matcher behind `run`; not changed.
        """
        words = self._vocabulary
        nodes = self._roots(tool)
        for token in run:
            nodes = _step(nodes, token)
            if not nodes:
                return []
        whole = list(run)
        forced: list[int] = []
        place = matcher
        while (token := self._only_token(nodes, place)) is not None:
            forced.append(token)
            if token == words.eos_id:
                break
            if token == words.marker_id:
                tool = self.open_call(whole, tool)
                whole, nodes = [], self._roots(tool)
            else:
                whole.append(token)
                nodes = _step(nodes, token)
            if place is matcher:
                place = matcher.deep_copy()
            place.consume_token(token)
        return forced

    def _roots(self, tool: str | None) -> list[_Node]:
        return [self._frame] if tool is None else [self._frame, self._values[tool]]

    def _only_token(self, nodes: list[_Node], place: LLMatcher) -> int | None:
        if any(node.open for node in nodes):
            return None
        possible: int | None = None
        for node in nodes:
            for token, child in node.children.items():
                if token != possible and self._is_possible(child, [token], place):
                    if possible is not None:
                        return None
                    possible = token
        return possible

    def _is_possible(self, node: _Node, path: list[int], place: LLMatcher) -> bool:
        """Whether some run through `node`, which is `path` away from `place`, can be written whole."""
        while len(node.children) == 1 and not node.open:
            ((token, node),) = node.children.items()
            path = [*path, token]
        if path[-1] == self._vocabulary.eos_id:
            probe = place.deep_copy()
            return probe.try_consume_tokens(path[:-1]) == len(path) - 1 and probe.is_accepting()
        if place.validate_tokens(path) < len(path):
            return False
        if node.open or not node.children:
            return True
        children = node.children.items()
        return any(self._is_possible(child, [*path, token], place) for token, child in children)

    def _tree(self, stretches: Iterable[Stretch]) -> _Node:
        words = self._vocabulary
        root = _Node()
        for stretch in stretches:
            if stretch.end == OPEN:
                ids = words.stable_ids(stretch.text)
            else:
                last = words.marker_id if stretch.end == MARKER else words.eos_id
                ids = [*words.tokenizer.encode_text(stretch.text), last]
            node = root
            for token in ids:
                node = node.children.setdefault(token, _Node())
            node.open |= stretch.end == OPEN
        return root


def _step(nodes: list[_Node], token: int) -> list[_Node]:
    """Follow a token; behind an open node nothing is known, so nothing is left there."""
    if any(node.open for node in nodes):
        return []
    return [node.children[token] for node in nodes if token in node.children]
