"""SCRFD: where the faces are."""
