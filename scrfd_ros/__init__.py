"""Faces in camera images: SCRFD detection and ArcFace recognition for ROS 2."""
