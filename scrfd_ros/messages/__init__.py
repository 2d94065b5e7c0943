"""`Faces` to messages and back."""
