"""How a completion begins: blanks, and a `<think>` that the prompt already holds or never asked for."""

from __future__ import annotations

from dataclasses import dataclass

from dsv4agent.encoding.symbols import THINK_CLOSE_SYMBOL, THINK_OPEN_SYMBOL, to_text


@dataclass(frozen=True)
class Opened:
    """What follows the beginning.

    Attributes:
        in_reasoning: Whether `rest` is reasoning.
        rest: Symbols to go on with.
        thought: Reasoning that is complete already.
        repairs: Recovery rules that fired.
    """

    in_reasoning: bool
    rest: str
    thought: str = ""
    repairs: tuple[str, ...] = ()


class Opening:
    """Holds symbols back until it is clear how the completion begins (R1).

    In chat mode a leading `<think>` is reasoning only if a `</think>` follows, so all is held until then.
    """

    def __init__(self, *, thinking: bool) -> None:
        self._thinking = thinking
        self._held: list[str] = []
        self._in_thought = False

    def push(self, symbols: str, *, final: bool) -> Opened | None:
        """Take more symbols; return the outcome once it is clear, which at the end it is."""
        if not self._in_thought:
            text = symbols.lstrip()
            blanks = symbols[: len(symbols) - len(text)]
            if not text and not final:
                self._held.append(blanks)
                return None
            if not text.startswith(THINK_OPEN_SYMBOL):
                return Opened(self._thinking, "".join(self._held) + symbols)
            symbols = text.removeprefix(THINK_OPEN_SYMBOL)
            self._held = []
            if self._thinking:
                return Opened(True, symbols, repairs=("R1",))
            self._in_thought = True
        thought, close, rest = symbols.partition(THINK_CLOSE_SYMBOL)
        self._held.append(thought)
        if close:
            held = "".join(self._held).replace(THINK_OPEN_SYMBOL, "")
            return Opened(False, rest, to_text(held), ("R1",))
        return Opened(False, "".join(self._held), repairs=("R1", "R4")) if final else None
