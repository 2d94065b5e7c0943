# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 node face_node, and the programs and launch checks around it.

`start` is the program, `face_node` the lifecycle, `frame_processor` the work on each image,
`results` what is published, `parameters` what can be set.
"""
