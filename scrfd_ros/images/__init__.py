# SPDX-License-Identifier: Apache-2.0
"""Images: from bytes and encodings to uint8 [H, W, 3] BGR, and back.

Raw messages (encodings), compressed ones (compressed, decoding), files, turning (orientation), the
serialized message (serialized), and faces drawn in (drawing).
"""
