# SPDX-License-Identifier: Apache-2.0
"""Models made ready for this machine: the choice of a backend, and engines for TensorRT.

`open.open_network` chooses the backend of a model; on a processor it may ask quickest, which
measures with race. For TensorRT, cache finds or builds an engine: convert builds it (with build,
onnx_precision and onnx_shapes) and accepts it only if it agrees with its model (agreement).
model_check tests a loaded model on drawn_faces; trtexec has the equivalent command line of NVIDIA's
tool. adapted keeps changed models beside their originals; free_size and prelu are such changes: the
first gives detectors of one input size a free one, the second makes recognizers faster on ONNX
Runtime. sized has the engines of a detector for several sizes.
"""
