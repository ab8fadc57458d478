"""Errors of a transform lookup, named as in ROS 2."""

# ruff: noqa: N818


class TransformException(Exception):
    """Base of all errors of this package."""


class LookupException(TransformException):
    """A frame does not exist, or the tree contains a loop."""


class ConnectivityException(TransformException):
    """Two frames are not part of the same tree."""


class ExtrapolationException(TransformException):
    """The requested time is outside of the stored ones."""


class InvalidArgumentException(TransformException):
    """A frame name that cannot be: empty or with a leading slash."""


class TimeoutException(TransformException):
    """Part of the interface; a lookup that timed out raises the error that it waited to go away."""
