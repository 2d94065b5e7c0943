"""ArcFace: whose faces they are."""
