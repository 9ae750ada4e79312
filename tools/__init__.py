"""Tools: what the model can call."""

from dsv4agent.tools.base import Effects, Status, Tool, ToolContext, ToolResult, Truncation
from dsv4agent.tools.bash import BashTool
from dsv4agent.tools.editor import StrReplaceEditor
from dsv4agent.tools.output import Captured, fit_output, render_output
from dsv4agent.tools.profiles import minimal_profile

__all__ = [
    "BashTool",
    "Captured",
    "Effects",
    "Status",
    "StrReplaceEditor",
    "Tool",
    "ToolContext",
    "ToolResult",
    "Truncation",
    "fit_output",
    "minimal_profile",
    "render_output",
]
