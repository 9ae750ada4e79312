"""Tools: what the model can call."""

from dsv4agent.tools.apply_patch import ApplyPatchTool
from dsv4agent.tools.ask_user import Ask, AskUser
from dsv4agent.tools.base import (
    Effects,
    Foreseeing,
    Foresight,
    Status,
    Tool,
    ToolContext,
    ToolResult,
    Truncation,
)
from dsv4agent.tools.bash import BashTool
from dsv4agent.tools.bash_jobs import BashKillTool, BashOutputTool, shell_tools
from dsv4agent.tools.browser import BrowserTool
from dsv4agent.tools.checkpoints import Actor, Checkpoint, Checkpoints, Refused, Restored, Worktree
from dsv4agent.tools.editor import StrReplaceEditor
from dsv4agent.tools.git import GitTool, Identity
from dsv4agent.tools.git_client import GitRefused
from dsv4agent.tools.glob import GlobTool
from dsv4agent.tools.grep import GrepTool
from dsv4agent.tools.jobs import Jobs
from dsv4agent.tools.notes import Notes
from dsv4agent.tools.output import Captured, fit_output, render_output
from dsv4agent.tools.profiles import Profile, ToolSettings, minimal_profile, profile_tools
from dsv4agent.tools.python import PythonTool
from dsv4agent.tools.search_providers import SearchHit, SearchProvider, search_provider_from_environment
from dsv4agent.tools.todo import TodoItem, TodoWrite
from dsv4agent.tools.web_fetch import WebFetchTool
from dsv4agent.tools.web_search import WebSearchTool

__all__ = [
    "Actor",
    "ApplyPatchTool",
    "Ask",
    "AskUser",
    "BashKillTool",
    "BashOutputTool",
    "BashTool",
    "BrowserTool",
    "Captured",
    "Checkpoint",
    "Checkpoints",
    "Effects",
    "Foreseeing",
    "Foresight",
    "GitRefused",
    "GitTool",
    "GlobTool",
    "GrepTool",
    "Identity",
    "Jobs",
    "Notes",
    "Profile",
    "PythonTool",
    "Refused",
    "Restored",
    "SearchHit",
    "SearchProvider",
    "Status",
    "StrReplaceEditor",
    "TodoItem",
    "TodoWrite",
    "Tool",
    "ToolContext",
    "ToolResult",
    "ToolSettings",
    "Truncation",
    "WebFetchTool",
    "WebSearchTool",
    "Worktree",
    "fit_output",
    "minimal_profile",
    "profile_tools",
    "render_output",
    "search_provider_from_environment",
    "shell_tools",
]
