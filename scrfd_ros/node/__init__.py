# SPDX-License-Identifier: Apache-2.0
"""The node, and what it says and hears on its topics."""
