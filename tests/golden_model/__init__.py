"""Compares the engine with values recorded from the official inference code."""
