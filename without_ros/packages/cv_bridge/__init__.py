"""Stand-in for ROS 2's Python package `cv_bridge`: image messages to arrays and back."""

from cv_bridge.core import CvBridge, CvBridgeError

__all__ = ["CvBridge", "CvBridgeError"]
