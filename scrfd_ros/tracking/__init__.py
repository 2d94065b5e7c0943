# SPDX-License-Identifier: Apache-2.0
"""Tracking: ids that stay with faces.

`tracker` follows the faces, `assignment` decides which face belongs to which track, `watch` where
to look in the next image, `frame_clock` what stamps of images mean.
"""
