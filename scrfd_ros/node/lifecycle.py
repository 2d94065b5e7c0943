# SPDX-License-Identifier: Apache-2.0
"""A lifecycle node that logs why a transition fails, and that no request for one can end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode, LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn as Transition

from scrfd_ros.node.error_reports import EXPECTED_ERRORS, log_error, reason_of

_LOG_PERIOD = 5.0  # seconds between repeats of one message


class GuardedLifecycleNode(LifecycleNode):
    """A lifecycle node whose transitions are marked with `guarded`.

    Attributes:
        final_status: exit status of the process once the lifecycle is at its end; None before.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.final_status: int | None = None

    def release(self) -> None:
        """Undo what configuring and activating have done so far."""
        raise NotImplementedError

    def report_idle(self, level: bytes, sentence: str) -> None:
        """Have the diagnostics say why the node is not active."""
        raise NotImplementedError

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> Transition:
        # Every transition passes here, at start and on request. In rclpy (Humble and Jazzy) a
        # request for a transition that the present state does not have ends the process.
        machine = self._state_machine
        if transition_id not in {transition[0] for transition in machine.available_transitions}:
            self.get_logger().error(
                f"transition {transition_id} refused: the state {machine.current_state[1]} has no "
                f"transition of that number",
                throttle_duration_sec=_LOG_PERIOD,
            )
            return Transition.FAILURE
        result = super()._LifecycleNodeMixin__change_state(transition_id)
        if machine.current_state[1] == "finalized":
            self.final_status = 0 if result == Transition.SUCCESS else 1
            self.get_logger().info("finalized: no transition leads from here, the process ends")
        return result


_Node = TypeVar("_Node", bound=GuardedLifecycleNode)
_Step = Callable[[_Node, LifecycleState], Transition]


def guarded(
    verb: str, on_failure: Transition = Transition.ERROR
) -> Callable[[_Step[_Node]], _Step[_Node]]:
    """Guard a transition: if it raises, log why, release everything, and report the node as idle.

    rclpy does none of this.

    Args:
        verb: what the node cannot do then.
        on_failure: the outcome then; with ERROR, rclpy calls on_error().
    """

    def decorate(function: _Step[_Node]) -> _Step[_Node]:
        @functools.wraps(function)
        def step(node: _Node, state: LifecycleState) -> Transition:
            try:
                return function(node, state)
            except Exception as error:
                reason = reason_of(error)
                node.get_logger().error(f"cannot {verb}: {reason}")
                if not isinstance(error, EXPECTED_ERRORS):
                    log_error(node, verb, error)
            try:
                node.release()
            except Exception as error:
                log_error(node, f"after it cannot {verb}", error)
                return Transition.ERROR
            what = "not configured" if verb == "configure" else f"not configured, cannot {verb}"
            node.report_idle(DiagnosticStatus.ERROR, f"{what}: {reason}")
            return on_failure

        return step

    return decorate
