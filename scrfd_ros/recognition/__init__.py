# SPDX-License-Identifier: Apache-2.0
"""ArcFace: whose faces they are."""
