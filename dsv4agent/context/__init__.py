"""What the model is told before it starts: persona, workspace, task."""

from dsv4agent.context.prompts import PERSONA, task_message

__all__ = ["PERSONA", "task_message"]
