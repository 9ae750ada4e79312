"""The fixed texts of a session, at the front of the prompt: changing one rewrites every cached prefix."""

PERSONA = "You are a coding agent. Work in the given workspace with the tools."


def task_message(task: str, workspace: str) -> str:
    """Return the first user message: the task as the user wrote it, then where the work is.

    The workspace stands in the user's turn and not in the system text, so that all sessions share one
    system prefix.
    """
    return f"{task}\n\nWorkspace: {workspace}"
