"""Decode state, shared rows and the records that let sequences start from a known prefix."""
