# SPDX-License-Identifier: Apache-2.0
"""TensorRT engines: from an ONNX file to an engine that agrees with it.

Which backend a model runs on here (open), building and converting (build, convert), what a model
is checked with when it is loaded (model_check, drawn_faces), how far two networks agree
(agreement).
"""
