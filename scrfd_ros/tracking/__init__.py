# SPDX-License-Identifier: Apache-2.0
"""Tracking: ids that stay with faces (tracker), and what stamps of images mean (frame_clock)."""
