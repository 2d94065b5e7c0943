# SPDX-License-Identifier: Apache-2.0
"""Requests for a service of parameters that no ROS 2 client would send, for Cyclone DDS.

On the wire a string is its length and bytes: here any bytes, and a number of strings that is a lie.
"""

from dataclasses import dataclass

import pytest

try:
    from cyclonedds.idl import IdlStruct
    from cyclonedds.idl.types import sequence, uint8, uint32
except ModuleNotFoundError:
    pytest.skip("cyclonedds is missing: it has no wheel for aarch64", allow_module_level=True)

TYPE = "rcl_interfaces::srv::dds_::GetParameters_Request_"


@dataclass
class RequestOfBytes(IdlStruct, typename=TYPE):
    names: sequence[sequence[uint8]]


@dataclass
class RequestWithoutNames(IdlStruct, typename=TYPE):
    count: uint32
