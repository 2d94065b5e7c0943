# SPDX-License-Identifier: Apache-2.0
"""Compare scrfd_ros with the alternatives: `scrfd bench --peers`, docs/performance.md."""
