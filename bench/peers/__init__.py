# SPDX-License-Identifier: Apache-2.0
"""scrfd_ros beside what a user would take instead: `scrfd bench --peers`, docs/performance.md."""
