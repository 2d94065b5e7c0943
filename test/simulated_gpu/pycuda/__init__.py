"""Stands in for pycuda where there is no GPU; see `driver`."""
