"""Sessions and models, as tables or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dsv4agent.backends.checkpoint import BUNDLED, Checkpoint
from dsv4agent.cli.views import TextView, json_line, safe
from dsv4agent.errors import ModelNotFound
from dsv4agent.progress import messages
from dsv4agent.transcript import SessionSummary, Transcript, find_session, list_sessions

_CONFIG_KEYS = (
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "n_routed_experts",
    "num_experts_per_tok",
    "vocab_size",
)


def show_sessions(*, as_json: bool) -> None:
    """List the stored sessions, the last used first."""
    summaries = list_sessions()
    if as_json:
        for summary in summaries:
            write_json(asdict(summary))
        return
    console = Console()
    if not summaries:
        console.print("There is no session yet. Start one with `dsv4agent run`.")
        return
    console.print(session_table(summaries))


def session_table(summaries: Sequence[SessionSummary]) -> Table:
    """Return sessions as a table. Its cells are text, never markup."""
    table = Table(box=None)
    # The id is what the user copies: it is never shortened.
    table.add_column("session", no_wrap=True, min_width=max(len(summary.session_id) for summary in summaries))
    for name in ("last used", "model", "steps", "tokens", "state", "task"):
        table.add_column(name)
    for summary in summaries:
        used = datetime.fromtimestamp(summary.updated, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
        state = "corrupt" if summary.problem else summary.stop_reason or "open"
        task = summary.task.splitlines()[0] if summary.task else ""
        cells = (
            summary.session_id,
            used,
            summary.model,
            str(summary.steps),
            str(summary.tokens),
            state,
            task,
        )
        table.add_row(*(Text(safe(cell)) for cell in cells))
    return table


def show_session(session_id: str | None, *, as_json: bool) -> None:
    """Show one session's header and conversation.

    Raises:
        SessionNotFound: No session has that id.
        SessionCorrupt: It cannot be read.
    """
    transcript = Transcript.open(find_session(session_id), read_only=True)
    try:
        events = transcript.live_events()
        if as_json:
            write_json(
                {
                    "header": transcript.header.model_dump(mode="json"),
                    "tokens": len(transcript.tokens),
                    "spans": [asdict(span) for span in transcript.spans],
                    "messages": messages(transcript),
                    "events": [event.model_dump(mode="json") for event in events],
                }
            )
            return
        console = Console()
        view = TextView(console)
        for event in events:
            if event.type == "user_message" and event.origin == "user":
                console.print(safe(event.text), style="bold", markup=False, highlight=False)
            view.show(event)
        console.print(
            f"{len(transcript.tokens)} tokens in {transcript.folder}", highlight=False, markup=False
        )
    finally:
        transcript.close()


def show_models(paths: Sequence[str], *, as_json: bool) -> None:
    """Describe the bundled models and those at the given paths.

    Raises:
        ModelNotFound: A given path holds no model.
    """
    rows = [row for name in BUNDLED if (row := _bundled(name)) is not None]
    rows += [_describe(Checkpoint.find(Path(path))) for path in paths]
    for row in rows:
        if as_json:
            write_json(row)
        else:
            config = ", ".join(f"{key} {value}" for key, value in row["config"].items())
            Console().print(
                f"{row['name']}: {row['size_bytes'] / 1e6:.1f} MB, context {row['context_window']} tokens, "
                f"encoding {row['revision']}, mode {row['mode']}\n  {row['path']}\n  {config}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )


def write_json(value: object) -> None:
    """Print one JSON line on standard output."""
    sys.stdout.write(json_line(value))
    sys.stdout.flush()


def _bundled(name: str) -> dict[str, Any] | None:
    try:
        return _describe(Checkpoint.find(name))
    except ModelNotFound:
        return None


def _describe(checkpoint: Checkpoint) -> dict[str, Any]:
    config = {key: checkpoint.config[key] for key in _CONFIG_KEYS if key in checkpoint.config}
    return {
        "name": checkpoint.name,
        "path": str(checkpoint.path),
        "size_bytes": checkpoint.size_bytes,
        "context_window": checkpoint.context_window,
        "revision": checkpoint.revision.value,
        "mode": checkpoint.defaults.mode,
        "fingerprint": checkpoint.fingerprint,
        "config": config,
    }
