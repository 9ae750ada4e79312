"""A Python agent runtime with the DeepSeek-V4 engine in the same process: the transcript is tokens."""

__version__ = "0.1.0"
