# SPDX-License-Identifier: Apache-2.0
"""RetinaFace beside SCRFD; `__main__.py` says how to run it."""
