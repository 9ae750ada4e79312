"""Tools: what the model can call."""

from dsv4agent.tools.base import Effects, Status, Tool, ToolContext, ToolResult, Truncation

__all__ = ["Effects", "Status", "Tool", "ToolContext", "ToolResult", "Truncation"]
