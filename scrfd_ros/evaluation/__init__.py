"""How well networks do: agreement with a reference, accuracy, figures."""
