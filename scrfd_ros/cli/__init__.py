"""The `scrfd` command, one module per sub-command."""
