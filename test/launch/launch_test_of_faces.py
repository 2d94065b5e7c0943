# SPDX-License-Identifier: Apache-2.0
"""faces.launch.py under launch_testing: it answers an image, and ends cleanly.

Run by test_launch_testing.py, or by hand: launch_test test/launch/launch_test_of_faces.py
"""

from __future__ import annotations

import time
import unittest

import launch_testing
import launch_testing.actions
import launch_testing.asserts
import rclpy
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare
from launch_testing.proc_info_handler import ActiveProcInfoHandler
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from scrfd_ros.images.files import read_image
from scrfd_ros.models.download import ensure_picture
from scrfd_ros.node.images import image_message

TIMEOUT = 60.0  # seconds; generous, as nothing here depends on speed
ARGUMENTS = {
    "namespace": "launch_test",
    "image": "camera/image_raw",
    "detector": "500m",
    "backend": "onnxruntime",
}


def generate_test_description() -> LaunchDescription:
    faces = PathJoinSubstitution([FindPackageShare("scrfd_ros"), "launch", "faces.launch.py"])
    return LaunchDescription(
        [
            IncludeLaunchDescription(faces, launch_arguments=ARGUMENTS.items()),
            launch_testing.actions.ReadyToTest(),
        ]
    )


class TestFaces(unittest.TestCase):
    def test_an_image_is_answered(self) -> None:
        answers: list[Detection2DArray] = []
        image = image_message(read_image(ensure_picture("t1.jpg")), Header(frame_id="camera"))
        rclpy.init()
        node = rclpy.create_node("camera", namespace=ARGUMENTS["namespace"])
        try:
            images = node.create_publisher(Image, ARGUMENTS["image"], 1)
            node.create_subscription(Detection2DArray, "detections", answers.append, 10)
            end = time.monotonic() + TIMEOUT
            while not answers and time.monotonic() < end:
                if images.get_subscription_count() and node.count_publishers("detections"):
                    images.publish(image)
                rclpy.spin_once(node, timeout_sec=0.5)
        finally:
            node.destroy_node()
            rclpy.shutdown()
        self.assertTrue(answers, f"no detections within {TIMEOUT} s")
        self.assertEqual(len(answers[0].detections), 6)
        self.assertEqual(answers[0].header.frame_id, "camera")


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_exit_status_is_0(self, proc_info: ActiveProcInfoHandler) -> None:
        self.assertEqual(len(proc_info.processes()), 1)
        launch_testing.asserts.assertExitCodes(proc_info)
