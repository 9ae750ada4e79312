"""Small complete programs that use dsv4agent."""
