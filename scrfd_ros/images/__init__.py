# SPDX-License-Identifier: Apache-2.0
"""Images: from messages and files to uint8 [H, W, 3] BGR.

message: the one way from a raw or compressed message to a `DecodedImage` (decoded).
encodings: raw encodings. compressed, decoding: JPEG and PNG. serialized: a raw message's bytes.
files: read and write. orientation: quarter turns. scaling: other sizes. drawing: faces drawn into
an image.
"""
