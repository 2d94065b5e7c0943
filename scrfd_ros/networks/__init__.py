"""Neural networks as functions of named arrays, whatever runs them."""
