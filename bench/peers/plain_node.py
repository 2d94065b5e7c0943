# SPDX-License-Identifier: Apache-2.0
"""A node as written in an afternoon: subscribe, convert, call insightface, publish."""

from __future__ import annotations

from functools import partial

import numpy as np
import rclpy
from insightface.app import FaceAnalysis
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose


class PlainNode(Node):
    """Publishes the faces in bgr8 images of cameras.

    Parameters: models, a folder; recognize, whether faces are embedded; cameras, namespaces.
    """

    def __init__(self) -> None:
        super().__init__("plain_node")
        models = self.declare_parameter("models", "").value
        tasks = ["detection"]
        if self.declare_parameter("recognize", True).value:
            tasks.append("recognition")
        self.analysis = FaceAnalysis(models, allowed_modules=tasks)
        self.analysis.prepare(ctx_id=-1, det_size=(640, 640))
        for camera in self.declare_parameter("cameras", [""]).value:
            prefix = f"{camera}/" if camera else ""
            publisher = self.create_publisher(Detection2DArray, f"{prefix}detections", 10)
            find_faces = partial(self.find_faces, publisher)
            self.create_subscription(Image, f"{prefix}image", find_faces, qos_profile_sensor_data)

    def find_faces(self, publisher: Publisher, image: Image) -> None:
        pixels = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)
        message = Detection2DArray(header=image.header)
        for face in self.analysis.get(pixels):
            x1, y1, x2, y2 = map(float, face.bbox)
            detection = Detection2D(header=image.header)
            detection.bbox.center.position.x = (x1 + x2) / 2
            detection.bbox.center.position.y = (y1 + y2) / 2
            detection.bbox.size_x = x2 - x1
            detection.bbox.size_y = y2 - y1
            result = ObjectHypothesisWithPose()
            result.hypothesis.class_id = "face"
            result.hypothesis.score = float(face.det_score)
            detection.results.append(result)
            message.detections.append(detection)
        publisher.publish(message)


def main() -> None:
    rclpy.init()
    node = PlainNode()
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
