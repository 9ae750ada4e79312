"""The fixed texts of the protocol, byte for byte: effort prefixes, tools block, response format.

They are parts of the model's training format. Every character counts, the blank lines at the ends included.
"""

from __future__ import annotations

from typing import Final

from dsv4agent.encoding.control_tokens import DSML, THINK_CLOSE, THINK_OPEN
from dsv4agent.encoding.revision import DsmlTags

EFFORT_ABSOLUTE: Final = (
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to "
    "resolve the root cause, rigorously stress-testing your logic against all potential "
    "paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate "
    "step, considered alternative, and rejected hypothesis to ensure absolutely no "
    "assumption is left unchecked.\n"
    "\n"
)

EFFORT_BEYOND: Final = (
    "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: "
    "exhaustively decompose the problem into its most fundamental components, trace every "
    "causal chain to its root, and resolve the underlying cause rather than any surface "
    "symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from multiple "
    "angles and are certain that no assumption remains unchecked and no error remains "
    "undiscovered.\n"
    "\n"
)


def effort_number(value: int) -> str:
    """Return the V4.1 effort line for a value of 1 to 100."""
    return (
        f"Reasoning Effort: {value} (range 1-100, the higher the value, the more thorough the reasoning)\n\n"
    )


RESPONSE_FORMAT: Final = "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n"

RESPONSE_FORMAT_JSON_OBJECT: Final = (
    "You are a helpful assistant designed to output JSON.\n"
    "## Response Format:\n\nReply with JSON object ONLY."
)

TOOL_RESULT_OPEN: Final = "<tool_result>"
TOOL_RESULT_CLOSE: Final = "</tool_result>"


def tools_preface(tags: DsmlTags) -> str:
    """Return the tools block up to the first schema, with the tag names of `tags`."""
    block, invoke, parameter = (f"{DSML}{name}" for name in (tags.block, tags.invoke, tags.parameter))
    return (
        "## Tools\n\n"
        "You have access to a set of tools to help answer the user's question. "
        f'You can invoke tools by writing a "<{block}>" block like the following:\n\n'
        f"<{block}>\n"
        f'<{invoke} name="$TOOL_NAME">\n'
        f'<{parameter} name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{parameter}>\n'
        "...\n"
        f"</{invoke}>\n"
        f'<{invoke} name="$TOOL_NAME2">\n'
        "...\n"
        f"</{invoke}>\n"
        f"</{block}>\n\n"
        'String parameters should be specified as is and set `string="true"`. For all other types '
        '(numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.\n\n'
        f"If thinking_mode is enabled (triggered by {THINK_OPEN}), you MUST output your complete reasoning "
        f"inside {THINK_OPEN}...{THINK_CLOSE} BEFORE any tool calls or final response.\n\n"
        f"Otherwise, output directly after {THINK_CLOSE} with tool calls or final response.\n\n"
        "### Available Tool Schemas\n\n"
    )


TOOLS_EPILOGUE: Final = (
    "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n"
)
