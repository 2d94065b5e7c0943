# SPDX-License-Identifier: Apache-2.0
"""Detection: the faces of an image, as boxes, scores and landmarks.

`scrfd.Scrfd` is the detector. views plans how the whole of an image is searched, parts how some
places of it are. search does so at one size of input: letterbox draws the inputs of the network,
levels matches its outputs, nms removes boxes of the same face.
"""
