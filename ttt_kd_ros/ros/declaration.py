"""Declares the table of parameters with ROS."""

from __future__ import annotations

from collections.abc import Iterable

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from ttt_kd_ros.ros.parameters import PARAMETERS, Parameter, Value, camera_parameters, check_camera_names

QOS_OVERRIDES = "qos_overrides."


def declare_parameters(node: Node) -> dict[str, Value]:
    """Declare all parameters and return their values.

    ROS itself then refuses changes of another type, out of range, or of a parameter that is fixed.

    Raises
    ------
    rclpy.exceptions.ParameterException
        If a value that was given at the start is of another type or out of its range.
    InputError
        If a camera's name cannot be used.
    """
    values = _declare(node, PARAMETERS)
    cameras: tuple[str, ...] = values["cameras"]  # type: ignore[assignment]
    check_camera_names(cameras)
    for camera in cameras:
        values |= _declare(node, camera_parameters(camera))
    return values


def unknown_parameters(node: Node) -> tuple[str, ...]:
    """Names of parameters that were given at the start and are none of the node's, once all are declared.

    The profiles of topics (``qos_overrides``) are left out: they are declared with the topics.
    """
    given = getattr(node, "_parameter_overrides", {})  # rclpy tells them nowhere else
    return tuple(n for n in given if not node.has_parameter(n) and not n.startswith(QOS_OVERRIDES))


def read_value(parameter: RosParameter) -> Value:
    """Value of a parameter; ROS has no empty list of strings, but leaves such a parameter without a value."""
    value = parameter.value
    if value is None:
        return ()
    return tuple(value) if parameter.type_ == RosParameter.Type.STRING_ARRAY else value


def _declare(node: Node, parameters: Iterable[Parameter]) -> dict[str, Value]:
    return {p.name: read_value(node.declare_parameter(p.name, _default(p), descriptor(p))) for p in parameters}


def _default(parameter: Parameter) -> Value | RosParameter.Type:
    return RosParameter.Type.STRING_ARRAY if parameter.default == () else parameter.default


def descriptor(parameter: Parameter) -> ParameterDescriptor:
    """What ROS tells of a parameter: description, range, allowed words, when it may be changed."""
    allowed = [f"one of {', '.join(parameter.choices)}"] if parameter.choices else []
    when = [] if parameter.live or parameter.fixed else ["changed only while the node is unconfigured"]
    result = ParameterDescriptor(
        description=parameter.description,
        additional_constraints="; ".join([*allowed, *when]),
        read_only=parameter.fixed,
    )
    if parameter.bounds:
        lowest, highest = parameter.bounds
        if isinstance(parameter.default, int):
            result.integer_range = [IntegerRange(from_value=int(lowest), to_value=int(highest), step=1)]
        else:
            result.floating_point_range = [FloatingPointRange(from_value=float(lowest), to_value=float(highest))]
    return result
