# SPDX-License-Identifier: Apache-2.0
"""Warnings about arguments and parameters that the node does not use, with the nearest name."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from rclpy.node import Node

from scrfd_ros.errors import ScrfdError
from scrfd_ros.node.params_files import PARAMETERS, read_params_file, sections

_EXAMPLE = f'for example "/**: {{{PARAMETERS}: {{detector.model: 500m}}}}"'
# Every node has these, at least in some versions of ROS 2.
_OF_EVERY_NODE = {"use_sim_time", "start_type_description_service"}
_OVERRIDE = re.compile(r"((qos_overrides\..*\.)(?:publisher|subscription))\w*\.\w+")


def warn_of_unused_arguments(node: Node, arguments: Sequence[str]) -> None:
    """Log a warning for each argument and parameter that the node does not use.

    Parameters for the QoS of topics are left to `warn_of_unused_qos`.

    Args:
        arguments: of the command line, without the program's name.
    """
    overrides = (name for name in node._parameter_overrides if not _is_qos_override(name))
    for sentence in (
        *for_other_nodes(arguments, node.get_fully_qualified_name()),
        *unused_parameters(overrides, node.get_parameters_by_prefix("")),
    ):
        node.get_logger().warning(sentence)
    ignored = ignored_arguments(arguments)
    if ignored:
        node.get_logger().warning(
            f"ignored: {' '.join(ignored)}. Write parameters as: --ros-args -p name:=value"
        )


def warn_of_unused_qos(node: Node, later: Iterable[str]) -> None:
    """Log a warning for each parameter for the QoS of a topic that the node does not have.

    Args:
        later: names of such parameters that are not declared yet.
    """
    overrides = filter(_is_qos_override, node._parameter_overrides)
    for sentence in unused_parameters(overrides, {*node.get_parameters_by_prefix(""), *later}):
        node.get_logger().warning(sentence)


def unused_parameters(given: Iterable[str], known: Iterable[str]) -> list[str]:
    """A sentence for each parameter that was given and does not exist.

    Args:
        given: names of parameters, as the user wrote them.
        known: names of all parameters that exist, with those for the QoS of topics.
    """
    known = set(known)
    return [
        f"the parameter {name} is not used: {_hint(name, known)}"
        for name in sorted(set(given) - known - _OF_EVERY_NODE)
    ]


def _is_qos_override(name: str) -> bool:
    """Whether a parameter is for the QoS of a topic; these are declared with the topics."""
    return name.startswith("qos_overrides.")


def _hint(name: str, known: set[str]) -> str:
    override = _OVERRIDE.fullmatch(name)
    if override:
        policies = [
            other.rpartition(".")[2] for other in known if other.startswith(f"{override[1]}.")
        ]
        if policies:
            return f"the policies that can be set there are {', '.join(sorted(policies))}"
        known = {other for other in known if other.startswith(override[2])} or known
    nearest = _nearest(name, known)
    return f"did you mean {nearest}?" if nearest else "no parameter has this name or a similar one"


def _nearest(name: str, known: Iterable[str]) -> str | None:
    spellings = {other.lower(): other for other in known}
    # By the whole name, then by its last part: the user may have left out the section.
    found = get_close_matches(name.lower(), spellings, n=1)
    if found:
        return spellings[found[0]]
    parts = {other.rpartition(".")[2]: other for other in spellings.values()}
    found = get_close_matches(name.lower().rpartition(".")[2], parts, n=1)
    return parts[found[0]] if found else None


def bad_params_file(arguments: Sequence[str]) -> str | None:
    """What is wrong with the first unusable parameter file, in one sentence; None if all are fine.

    Args:
        arguments: of the command line.
    """
    for file in _params_files(arguments):
        try:
            document = read_params_file(file)
        except ScrfdError as error:
            return f"the parameter file {file} {error}"
        if not isinstance(document, dict):
            return f"the parameter file {file} holds no names of nodes; expected: {_EXAMPLE}"
        for key, parameters in sections(document):
            if not isinstance(parameters, dict):
                return (
                    f"the parameter file {file} has no {PARAMETERS} with parameters below {key}; "
                    f"expected: {_EXAMPLE}"
                )
    return None


def for_other_nodes(arguments: Sequence[str], node: str) -> list[str]:
    """A sentence for each parameter file, key in it, and argument that names another node.

    Keys for other nodes are reported only if they resemble this node's name, or if the file has no
    key for this node.

    Args:
        arguments: of the command line; its parameter files must be readable.
        node: fully qualified name of the node.
    """
    name = node.rpartition("/")[2]
    sentences = []
    for file in _params_files(arguments):
        keys = [key for key, _ in sections(read_params_file(file))]
        matching = [key for key in keys if _matches(key, node)]
        if any(key.rpartition("/")[2] == name for key in matching):
            continue
        near = [key for key in keys if key not in matching and _resembles(key, name)]
        if near:
            sentences.append(
                f"the parameter file {file}: what is below {near[0]} is not used: this node is "
                f"{node}; write {node} or /** instead"
            )
        elif not matching:
            is_for = f"is for {', '.join(keys)}" if keys else "is empty"
            sentences.append(
                f"the parameter file {file} {is_for}: nothing of it is used, this node is {node}"
            )
    for argument in _after(arguments, ("-p", "--param")):
        target, colon, rest = argument.partition(":=")[0].partition(":")
        if colon and not _matches(target, node):
            sentences.append(
                f"the parameter {rest} is for {target} and not used: this node is {name}"
            )
    return sentences


def ignored_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments that ROS 2 ignores: those outside --ros-args."""
    ignored = []
    is_ros = False
    for argument in arguments:
        if argument == "--ros-args":
            is_ros = True
        elif argument == "--" and is_ros:
            is_ros = False
        elif not is_ros:
            ignored.append(argument)
    return ignored


def _after(arguments: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    """The values of these options within --ros-args."""
    outside = ignored_arguments(arguments)
    for option, value in itertools.pairwise(arguments):
        if option in options and option not in outside:
            yield value


def _params_files(arguments: Sequence[str]) -> list[str]:
    """The parameter files that can be read more than once: not pipes."""
    files = _after(arguments, ("--params-file",))
    return [file for file in files if not Path(file).is_fifo()]


def _matches(key: str, node: str) -> bool:
    """Whether a key of a parameter file, with * and ** as wildcards, matches a node."""
    pattern = re.escape(f"/{key.lstrip('/')}")
    pattern = pattern.replace(r"/\*\*", r"(/\w+)*").replace(r"/\*", r"/\w+")
    return re.fullmatch(pattern, node) is not None


def _resembles(key: str, name: str) -> bool:
    return bool(get_close_matches(key.rpartition("/")[2].lower(), [name], cutoff=0.7))
