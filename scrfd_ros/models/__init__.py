# SPDX-License-Identifier: Apache-2.0
"""Which networks there are, and how to get their files."""
