"""The node, and what it says and hears on its topics."""
