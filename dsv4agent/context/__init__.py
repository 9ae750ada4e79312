"""What the model is told before it starts: persona, workspace, task."""

from dsv4agent.context.opening import storable, system_message, tool_functions, tool_output_tokens
from dsv4agent.context.prompts import PERSONA, task_message

__all__ = ["PERSONA", "storable", "system_message", "task_message", "tool_functions", "tool_output_tokens"]
