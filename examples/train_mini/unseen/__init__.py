"""Functions and classes for evaluation only; training never sees them."""
