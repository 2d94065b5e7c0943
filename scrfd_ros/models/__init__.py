"""Which networks there are, and how to get their files."""
