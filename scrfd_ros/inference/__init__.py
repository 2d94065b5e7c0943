# SPDX-License-Identifier: Apache-2.0
"""Neural networks as functions of named arrays, whichever backend runs them.

`network.Network` is the contract, and `load.load_network` loads a model file with a backend. Each
backend is one module: onnx_runtime, openvino, tensorrt (with tensorrt_library, engine_file, cuda
and cuda_api). The others are for all: batches of rows (batches), images as network input (blob),
the content of ONNX files (onnx_file, onnx_parts, protobuf), usable processor cores (cores).

To add a backend, write a module with a function

    def load(path: Path, *, threads: int, cuda_graph: bool) -> Network

which ignores the settings that it has no use for, and add a line to `load.BACKEND_MODULES`. The
module imports its library at the top and raises `BackendError` with the command that installs it.
The parameter `backend` and the command line then accept its name.
"""

from __future__ import annotations

import os

# From 1.29 on, ONNX Runtime reports to its maker which models it loads and how fast they run, and
# keeps a number of the machine in the user's folder. It reads this variable when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
