# SPDX-License-Identifier: Apache-2.0
"""The wire types of images and detections, for Cyclone DDS.

DDS identifies a type by its name. Cyclone DDS cannot read annotations that are strings, so this
file does without `from __future__ import annotations`.
"""

from dataclasses import dataclass

import pytest

try:
    from cyclonedds.idl import IdlStruct
    from cyclonedds.idl.types import array, float64, int32, sequence, uint8, uint32
except ModuleNotFoundError:
    pytest.skip("cyclonedds is missing: it has no wheel for aarch64", allow_module_level=True)


@dataclass
class CycloneTime(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32
    nanosec: uint32


@dataclass
class CycloneHeader(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: CycloneTime
    frame_id: str


@dataclass
class CycloneImage(IdlStruct, typename="sensor_msgs::msg::dds_::Image_"):
    header: CycloneHeader
    height: uint32
    width: uint32
    encoding: str
    is_bigendian: uint8
    step: uint32
    data: sequence[uint8]


@dataclass
class CyclonePoint(IdlStruct, typename="geometry_msgs::msg::dds_::Point_"):
    x: float64
    y: float64
    z: float64


@dataclass
class CycloneQuaternion(IdlStruct, typename="geometry_msgs::msg::dds_::Quaternion_"):
    x: float64
    y: float64
    z: float64
    w: float64


@dataclass
class CyclonePose(IdlStruct, typename="geometry_msgs::msg::dds_::Pose_"):
    position: CyclonePoint
    orientation: CycloneQuaternion


@dataclass
class CyclonePoseWithCovariance(
    IdlStruct, typename="geometry_msgs::msg::dds_::PoseWithCovariance_"
):
    pose: CyclonePose
    covariance: array[float64, 36]


@dataclass
class CycloneHypothesis(IdlStruct, typename="vision_msgs::msg::dds_::ObjectHypothesis_"):
    class_id: str
    score: float64


@dataclass
class CycloneResult(IdlStruct, typename="vision_msgs::msg::dds_::ObjectHypothesisWithPose_"):
    hypothesis: CycloneHypothesis
    pose: CyclonePoseWithCovariance


@dataclass
class CyclonePoint2D(IdlStruct, typename="vision_msgs::msg::dds_::Point2D_"):
    x: float64
    y: float64


@dataclass
class CyclonePose2D(IdlStruct, typename="vision_msgs::msg::dds_::Pose2D_"):
    position: CyclonePoint2D
    theta: float64


@dataclass
class CycloneBox(IdlStruct, typename="vision_msgs::msg::dds_::BoundingBox2D_"):
    center: CyclonePose2D
    size_x: float64
    size_y: float64


@dataclass
class CycloneDetection(IdlStruct, typename="vision_msgs::msg::dds_::Detection2D_"):
    header: CycloneHeader
    results: sequence[CycloneResult]
    bbox: CycloneBox
    id: str


@dataclass
class CycloneDetections(IdlStruct, typename="vision_msgs::msg::dds_::Detection2DArray_"):
    header: CycloneHeader
    detections: sequence[CycloneDetection]
