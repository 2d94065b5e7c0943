# SPDX-License-Identifier: Apache-2.0
"""An error with one message, request or callback does not end the node.

rclpy lets an exception leave spin_once() if it is raised while rclpy takes a message or request,
decodes a request, calls a callback, or sends a response. After an exception while taking, it also
leaves the callback group locked: the node would live on and receive nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.service import Service
from rclpy.task import Task

from scrfd_ros.node.error_reports import log_error


class GuardedExecutor(SingleThreadedExecutor):
    """Logs an exception that taking a message or calling its callback raises, and goes on.

    An exception while waiting for messages still leaves spin_once(): it would come again at once.
    """

    def _make_handler(
        self, entity: Any, node: Node, take_from_wait_list: Any, *execute: Any
    ) -> Task:
        # Humble takes with one function and executes with another. Later versions have one, which
        # takes and returns what to execute, if anything.
        def take(entity: Any) -> Any:
            try:
                taken = take_from_wait_list(entity)
            except rclpy_implementation.InvalidHandle:  # destroyed in between
                return None
            except Exception as error:
                log_error(node, _name(entity), error)
                return None
            if not execute and taken is None:
                return None

            async def guarded() -> None:
                try:
                    await (execute[0](entity, taken) if execute else taken())
                except Exception as error:
                    log_error(node, _name(entity), error)

            return guarded

        async def run(entity: Any, guarded: Any) -> None:
            if guarded is not None:
                await guarded()

        return super()._make_handler(entity, node, take, *([run] if execute else []))


def guard_services(node: Node) -> None:
    """Have each of a node's present services answer every request, by a refusal if it fails."""
    for service in node.services:
        guard_service(node, service)


def guard_service(node: Node, service: Service) -> None:
    """Have a service of a node answer every request, by a refusal if it fails."""
    service.callback = _guarded(node, service, service.callback)


def _guarded(node: Node, service: Service, callback: Callable[[Any, Any], Any]) -> Any:
    def answer(request: Any, response: Any) -> Any:
        try:
            return callback(request, response)
        except Exception as error:
            log_error(node, _name(service), error)
            return _refusal(service.srv_type, str(error) or repr(error))

    def answer_one_by_one(request: Any, response: Any) -> Any:
        for parameter in request.parameters:
            one = SetParameters.Request(parameters=[parameter])
            response.results += answer(one, SetParameters.Response()).results
        return response

    return answer_one_by_one if service.srv_type is SetParameters else answer


def _refusal(kind: Any, reason: str) -> Any:
    """The response with which a service of this type refuses; an empty one if it has none."""
    result = SetParametersResult(successful=False, reason=f"the request is refused: {reason}")
    if kind is SetParameters:
        return SetParameters.Response(results=[result])
    if kind is SetParametersAtomically:
        return SetParametersAtomically.Response(result=result)
    if kind is ChangeState:
        return ChangeState.Response(success=False)
    if "message" in kind.Response.get_fields_and_field_types():  # as in std_srvs
        return kind.Response(success=False, message=result.reason)
    return kind.Response()


def _name(entity: Any) -> str:
    for attribute in ("srv_name", "topic_name", "topic"):
        name = getattr(entity, attribute, None)
        if isinstance(name, str):
            return name
    return type(entity).__name__
