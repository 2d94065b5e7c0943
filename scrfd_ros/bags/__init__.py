# SPDX-License-Identifier: Apache-2.0
"""Bags of ROS 2, without ROS: read them, even if damaged, write, replay and compare them.

camera: find the faces in the images of a topic. replay: in all of them, and write them into
another bag. recordings: read and compare the faces in bags,
within the limits of tolerances.
bag: read, by way of mcap_file and sqlite_file. bag_writer: write. image_topics: choose topics.
message_types: message objects from bytes. Needs the Python package rosbags.
"""
