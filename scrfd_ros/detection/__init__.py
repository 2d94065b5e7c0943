# SPDX-License-Identifier: Apache-2.0
"""Detection: the faces of an image, as boxes, scores and landmarks.

`scrfd.Scrfd` is the detector. views plans which parts of an image it searches, letterbox draws them
as inputs of the network, levels matches the network's outputs, nms removes boxes of the same face.
"""
