# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: declared once, with type, range and description."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSReliabilityPolicy

from scrfd_ros.config import (
    InputSize,
    Option,
    OptionField,
    from_values,
    options,
    shown,
    with_values,
)
from scrfd_ros.errors import ScrfdError
from scrfd_ros.node.config import NodeConfig, effect, from_parameter, to_parameter

_LIVE = tuple(name for name, each in options(NodeConfig).items() if each.option.is_live)


def _names(kind: Any) -> tuple[str, ...]:
    return tuple(name.lower() for name in kind.__members__ if name != "UNKNOWN")


_QOS = {
    "depth": Option("", limits=(1, 10_000)),
    "reliability": Option("", choices=lambda: _names(QoSReliabilityPolicy)),
    "history": Option("", choices=lambda: _names(QoSHistoryPolicy)),
    "durability": Option("", choices=lambda: _names(QoSDurabilityPolicy)),
}
"""What can be set of the QoS of a topic; rclpy declares these parameters."""


def declare_parameters(node: Node) -> None:
    """Declare all parameters on a node, and refuse values that can never work.

    Raises:
        ScrfdError: such a value was given at start.
    """
    parameters = options(NodeConfig)

    def validate(changes: list[Parameter]) -> SetParametersResult:
        for change in changes:
            reason = _refusal(change, parameters.get(change.name))
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    for override in node._parameter_overrides.values():
        reason = _refusal(override, parameters.get(override.name))
        if reason and override.name in parameters:
            raise ScrfdError(reason)
    # First the callback, so that what rclpy declares by itself passes through it too.
    node.add_on_set_parameters_callback(validate)
    for name, each in parameters.items():
        node.declare_parameter(name, to_parameter(each.default), _descriptor(each))


def node_config(node: Node) -> NodeConfig:
    """The configuration that the node's parameters make now.

    Raises:
        ScrfdError: two parameters contradict each other; names both.
    """
    values = {
        name: from_parameter(node.get_parameter(name).value, each.type)
        for name, each in options(NodeConfig).items()
    }
    return from_values(NodeConfig, values)


class LiveConfig:
    """The configuration of a node, in which only live parameters change from now on.

    May be used by several threads.

    Raises:
        ScrfdError: as `node_config`.
    """

    def __init__(self, node: Node) -> None:
        self._get = node.get_parameter
        # The live parameters, and the configuration that they make: set as one, as another thread
        # may do the same.
        self._state = list(map(self._get, _LIVE)), node_config(node)

    def current(self) -> NodeConfig:
        """The configuration now: the same object as before unless a live parameter was set."""
        # For every image. rclpy makes a new object when a parameter is set.
        parameters = list(map(self._get, _LIVE))
        before, config = self._state
        if parameters != before:
            known = options(NodeConfig)
            values = {
                name: from_parameter(parameter.value, known[name].type)
                for name, parameter in zip(_LIVE, parameters, strict=True)
            }
            config = with_values(config, values)
            self._state = parameters, config
        return config


def _descriptor(each: OptionField) -> ParameterDescriptor:
    known = each.option
    descriptor = ParameterDescriptor(
        description=f"{known.description} Takes effect {effect(known)}.",
        read_only=known.is_read_only,
        dynamic_typing=each.type == InputSize,
    )
    if known.limits is None:
        descriptor.additional_constraints = known.constraint
    elif each.type is int:
        low, high = map(int, known.limits)
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    else:
        lowest, highest = known.limits
        descriptor.floating_point_range = [FloatingPointRange(from_value=lowest, to_value=highest)]
    return descriptor


def _refusal(change: Parameter, each: OptionField | None) -> str:
    """Why a parameter cannot have this value, in a sentence; empty if it can.

    Args:
        each: the option that the parameter sets; None for one that this package does not declare.
    """
    if not change.name:  # rclpy would declare it
        return "a parameter without a name cannot be set"
    if each is None:
        is_override = change.name.startswith("qos_overrides.")
        reason = _qos_refusal(change) if is_override else ""
    else:
        reason = _type_refusal(change, each) or each.option.refusal(
            from_parameter(change.value, each.type)
        )
    return f"{change.name}: {reason}" if reason else ""


_TYPES = {
    Parameter.Type.NOT_SET: "nothing, or an empty list",
    Parameter.Type.BOOL: "true or false",
    Parameter.Type.INTEGER: "a whole number",
    Parameter.Type.DOUBLE: "a number with a decimal point",
    Parameter.Type.STRING: "a text",
    Parameter.Type.BYTE_ARRAY: "a list of bytes",
    Parameter.Type.BOOL_ARRAY: "a list of true and false",
    Parameter.Type.INTEGER_ARRAY: "a list of whole numbers",
    Parameter.Type.DOUBLE_ARRAY: "a list of numbers with a decimal point",
    Parameter.Type.STRING_ARRAY: "a list of texts",
}


_SIZE_TYPES = (Parameter.Type.STRING, Parameter.Type.INTEGER, Parameter.Type.INTEGER_ARRAY)
"""Of a parameter that takes an `InputSize`."""


def _type_refusal(change: Parameter, each: OptionField) -> str:
    given = "" if change.value is None else f"{shown(change.value)} is "
    given += _TYPES[change.type_]
    if each.type == InputSize:
        return "" if change.type_ in _SIZE_TYPES else f"{given}; expected: {each.option.form}"
    default = to_parameter(each.default)
    expected = Parameter.Type.from_parameter_value(default)
    if change.type_ == expected:
        return ""
    example = str(default).lower() if isinstance(default, bool) else repr(default)
    if isinstance(change.value, int) and expected == Parameter.Type.DOUBLE:
        example = repr(float(change.value))
    elif expected == Parameter.Type.STRING_ARRAY:
        names = [change.value] if isinstance(change.value, str) else "[front, rear]"
        example = f'{names}, or [""] for one camera without a name'
    return f"{given}; expected: {_TYPES[expected]}, such as {example}"


def _qos_refusal(change: Parameter) -> str:
    policy = change.name.rpartition(".")[2]
    if policy not in _QOS:
        return ""
    if policy == "depth" and change.type_ != Parameter.Type.INTEGER:
        return f"{shown(change.value)} is not a whole number"
    return _QOS[policy].refusal(change.value)
