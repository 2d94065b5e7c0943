# SPDX-License-Identifier: Apache-2.0
"""Recognition: an embedding of each face, by which people are told apart.

`arcface.ArcFace` computes the embeddings of aligned faces. alignment cuts these out of an image,
super_resolution upscales small ones, quality estimates which are worth an embedding, similarity
compares embeddings.
"""
