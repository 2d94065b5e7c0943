"""Tracking: ids that stay with faces (tracker), and what stamps of images mean (frame_clock)."""
