"""Tools: what the model can call."""

from dsv4agent.tools.base import Effects, Status, Tool, ToolContext, ToolResult, Truncation
from dsv4agent.tools.bash import BashTool
from dsv4agent.tools.editor import StrReplaceEditor
from dsv4agent.tools.output import render_output
from dsv4agent.tools.profiles import minimal_profile

__all__ = [
    "BashTool",
    "Effects",
    "Status",
    "StrReplaceEditor",
    "Tool",
    "ToolContext",
    "ToolResult",
    "Truncation",
    "minimal_profile",
    "render_output",
]
