# SPDX-License-Identifier: Apache-2.0
"""Bags of ROS 2, without ROS: read them, however damaged, replay and compare them."""
