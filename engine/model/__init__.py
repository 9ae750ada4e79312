"""The forward pass of DeepSeek-V4, written once for prefill and decode."""
