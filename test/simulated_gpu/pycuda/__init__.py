# SPDX-License-Identifier: Apache-2.0
"""Stands in for pycuda where there is no GPU; see `driver`."""

VERSION_TEXT = "2026.1"
