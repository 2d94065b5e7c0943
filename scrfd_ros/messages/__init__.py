# SPDX-License-Identifier: Apache-2.0
"""`Faces` to messages and back: one mapping for the node and for bags, without ROS.

faces: the bytes of a Detection2DArray and of a FaceArray, and the `Faces` in a FaceArray of any
library. cdr: how numbers, strings and arrays lie in those bytes.
"""
