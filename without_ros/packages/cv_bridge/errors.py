"""Errors of the conversions."""


class CvBridgeError(TypeError):
    """An image that cannot be converted."""
