# SPDX-License-Identifier: Apache-2.0
"""Neural networks as functions of named arrays, whatever runs them."""

from __future__ import annotations

import os

# ONNX Runtime from 1.29 on reports to its maker what it loads and how fast it runs, and keeps a
# number of the machine in the user's folder. It looks at this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
