# SPDX-License-Identifier: Apache-2.0
"""SCRFD: where the faces are."""
