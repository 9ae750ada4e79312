"""The `dsv4agent` command."""
