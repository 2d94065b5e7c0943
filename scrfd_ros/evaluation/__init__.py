# SPDX-License-Identifier: Apache-2.0
"""Accuracy and speed: WIDER FACE, verification, comparison of models, benchmark.

Each protocol is one module (wider_face with wider_face_ap, verification, comparison, benchmark)
that takes pipelines and returns figures. Plots are drawn in plots, which alone imports Matplotlib.
"""
