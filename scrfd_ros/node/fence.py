# SPDX-License-Identifier: Apache-2.0
"""What one message, request or callback raises costs that one, and does not end the node.

rclpy lets whatever is raised while it takes a message or request, while it decodes a request, in a
callback, or while it sends a response, leave spin_once(). Raised while taking, it would also leave
the callback group locked: the node would live and hear nothing.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.service import Service
from rclpy.task import Task

_LOG_PERIOD = 5.0  # seconds between repeats of what has been told already


class FencedExecutor(SingleThreadedExecutor):
    """Tells what taking a message or calling its callback raises, and goes on.

    What waiting for messages raises still leaves spin_once(): it would come again at once.
    """

    def _make_handler(
        self, entity: Any, node: Node, take_from_wait_list: Any, *execute: Any
    ) -> Task:
        # Humble takes with one function and executes with another; later versions take, and get
        # what is to be executed, if anything.
        def take(entity: Any) -> Any:
            try:
                taken = take_from_wait_list(entity)
            except rclpy_implementation.InvalidHandle:  # destroyed in between
                return None
            except Exception as error:
                tell(node, _name(entity), error)
                return None
            if not execute and taken is None:
                return None

            async def fenced() -> None:
                try:
                    await (execute[0](entity, taken) if execute else taken())
                except Exception as error:
                    tell(node, _name(entity), error)

            return fenced

        async def run(entity: Any, fenced: Any) -> None:
            if fenced is not None:
                await fenced()

        return super()._make_handler(entity, node, take, *([run] if execute else []))


def fence_services(node: Node) -> None:
    """Have every service that a node has so far answer each request, by a refusal if need be."""
    for service in node.services:
        service.callback = _fenced(node, service, service.callback)


def _fenced(node: Node, service: Service, callback: Callable[[Any, Any], Any]) -> Any:
    def answer(request: Any, response: Any) -> Any:
        try:
            return callback(request, response)
        except Exception as error:
            tell(node, _name(service), error)
            return _refusal(service.srv_type, str(error) or repr(error))

    def answer_one_by_one(request: Any, response: Any) -> Any:
        for parameter in request.parameters:
            one = SetParameters.Request(parameters=[parameter])
            response.results += answer(one, SetParameters.Response()).results
        return response

    return answer_one_by_one if service.srv_type is SetParameters else answer


def _refusal(kind: Any, reason: str) -> Any:
    """The response of a service of this type to what it cannot do; where none is, an empty one."""
    result = SetParametersResult(successful=False, reason=f"the request is refused: {reason}")
    if kind is SetParameters:
        return SetParameters.Response(results=[result])
    if kind is SetParametersAtomically:
        return SetParametersAtomically.Response(result=result)
    if kind is ChangeState:
        return ChangeState.Response(success=False)
    return kind.Response()


def tell(node: Node, what: str, error: Exception) -> None:
    """Log an exception: of this package's own code with its traceback, once for each place.

    Args:
        what: what it was raised by, such as the name of a service.
    """
    place = _own_place(error)
    logger = node.get_logger()
    if place is None:  # rclpy's, about what came
        logger.warning(f"{what}: refused: {_first_line(error)}", throttle_duration_sec=_LOG_PERIOD)
        return
    if place not in _told:
        _told.add(place)
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        logger.error(f"{what}: an error in scrfd_ros, please report it; the node goes on:\n{text}")
        return
    logger.error(f"{what}: again {error!r} in {place}", throttle_duration_sec=_LOG_PERIOD)


_told: set[str] = set()  # places in the code; no more than there are lines


def _own_place(error: Exception) -> str | None:
    """The innermost line of this package that an exception has come through, if any."""
    own: FrameType | None = None
    line = 0
    for frame, number in traceback.walk_tb(error.__traceback__):
        name = frame.f_globals.get("__name__", "")
        if name.startswith("scrfd_ros.") and name != __name__:
            own, line = frame, number
    return None if own is None else f"{own.f_code.co_filename}:{line}"


def _first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0][:300]


def _name(entity: Any) -> str:
    for attribute in ("srv_name", "topic_name", "topic"):
        name = getattr(entity, attribute, None)
        if isinstance(name, str):
            return name
    return type(entity).__name__
